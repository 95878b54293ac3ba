"""Fixtures: one protected release of tiny photographs, made once, and what every test runs under."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    FIGURES,
    TINY,
    Command,
    Recorded,
    RecordedRelease,
    Release,
    run_command,
    write_photos,
)

from pueprotect.learning import training
from pueprotect.learning.device import native_bf16
from pueprotect.protect import presets
from pueprotect.protect.methods.error_minimising import Optimizer


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


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Results must not depend on how many threads the machine offers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _still_one_thread() -> Iterator[None]:
    """A test that leaves more threads behind fails itself: processes that later tests fork would hang."""
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(1)
    assert left == 1


@pytest.fixture
def forbid_optimising(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it where a test has its noise: a run that makes noise anew from there on fails; it may be improved."""
    run = Optimizer.run

    def improve_only(self: Optimizer, *rest: Any, **named: Any) -> None:
        if self.start is None:
            pytest.fail("optimised again")
        run(self, *rest, **named)

    def forbid() -> None:
        monkeypatch.setattr(Optimizer, "run", improve_only)

    return forbid


@pytest.fixture
def command() -> Command:
    """Run a command line in this process."""
    return run_command


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "src")


@pytest.fixture(scope="session")
def src(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen JPEG photographs, for runs that are killed or fail."""
    return write_photos(tmp_path_factory.mktemp("jpegs") / "src", per_class=5, suffix=".jpg")


@pytest.fixture(scope="session")
def release(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    out = tmp_path_factory.mktemp("release") / "out"
    outcome = run_command("protect", photos, "--out", out, *TINY, "--release-anyway", "--json")
    assert outcome.code == 0, outcome.stderr
    return Release(photos, out, Path(f"{out}.vault"), outcome)


@pytest.fixture(scope="session")
def recorded(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    mine = release.copy(tmp_path_factory.mktemp("recorded"))
    short = ("--device", "cpu", "--epochs", 1, "--json")
    recipe = ("--draws", 60, "--eta", "0,0.003", "--surrogate-recipe", "plain", "--baseline")
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
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PUEPROTECT_DEBUG", "PUEPROTECT_KEY"):
        monkeypatch.delenv(name, raising=False)
