import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    SMALL,
    TINY,
    Command,
    Release,
    manifest,
    protected,
    release_all,
    sentence,
    tree,
    write_photos,
)
from PIL import Image

from pueprotect.errors import ImageError, InputError, UnusableImages
from pueprotect.images import encode
from pueprotect.images.decode import decode_rgb
from pueprotect.images.overlay import lay
from pueprotect.learning.device import Machine
from pueprotect.protect.draft import hidden_folder
from pueprotect.protect.pipeline import protect_folder
from pueprotect.protect.writer import SSIM_SAMPLE
from pueprotect.release.vault import Vault
from pueprotect.runtime import Silent


def test_finished_files_are_not_written_again(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forbid_optimising: Callable[[], None]
) -> None:
    write, done = encode.Encoder.write, list[str]()

    def until_tenth(self: encode.Encoder, source: Path, *rest: Any, **named: Any) -> Any:
        if len(done) == 10:
            raise ImageError("disk trouble")
        done.append(source.name)
        return write(self, source, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(encode.Encoder, "write", until_tenth)
        with pytest.raises(ImageError, match="trouble"):
            release_all(src, tmp_path / "out", workers=1)
    partial = hidden_folder(tmp_path / "out", "partial")
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    assert len(files) == 10
    files[0].write_bytes(b"damaged since")
    (partial / "stranger.jpg").write_bytes(b"never released")
    again = list[str]()

    def count(self: encode.Encoder, source: Path, *rest: Any, **named: Any) -> Any:
        again.append(source.name)
        return write(self, source, *rest, **named)

    monkeypatch.setattr(encode.Encoder, "write", count)
    forbid_optimising()
    release_all(src, tmp_path / "out", resume=True)
    assert len(again) % 15 == 15 - 9, "then all again each time the noise is improved"
    monkeypatch.undo()
    release_all(src, tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_fails_ends_with_one_sentence_and_resumes(
    src: Path,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    forbid_optimising: Callable[[], None],
    failure: int,
) -> None:
    arguments = ("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(target).name == "003.jpg":
            raise OSError(failure, os.strerror(failure))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(encode.os, "replace", fail)
        done = command(*arguments)
    assert done.code == 2
    assert sentence(done).count(os.strerror(failure)) == 1
    assert "003.jpg" in sentence(done)
    assert "--resume" in sentence(done)
    forbid_optimising()
    assert command(*arguments, "--resume").code == 0
    assert len(tree(tmp_path / "out")) == 18


def test_the_estimated_space_is_near_the_written_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src = write_photos(tmp_path / "src", per_class=5)
    asked = list[float]()
    monkeypatch.setattr("pueprotect.protect.job.check_space", lambda _, needed, there: asked.append(needed))
    release_all(src, tmp_path / "out")
    written = sum(len(content) for content in tree(tmp_path / "out").values() if content)
    assert written * 0.7 < asked[0] < written * 1.5


def test_every_file_keeps_to_the_budget_as_read_back(release: Release) -> None:
    largest = 0
    for row in manifest(release.vault):
        before = decode_rgb(release.src / row["source_path"]).astype(int)
        gap = np.abs(decode_rgb(release.out / row["path"]).astype(int) - before).max()
        assert 0 < gap <= 8, "protected, within 8 levels"
        assert gap == row["linf"]
        largest = max(largest, gap)
    assert release.outcome.data["realised"]["linf_max"] == largest


@pytest.mark.parametrize("epsilon", [1, 4])
def test_a_smaller_budget_is_kept(epsilon: int, photos: Path, tmp_path: Path) -> None:
    report = protected(photos, tmp_path / "out", epsilon=epsilon)
    assert report.result.realised.linf_max <= epsilon
    assert report.result.epsilon == epsilon / 255


def test_jpeg_keeps_to_the_budget_and_what_is_left_of_the_noise_is_reported(tmp_path: Path) -> None:
    src = write_photos(tmp_path / "src", per_class=4, suffix=".jpg")
    kept = protected(src, tmp_path / "kept")
    assert kept.result.realised is not None
    assert kept.result.realised.linf_max <= 8
    measured = kept.result.jpeg
    assert measured is not None
    assert (measured["written"], measured["outside"], measured["beyond"]) == (12, 0, 0)
    assert measured["largest"] == kept.result.realised.linf_max
    assert 0.6 < measured["kept_min"] <= measured["kept"] < 0.95
    (warning,) = (each for each in kept.warnings if each.startswith("JPEG keeps"))
    assert f"{measured['kept']:.0%} of the noise within 8 levels" in warning
    assert "--max-linf 10" in warning
    roomy = protected(src, tmp_path / "roomy", max_linf=10)
    assert roomy.result.jpeg is not None
    assert 8 < roomy.result.jpeg["largest"] <= 10
    assert roomy.result.jpeg["kept"] > 0.95
    assert roomy.warnings == ()
    png = protected(src, tmp_path / "png", file_format="png")
    assert png.result.realised is not None
    assert png.result.realised.linf_max <= 8
    assert png.result.jpeg is None
    assert png.warnings == ()
    assert {path.suffix for path in (tmp_path / "png").rglob("*.*")} == {".png"}


def test_jpeg_rounding_beyond_the_budget_is_reported(tmp_path: Path) -> None:
    src = write_photos(tmp_path / "src", per_class=4, suffix=".jpg")
    made = protected(src, tmp_path / "out", epsilon=1)
    measured = made.result.jpeg
    assert measured is not None
    assert measured["largest"] > 1, "else this test needs a smaller budget"
    (warning,) = (each for each in made.warnings if each.startswith("JPEG rounding"))
    assert f"from 1 to {measured['largest']} levels" in warning
    assert f"{measured['outside']:.1%} of the values in {measured['beyond']} of 12 JPEG files" in warning
    assert "--format png" in warning


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """PNG files, and in each class one JPEG, which cannot keep to 1 level."""
    src = write_photos(tmp_path / "src", per_class=6)
    for folder in src.iterdir():
        with Image.open(folder / "000.png") as image:
            image.save(folder / "late.jpg", quality=95)
    return src


def test_files_beyond_max_linf_are_named_together_and_nothing_is_released(
    mixed: Path, tmp_path: Path, command: Command, forbid_optimising: Callable[[], None]
) -> None:
    words = ("protect", mixed, "--out", tmp_path / "out", *TINY, "--release-anyway", "--epsilon", "1/255")
    done = command(*words, "--max-linf", 1)
    assert done.code == 2
    assert "3 of 21 images cannot be used" in sentence(done)
    for name in ("cat", "dog", "owl"):
        assert f"{name}/late.jpg would change by" in sentence(done)
    assert "--skip-unsupported" in sentence(done)
    assert not (tmp_path / "out").exists()
    assert not Vault(tmp_path / "out.vault").is_sealed
    assert not [path for path in tree(hidden_folder(tmp_path / "out", "partial")) if path.endswith(".jpg")]
    forbid_optimising()
    skipping = (*words, "--max-linf", 1, "--resume", "--skip-unsupported", "--json")
    done = command(*skipping)
    assert done.code == 0, done.stderr
    assert (done.data["images"], done.data["realised"]["linf_max"]) == (18, 1)
    assert [each["path"] for each in done.data["skipped"]] == [f"{name}/late.jpg" for name in ("cat", "dog", "owl")]
    released = [path for path in tree(tmp_path / "out") if "." in path]
    assert len(released) == 18 == len(manifest(tmp_path / "out.vault"))
    assert {Path(path).suffix for path in released} == {".png"}
    again = command(*skipping)
    assert (again.code, again.data) == (0, done.data), "finished, so nothing is written again"


def test_noise_of_images_that_are_left_out_is_left_out(mixed: Path, tmp_path: Path) -> None:
    protected(mixed, tmp_path / "out", mode="sample-wise", epsilon=1, max_linf=1, skip_unsupported=True)
    store = Vault(tmp_path / "out.vault")
    delta, rows = store.read_tensors("delta.safetensors")["delta"], store.read_manifest()
    assert len(delta) == len(rows) == 18
    for noise, row in zip(delta, rows, strict=True):
        before = decode_rgb(mixed / row.source_path)
        assert np.array_equal(decode_rgb(tmp_path / "out" / row.path), lay(before, noise, 1))


def test_a_class_without_images_within_max_linf_is_refused(tmp_path: Path) -> None:
    src = write_photos(tmp_path / "src", per_class=4)
    for path in (src / "owl").iterdir():
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    with pytest.raises(UnusableImages, match="would lack training or held-out images"):
        protected(src, tmp_path / "out", epsilon=1, max_linf=1, skip_unsupported=True)
    assert not (tmp_path / "out").exists()


def test_other_limits_write_the_files_again(tmp_path: Path) -> None:
    src = write_photos(tmp_path / "src", per_class=4, suffix=".jpg")
    release_all(src, tmp_path / "out", max_linf=10)
    with pytest.raises(InputError, match="--overwrite"):
        release_all(src, tmp_path / "out", resume=True)


def test_sample_wise_noise_belongs_to_its_own_image(photos: Path, tmp_path: Path) -> None:
    protected(photos, tmp_path / "out", mode="sample-wise", rounds=3, file_format="png")
    store = Vault(tmp_path / "out.vault")
    delta = store.read_tensors("delta.safetensors")["delta"]
    assert delta.shape == (60, 16, 16, 3)
    for number, row in enumerate(store.read_manifest()):
        before = decode_rgb(photos / row.source_path).astype(int)
        noise = decode_rgb(tmp_path / "out" / row.path).astype(int) - before
        assert np.array_equal(noise, lay(before.astype(np.uint8), delta[number], 8).astype(int) - before)


def test_similarity_is_measured_on_a_sample(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pueprotect.protect.writer.SSIM_SAMPLE", 7)
    protected(photos, tmp_path / "out")
    rows = manifest(tmp_path / "out.vault")
    assert sum(row["ssim"] is not None for row in rows) == 7 < SSIM_SAMPLE
    assert all(row["psnr"] is not None for row in rows)


def test_threads_that_the_pool_lost_write_nothing_after_an_interruption(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[ThreadPoolExecutor] = []

    class Forgetful(ThreadPoolExecutor):
        def __exit__(self, *_: object) -> None:
            pools.append(self)
            self.shutdown(wait=False)

    class Impatient(Silent):
        label = ""

        def start(self, label: str, total: int) -> None:
            self.label = label

        def advance(self, parts: int = 1, note: str = "") -> None:
            if self.label == "write":
                raise KeyboardInterrupt

    monkeypatch.setattr("pueprotect.protect.writer.ThreadPoolExecutor", Forgetful)
    with pytest.raises(KeyboardInterrupt):
        protect_folder(photos, tmp_path / "out", options=SMALL, machine=Machine(progress=Impatient()))
    before = tree(tmp_path / ".out.pueprotect-partial")
    for pool in pools:
        pool.shutdown(wait=True)
    assert tree(tmp_path / ".out.pueprotect-partial") == before
    assert len(before) < 60
