from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    CLASSES,
    TINY,
    Command,
    Release,
    manifest,
    photo,
    protected,
    put,
    release_all,
    sentence,
    tree,
    write_photos,
)
from PIL import Image

from pueprotect.images.folders import scan
from pueprotect.images.holdout import stratified_holdout
from pueprotect.learning.data import Labelled
from pueprotect.protect import noise, pipeline
from pueprotect.protect.methods import error_minimising, self_check
from pueprotect.protect.methods.base import Mode


def stop_before_writing(src: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Leave the draft of a run that made its noise and found the disk full."""

    def publish(*_: object) -> None:
        raise OSError(28, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "publish", publish)
        with pytest.raises(OSError, match="No space"):
            release_all(src, out, **settings)


def test_other_settings_of_writing_start_anew(src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_before_writing(src, tmp_path / "out", monkeypatch)
    release_all(src, tmp_path / "out", resume=True, file_format="png")
    assert {path.suffix for path in (tmp_path / "out").rglob("*.*")} == {".png"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.vault"}


def test_a_finished_release_is_resumed_without_work(
    src: Path, tmp_path: Path, command: Command, forbid_optimising: Callable[[], None]
) -> None:
    arguments = ("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway", "--json")
    first, before = command(*arguments), tree(tmp_path)
    forbid_optimising()
    again = command(*arguments, "--resume")
    assert again.code == 0, again.stderr
    assert again.data == first.data
    assert tree(tmp_path) == before
    other = command(*arguments, "--resume", "--seed", 5)
    assert other.code == 2
    assert "--overwrite" in other.stderr
    (tmp_path / "out/cat/000.jpg").unlink()
    assert command(*arguments, "--resume").code == 2


def test_an_earlier_run_is_discarded_without_resume(src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_before_writing(src, tmp_path / "out", monkeypatch, seed=3)
    release_all(src, tmp_path / "out")
    release_all(src, tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("change", ["vanished", "changed"])
def test_a_source_that_changes_during_a_run_ends_with_one_sentence_and_resumes(
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    forbid_optimising: Callable[[], None],
    change: str,
) -> None:
    src = write_photos(tmp_path / "src", per_class=4)
    victim, content = src / "dog/002.png", (src / "dog/002.png").read_bytes()
    arguments = ("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    optimise = error_minimising.Optimizer.run

    def meanwhile(*rest: Any, **named: Any) -> None:
        optimise(*rest, **named)
        victim.unlink(missing_ok=True)
        if change == "changed":
            put(victim, photo(seed=5))

    with monkeypatch.context() as patch:
        patch.setattr(error_minimising.Optimizer, "run", meanwhile)
        done = command(*arguments)
    assert done.code == 2
    assert "dog/002.png" in sentence(done)
    assert not (tmp_path / "out").exists()
    victim.write_bytes(content)
    forbid_optimising()
    assert command(*arguments, "--resume").code == 0


def test_files_that_are_not_images_are_named_and_left_out(tmp_path: Path) -> None:
    src = write_photos(tmp_path / "src", per_class=4)
    (src / "cat/notes.txt").write_text("private")
    report = protected(src, tmp_path / "out")
    assert any("cat/notes.txt" in warning for warning in report.warnings)
    assert not list((tmp_path / "out").rglob("*.txt"))


@pytest.mark.parametrize("mode", ["class-wise", "sample-wise"])
def test_the_holdout_is_never_seen_in_training(
    mode: Mode, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Labelled] = []
    checked: list[Labelled] = []
    made, check = error_minimising.Optimizer.__post_init__, self_check.learnt

    def spy(self: error_minimising.Optimizer) -> None:
        seen.append(self.data)
        made(self)

    def frames(data: Labelled) -> torch.Tensor:
        return data.frames(torch.arange(len(data)))

    def spy_check(shown: Labelled, holdout: Labelled, *rest: Any, **named: Any) -> Any:
        if seen:
            gap = (frames(shown).short() - frames(seen[0]).short()).abs()
            assert 0 < int(gap.max()) <= 16, "the training images and their noise, reduced from 20 x 24 pixels"
        else:
            assert pictures(shown) == originals("train"), "the look at the originals"
        checked.append(holdout)
        return check(shown, holdout, *rest, **named)

    monkeypatch.setattr(error_minimising.Optimizer, "__post_init__", spy)
    monkeypatch.setattr(noise, "learnt", spy_check)

    def pictures(data: Labelled) -> set[bytes]:
        return {image.numpy().tobytes() for image in frames(data)}

    def originals(split: str) -> set[bytes]:
        folder = scan(photos)
        held = stratified_holdout(folder.labels, 0.2, 0, folder.classes)
        wanted = split == "holdout"
        chosen = [folder.path_of(entry) for entry, out in zip(folder.entries, held, strict=True) if out == wanted]
        files = [Image.open(path).convert("RGB") for path in chosen]
        resized = [image.resize((16, 16), Image.Resampling.LANCZOS, reducing_gap=3.0) for image in files]
        return {np.asarray(image).tobytes() for image in resized}

    protected(photos, tmp_path / "out", mode=mode, rounds=2)
    assert pictures(seen[0]) == originals("train")
    assert len(checked) >= 2
    assert all(pictures(data) == originals("holdout") for data in checked)
    assert len(originals("train")) == 48
    assert len(originals("holdout")) == 12


def test_the_holdout_is_stratified_and_its_files_are_protected_too(release: Release) -> None:
    rows = manifest(release.vault)
    for name in CLASSES:
        splits = [row["split"] for row in rows if row["class"] == name]
        assert (splits.count("train"), splits.count("holdout")) == (16, 4)
    assert all(row["released_sha256"] != row["source_sha256"] for row in rows)


def test_a_draft_made_for_other_labels_is_not_resumed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two classes that can be learnt: pictures of one colour and the others.
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    for name, alone in (("first", "cat"), ("second", "dog")):
        rows = [f"{path},{'alone' if path.startswith(alone) else 'others'}" for path in paths]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label", *rows]))
    monkeypatch.setattr(self_check, "SELF_CHECK_MARGIN", -0.45)
    weak = protected(photos, tmp_path / "out", labels=tmp_path / "first.csv", release_anyway=False)
    assert not weak.released
    protected(photos, tmp_path / "out", labels=tmp_path / "second.csv", resume=True)
    protected(photos, tmp_path / "fresh", labels=tmp_path / "second.csv")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")
