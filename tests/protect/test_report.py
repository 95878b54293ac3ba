import shutil
from pathlib import Path

import pytest
from helpers import Release, protected, write_photos

from pueprotect.protect.methods.base import Mode
from pueprotect.protect.report import recorded_result
from pueprotect.release.vault import Vault


def test_the_recorded_result_is_the_printed_one(release: Release) -> None:
    run = Vault(release.vault).run()
    assert recorded_result(run).as_json() == release.outcome.data
    assert {"settings", "seed", "source", "key"} <= run.keys(), "a run can be repeated"
    assert not {"settings", "source", "key"} & recorded_result(run).as_json().keys(), "these stay in the vault"


def test_a_warning_for_each_thing_that_the_user_should_know(tmp_path: Path) -> None:
    src = write_photos(tmp_path / "src", 6, suffix=".jpg")
    (src / "cat" / "notes.txt").write_text("x")
    found = protected(src, tmp_path / "out", epsilon=8, release_anyway=True)
    assert any("cat/notes.txt" in warning for warning in found.warnings)
    assert found.result.realised is not None
    rounding = [warning for warning in found.warnings if "JPEG rounding" in warning]
    assert len(rounding) == (found.result.realised.linf_max > 8)
    assert all(warning.endswith(".") for warning in found.warnings)


@pytest.mark.parametrize("mode", ["class-wise", "sample-wise"])
def test_copies_within_a_class_are_counted(tmp_path: Path, mode: Mode) -> None:
    src = write_photos(tmp_path / "src", 4)
    for name in ("again.png", "more.png"):
        shutil.copy(src / "cat/000.png", src / "cat" / name)
    shutil.copy(src / "owl/001.png", src / "owl/again.png")
    (copies,) = [text for text in protected(src, tmp_path / "out", mode=mode).warnings if "more than once" in text]
    assert copies.startswith(
        "2 pictures are more than once in a class (3 copies beside the first), such as cat/000.png"
    )
    assert ("Each copy gets different noise" in copies) == (mode == "sample-wise")


def test_copies_in_two_classes_are_counted(tmp_path: Path) -> None:
    src = write_photos(tmp_path / "src", 4)
    shutil.copy(src / "cat/000.png", src / "dog/again.png")
    (copies,) = [text for text in protected(src, tmp_path / "out").warnings if "in two classes" in text]
    assert "1 picture is in two classes, such as cat/000.png and dog/again.png" in copies
