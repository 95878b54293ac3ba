"""What tests of several rooms share: tiny photographs, releases, training sets, and two protections by other hands.

The two are written from their papers' descriptions.
"""

import hashlib
import json
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image, ImageCms
from typer.testing import CliRunner

from pueprotect.audit.attacks import Target
from pueprotect.audit.suites import SUITES
from pueprotect.certify import bounds
from pueprotect.cli import app
from pueprotect.images.decode import decode
from pueprotect.images.encode import Encoder
from pueprotect.learning.data import ImageSet
from pueprotect.learning.training import Schedule
from pueprotect.protect.methods.base import NoiseSettings
from pueprotect.protect.methods.base import find as find_method
from pueprotect.protect.methods.error_minimising import Optimizer
from pueprotect.protect.methods.laying import Laying, Originals
from pueprotect.protect.options import Options
from pueprotect.protect.pipeline import protect_folder
from pueprotect.protect.report import Report
from pueprotect.release.records import ManifestRow

CLASSES = ("cat", "dog", "owl")
PER_CLASS = 20
KEY, OTHER_KEY = "5ca1ab1e" * 4, "0ddba11c" * 4  # fixed, so that releases repeat
UNKEYED = ("--preset", "quick", "--rounds", "1", "--size", "16", "--device", "cpu", "--workers", "2")
TINY = (*UNKEYED, "--key", KEY)

CERTIFY = ("--device", "cpu", "--draws", 60, "--epochs", 1, "--eta", "0,0.003", "--surrogate-recipe", "plain")
AUDIT = ("--device", "cpu", "--epochs", 1)

GOOD = """version: 1
certify: {q: 0.9, eta: 0.003, max_learnability: 0.5, min_draws: 1000, min_baseline: 0.7}
audit: {suite: quick, max_accuracy: 0.5, max_recovered: 0.5, min_epochs: 10, attacks: {pst: {max_accuracy: 0.46}}}
images: {min_coverage: 1.0, max_linf: 8, min_ssim: 0.1}
"""

PAGE_POLICY = "version: 1\naudit: {suite: quick, max_accuracy: 0.42}\ncertify: {max_learnability: 0.5}\n"
SMALL = Options(preset="quick", rounds=1, size=16, release_anyway=True, workers=2, key=KEY)

SUFFIX = {"PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "JPEG": ".jpg"}
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}

hexes = st.binary(min_size=32, max_size=32).map(bytes.hex)

unix = pytest.mark.skipif(sys.platform == "win32", reason="signals and locks of Unix")

# --- commands and releases ------------------------------------------------------------------------------------------


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
    return _photo(height, width, seed).copy()


@cache
def _photo(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
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

    def record(self, name: str, **facts: Any) -> None:
        """Set facts about a recorded attack; those of its key are set there."""

        def change(data: Any) -> None:
            for key, value in facts.items():
                (data["key"] if key in data["key"] else data)[key] = value

        self.edit(f"audit/{name}-resnet8.json", change)

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
            self.record(name, chance=0.3, test_images=1000, epochs=15.0)
            self.edit(
                f"audit/{name}-resnet8.json",
                lambda data: data["result"]["details"].update(train_accuracy=0.95, epoch_accuracy=[0.9]),
            )
        self.edit("certificate.json", good_certificate)
        return self


def good_certificate(data: Any) -> None:
    """Change a small certificate into one that a strict policy passes."""
    data.update(surrogate_recipe="worst", epochs=60.0, looks=1, holdout_images=1000, chance=0.3, flags=[])
    for figures, bound in ((data, 0.42), (data["baseline"], 0.8)):
        figures["draws"] = 1000
        for point in figures["curve"]:
            tail = bounds.shifted_tail(data["q"], point["eta"], data["sigma"])
            rank = bounds.order_statistic_rank(1000, tail, data["alpha"])
            point.update(rank=rank, certified_learnability=bound, population=bound)


def files_of(root: Path) -> dict[str, bytes]:
    """The files below `root` and their bytes."""
    return {name: content for name, content in tree(root).items() if content is not None}


def refused(outcome: Any, code: int, *parts: str) -> None:
    """One sentence on stderr that names what matters, nothing on stdout."""
    assert outcome.code == code, outcome.stderr
    assert outcome.stdout == ""
    assert outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("error: ")
    for part in parts:
        assert part in outcome.stderr


def sentence(done: Outcome) -> str:
    """The message of a failure, which is the last line and the only one of its kind."""
    found = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert found == done.stderr.splitlines()[-1:]
    return found[0]


def write_policy(place: Path, text: str) -> Path:
    """A policy file in the folder `place`."""
    path = place / "policy.yaml"
    path.write_text(text)
    return path


def options(**wanted: Any) -> Options:
    """`SMALL` with other values."""
    return Options(**({name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__} | wanted))


def protected(src: Path, out: Path, **wanted: Any) -> Report:
    """Protect a folder with the smallest useful effort, in this process."""
    return protect_folder(src, out, options=options(**wanted))


def release_all(src: Path, out: Path, **wanted: Any) -> None:
    """Protect a folder; the self-check must not stop the release."""
    assert protected(src, out, **wanted).released


def manifest(vault: Path) -> list[dict[str, Any]]:
    """The lines of a manifest as they are in the file."""
    return [json.loads(line) for line in (vault / "manifest.jsonl").read_text().splitlines()]


def row(path, content=b""):
    """The line of a manifest for a released file of this content."""
    digest = hashlib.sha256(content).hexdigest()
    return ManifestRow(
        path=path, class_name="ant", split="train", source_path=path, source_sha256="0" * 64, released_sha256=digest
    )


def put_files(root, files):
    """Write files, given as names and contents; their lines of a manifest."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return [row(name, content) for name, content in files.items()]


# --- pictures -------------------------------------------------------------------------------------------------------


def two_classes(root, per_class=3):
    """A folder of PNG pictures in the classes ant and bee."""
    for name in ("ant", "bee"):
        for index in range(per_class):
            put(root / name / f"{index}.png", photo(seed=index))
    return root


def noise_levels(side=16, epsilon=8, seed=1):
    """Random noise, (S, S, 3) int8 in levels of 0..255."""
    return np.random.default_rng(seed).integers(-epsilon, epsilon + 1, (side, side, 3)).astype(np.int8)


def icc_profile(space="sRGB"):
    """A colour profile as files hold it."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


def bmp_with_alpha(path):
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 4, 4, 1, 32, 3, 64, 0, 0, 0, 0) + masks + bytes(52)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 14 + 108 + 64, 0, 0, 122) + header + bytes([9, 8, 7, 99]) * 16)
    return path


def cmyk_profile():
    """The smallest CMYK output profile that Little CMS accepts: one lookup table from CMYK to XYZ-like Lab."""
    grid = 2
    table = b""
    for corner in range(grid**4):
        c, m, y, k = ((corner >> shift) & 1 for shift in (3, 2, 1, 0))
        lightness = 0 if k else 255 - 60 * (c + m + y)
        table += bytes((max(0, lightness), 128 + 40 * (m - c), 128 + 40 * (y - c)))
    linear = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, grid, 0))
    lut += b"".join(struct.pack(">i", value) for value in (65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    lut += linear * 4 + table + linear * 3
    lut += bytes(-len(lut) % 4)
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"cmyk\0" + bytes(78) + bytes(3)
    parts, offset, tags = [(b"A2B0", lut), (b"wtpt", white), (b"desc", text)], 128 + 4 + 12 * 3, b""
    for name, data in parts:
        tags += name + struct.pack(">II", offset, len(data))
        offset += len(data)
    head = struct.pack(">I4sI4s4s4s", offset, b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp"
    head += bytes(24) + struct.pack(">III", 0, 0, 0) + struct.pack(">iii", 63190, 65536, 54061)
    head += bytes(128 - len(head))
    return head + struct.pack(">I", 3) + tags + b"".join(data for _, data in parts)


def colours(mode, dtype=np.uint8, seed=0):
    """A picture with all its channels, (H, W, C), partly transparent where it can be."""
    rgb = photo(seed=seed)
    alpha = rgb[..., :1].copy()
    alpha[:6] = 0
    parts = [rgb if mode.startswith("RGB") else rgb[..., :1], *([alpha] if mode.endswith("A") else [])]
    pixels = np.concatenate(parts, axis=2)
    if dtype == np.uint16:
        low = np.random.default_rng(seed).integers(0, 256, pixels.shape)
        return (pixels.astype(np.uint16) << 8) | low.astype(np.uint16)
    return pixels


def round_trip(source, tmp_path, **options):
    """A picture, what a reader finds in its protected file, and what was measured."""
    target = tmp_path / "out" / source.name
    realised = Encoder(epsilon=8, **options).write(source, target, noise_levels())
    return decode(source), decode(target), realised


# --- training sets --------------------------------------------------------------------------------------------------


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image_set(images: torch.Tensor, labels: torch.Tensor, classes: int) -> ImageSet:
    """Float or integer images in 0..255 on the 8-bit grid, channels last in memory."""
    pixels = images.round().clamp(0, 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)
    return ImageSet(pixels, labels, classes)


def stripes(count: int = 64, size: int = 16, seed: int = 0) -> ImageSet:
    """Upright and lying stripes; each image has a phase of its own, so the classes differ in no pixel's mean."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    phase = torch.randint(0, 4, (count, 1), generator=stream)
    wave = ((torch.arange(size) + phase) // 2 % 2 * 160.0)[:, None, :].expand(-1, size, -1)
    grain = 60 * torch.rand((count, size, size), generator=stream)
    shown = torch.where(labels.view(-1, 1, 1) == 0, wave, wave.mT) + grain
    return image_set(shown[:, None].expand(-1, 3, -1, -1), labels, 2)


def shades(count: int = 64, size: int = 16, seed: int = 0) -> ImageSet:
    """Dark and bright images with grain: what no filter of textures takes away."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    grain = 60 * torch.rand((count, 3, size, size), generator=stream)
    return image_set(30 + 130.0 * labels.view(-1, 1, 1, 1) + grain, labels, 2)


def target(
    arch: str = "resnet8", epochs: float = 5, drawn: Callable[..., ImageSet] = stripes, *, known: bool = False
) -> Target:
    return Target(
        drawn(), arch, Schedule(epochs=epochs, batch_size=16), 0, clean_share=drawn(16, seed=2), etas=(0.1, 0.5),
        originals=drawn() if known else None,
    )  # fmt: skip


def noise(count: int = 64, size: int = 16, classes: int = 2, seed: int = 0) -> ImageSet:
    """Images that hold no class at all."""
    stream = torch.Generator().manual_seed(seed)
    images = 60 + 130 * torch.rand((count, 3, size, size), generator=stream)
    return image_set(images, torch.arange(count) % classes, classes)


def protected_by(method: str, data: ImageSet, key: str = KEY) -> ImageSet:
    """Images with the noise that a method in closed form lays on them at 8/255."""
    pixels, labels = data.images.permute(0, 2, 3, 1).numpy(), data.labels.numpy()
    held = np.zeros(len(data), dtype=np.bool_)
    made: Any = find_method(method)
    noise = made.noise(pixels, labels, held, NoiseSettings(method=method, epsilon=made.budget or 8, key=key))
    return image_set(data.images.float() + torch.from_numpy(noise).permute(0, 3, 1, 2), data.labels, data.classes)


def with_noise(data: ImageSet, optimizer: Optimizer) -> ImageSet:
    """The images of an optimiser with the noise that it has made for them."""
    levels = optimizer.levels()[optimizer.pattern].permute(0, 3, 1, 2)
    return image_set(data.images.float() + levels, data.labels, data.classes)


def originals(data: ImageSet, every: int = 4, grey: Any = None, sides: Any = None) -> Originals:
    """Images of their own size and with colours, if not said otherwise; every fourth is held out."""
    count = len(data)
    grey = np.zeros(count, dtype=np.bool_) if grey is None else grey
    sides = np.full((count, 2), data.size) if sides is None else sides
    held = torch.arange(count) % every == 0
    return Originals(data, held, Laying.of(grey, sides, data.size, "cpu"))


def lsp(data: ImageSet) -> ImageSet:
    """Linearly separable perturbations."""
    return protected_by("lsp", data)


def one_pixel_shortcut(data: ImageSet) -> ImageSet:
    """One-pixel shortcuts."""
    return protected_by("ops", data)


def random_images(count: int = 48, size: int = 16, classes: int = 3, seed: int = 0) -> ImageSet:
    """Random images, as decoded files are: a view on (N, H, W, 3)."""
    stream = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, size, size, 3), generator=stream, dtype=torch.uint8)
    return ImageSet(images.permute(0, 3, 1, 2), torch.arange(count) % classes, classes)


def noise_images(count: int = 50, size: int = 16) -> ImageSet:
    """Random images in three classes."""
    stream = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (count, 3, size, size), generator=stream, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % 3, 3)


def random_batch(count: int = 60, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and labels of four classes."""
    stream = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, size, size), generator=stream, dtype=torch.uint8)
    return images, torch.randint(0, 4, (count,), generator=stream)


def grained(count: int = 60, size: int = 32, *, marked: tuple[tuple[int, int], ...] = ()) -> ImageSet:
    """Images with the same texture statistics in all classes, but for a cosine at one DCT index for each class."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    images = 128 + 20 * torch.randn((count, 1, size, size), generator=stream)
    axis = (2 * torch.arange(size) + 1) * torch.pi / 16
    for label, (row, column) in enumerate(marked):
        wave = torch.cos(row * axis)[:, None] * torch.cos(column * axis)[None, :]
        images[labels == label] += 10 * wave
    return image_set(images.expand(-1, 3, -1, -1), labels, 2)
