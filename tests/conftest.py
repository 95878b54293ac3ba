"""Tiny synthetic photographs and one protected release of them, made once."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from pueprotect.audit.suites import SUITES
from pueprotect.cli import app
from pueprotect.learning import training
from pueprotect.learning.device import native_bf16
from pueprotect.protect import presets

CLASSES = ("cat", "dog", "owl")
PER_CLASS = 20
TINY = ("--preset", "quick", "--rounds", "1", "--size", "16", "--device", "cpu", "--workers", "2")


@pytest.fixture(scope="session", autouse=True)
def _no_repeats() -> Iterator[None]:
    """A tiny set gets as many passes as a large one: tests of the workflow need no strong noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "FULL_SIZE", 1)
        yield


@pytest.fixture(scope="session", autouse=True)
def _float32_on_cpus() -> Iterator[None]:
    """Plain references are float32, also on processors that multiply bfloat16 in hardware."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "native_bf16", lambda device: device.startswith("cuda") and native_bf16(device))
        yield


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def data(self) -> Any:
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Release:
    """A protected folder that tests must not change; `copy` makes one that they may."""

    src: Path
    out: Path
    vault: Path
    outcome: Outcome

    def copy(self, place: Path) -> "Release":
        shutil.copytree(self.out, place / "out")
        shutil.copytree(self.vault, place / "out.vault")
        return Release(self.src, place / "out", place / "out.vault", self.outcome)


Command = Callable[..., Outcome]


def run_command(*arguments: object) -> Outcome:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return Outcome(result.exit_code, result.stdout, result.stderr)


def write_photos(root: Path, per_class: int = PER_CLASS, suffix: str = ".png", seed: int = 0) -> Path:
    """Class folders of noisy 20 x 24 pictures, each class with a colour of its own."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = rng.integers(40, 120, (20, 24, 3))
            pixels[..., number] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index:03d}{suffix}")
    return root


def photo(height: int = 20, width: int = 28, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A smooth picture with some texture, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = np.stack([rows * 4 + 60, columns * 4 + 40, 180 - rows * 2 - columns], axis=2)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def put(path: Path, pixels: npt.NDArray[np.uint8] | None = None, **options: Any) -> Path:
    """Save `pixels`, or a `photo`, and make the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo() if pixels is None else pixels).save(path, **options)
    return path


def tree(root: Path) -> dict[str, bytes | None]:
    """Every path below `root`, with the bytes of files."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Results must not depend on how many threads the machine offers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command() -> Command:
    """Run a command line in this process."""
    return run_command


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "src")


@pytest.fixture(scope="session")
def release(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    out = tmp_path_factory.mktemp("release") / "out"
    outcome = run_command("protect", photos, "--out", out, *TINY, "--release-anyway", "--json")
    assert outcome.code == 0, outcome.stderr
    return Release(photos, out, Path(f"{out}.vault"), outcome)


# The suite quick and one attack more.
FIGURES = {name: 0.34 for name in SUITES["quick"]} | {"weight-noise": 0.4, "pst": 0.45, "recovery": 0.44}


@dataclass(frozen=True)
class Recorded:
    """A release with a certificate and some attacks; `copy` makes one that tests may change."""

    release: Release
    certificate: dict[str, Any]
    audit: dict[str, Any]

    def copy(self, place: Path) -> "RecordedRelease":
        return RecordedRelease(self.release.copy(place))


@dataclass(frozen=True)
class RecordedRelease:
    """A copied release whose recorded figures a test can set."""

    release: Release

    @property
    def out(self) -> Path:
        return self.release.out

    @property
    def vault(self) -> Path:
        return self.release.vault

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        path = self.vault / name
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    def attack(self, name: str, **figures: Any) -> None:
        self.edit(f"audit/{name}-resnet8.json", lambda data: data["result"].update(figures))

    def good(self) -> "RecordedRelease":
        """Figures that a strict policy passes, and fails when one of them moves."""
        for name, accuracy in FIGURES.items():
            self.attack(name, accuracy=accuracy, epochs=15.0)
        self.attack("clean-line", accuracy=0.9)
        # One epoch on 48 images ends before the first look at the activations.
        log = [
            {
                "step": 20 * n,
                "acm": {"stem": 0.2, "stage1": 0.3, "stage2": 0.1 * n},
                "ratio": 1.1 + (n == 4),
                "alarm": n == 4,
            }
            for n in range(1, 10)
        ]
        self.edit("audit/pst-resnet8.json", lambda data: data["result"]["details"].update(trace=log))
        for name in (*FIGURES, "clean-line"):
            self.edit(f"audit/{name}-resnet8.json", lambda data: data.update(chance=0.3))

        def certificate(data: Any) -> None:
            data["draws"] = 1000
            for point in data["curve"]:
                point["certified_learnability"] = 0.42
            for point in data["baseline"]["curve"]:
                point["certified_learnability"] = 0.8

        self.edit("certificate.json", certificate)
        return self


@pytest.fixture(scope="session")
def recorded(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    mine = release.copy(tmp_path_factory.mktemp("recorded"))
    short = ("--device", "cpu", "--epochs", 1, "--json")
    recipe = ("--draws", 50, "--eta", "0,0.003", "--surrogate-recipe", "plain", "--baseline")
    certificate = run_command("certify", mine.out, *recipe, *short)
    assert certificate.code == 0, certificate.stderr
    attacks = [word for name in FIGURES for word in ("--attack", name)]
    audit = run_command("audit", mine.out, *attacks, "--arch", "resnet8", *short)
    assert audit.code == 0, audit.stderr
    return Recorded(mine, certificate.data, audit.data)


@pytest.fixture
def evidence(recorded: Recorded, tmp_path: Path) -> RecordedRelease:
    return recorded.copy(tmp_path).good()


@pytest.fixture(autouse=True)
def _no_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUEPROTECT_DEBUG", raising=False)
