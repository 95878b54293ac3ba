from pathlib import Path

import pytest
from helpers import TINY, Command, bmp_with_alpha, protected, put, refused, tree, write_photos

from pueprotect.errors import InputError
from pueprotect.images.folders import ImageFolder
from pueprotect.protect.left_out import breakdown, notes, refuse_empty


def test_files_are_counted_by_suffix_and_class() -> None:
    paths = ["cat/1.GIF", "cat/in/2.gif", "dog/3.jpg", "dog/readme", "loose.txt"]
    assert breakdown(paths, 1) == "2 .gif, 1 .jpg, 1 without a suffix, 1 .txt; by class: 2 cat, 2 dog"
    assert breakdown(paths, None) == "2 .gif, 1 .jpg, 1 without a suffix, 1 .txt"
    assert breakdown([f"{number}/a.b{number}" for number in range(9)], None).endswith("1 .b4 and 4 more")


def test_all_that_is_left_out_is_named() -> None:
    folder = ImageFolder(
        Path("src"), ("cat",), (), ignored=("cat/a.txt", "b.csv"), unsupported=(("dog/a.gif", "dog/a.gif: no GIF."),),
        hidden=("@eaDir/",), empty=("dog", "cow"),
    )  # fmt: skip
    files, hidden, pictures, classes = notes(folder, ["cow", "dog"], 1)
    assert "2 (1 .txt, 1 .csv; by class: 1 cat), such as cat/a.txt" in files
    assert "1, such as @eaDir/" in hidden
    assert "1 (1 .gif; by class: 1 dog), such as dog/a.gif: dog/a.gif: no GIF." in pictures
    assert "'cow', 'dog'" in classes
    with pytest.raises(InputError, match=r"'dog' holds no pictures \(as in 1 more\).*--skip-unsupported"):
        refuse_empty(folder)
    assert notes(ImageFolder(Path("src"), ("cat",), ()), (), 1) == []


def test_an_empty_class_folder_is_refused_or_named(tmp_path: Path, command: Command) -> None:
    src = write_photos(tmp_path / "src", 4)
    (src / "cow").mkdir()
    done = command("protect", src, "--out", tmp_path / "out", *TINY)
    refused(done, 2, "'cow' holds no pictures", "--skip-unsupported")
    report = protected(src, tmp_path / "out", skip_unsupported=True)
    assert any("Classes left out" in warning and "'cow'" in warning for warning in report.warnings)
    assert report.result.class_counts == {"cat": 4, "dog": 4, "owl": 4}


def test_a_class_of_damaged_pictures_is_refused_or_named(tmp_path: Path, command: Command) -> None:
    src = write_photos(tmp_path / "src", 4)
    for path in (src / "dog").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    put(src / "cat" / "move.gif")
    before = tree(tmp_path)
    done = command("protect", src, "--out", tmp_path / "out", *TINY)
    assert done.code == 2
    assert "5 of 13 images cannot be used" in done.stderr
    assert "All of them: 4 .png, 1 .gif; by class: 4 dog, 1 cat." in done.stderr
    assert tree(tmp_path) == before
    report = protected(src, tmp_path / "out", skip_unsupported=True)
    assert any("Classes left out" in warning and "'dog'" in warning for warning in report.warnings)
    assert report.result.class_counts == {"cat": 4, "owl": 4}


def test_a_picture_that_its_container_cannot_hold_stops_nothing(tmp_path: Path, command: Command) -> None:
    src = write_photos(tmp_path / "src", 4)
    odd = bmp_with_alpha(src / "cat" / "odd.bmp")
    done = command("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    assert done.code == 2
    assert f"{odd}: BMP does not keep its transparency" in done.stderr
    assert not (tmp_path / "out.vault").exists(), "refused before the noise is made"
    report = protected(src, tmp_path / "out", skip_unsupported=True)
    assert [left.path for left in report.result.skipped] == ["cat/odd.bmp"]
    assert not (tmp_path / "out/cat/odd.bmp").exists()
