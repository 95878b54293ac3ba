import shutil
from pathlib import Path

import pytest
from helpers import TINY, Command, Release, tree, unix, write_photos

from pueprotect.errors import InputError
from pueprotect.protect import preflight
from pueprotect.protect.preflight import check_places, refuse_released
from pueprotect.release.digests import sha256_of


def test_the_space_is_estimated_before_the_work(
    src: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 15_000))
    done = command("protect", src, "--out", tmp_path / "out", *TINY, "--format", "png")
    assert done.code == 2
    assert "--out" in done.stderr
    assert "15 KiB are free" in done.stderr
    assert tree(tmp_path) == {}
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 2 * 2**30))
    with pytest.raises(InputError, match=r"3\.0 GiB.*2\.0 GiB"):
        preflight.check_space(tmp_path, 4 * 2**30, 2**30)
    preflight.check_space(tmp_path, 4 * 2**30, 2 * 2**30)


def test_a_folder_that_the_user_cannot_write_is_refused_first(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pueprotect.protect.preflight.os.access", lambda path, _mode: Path(path) != tmp_path)
    with pytest.raises(InputError, match="not writable"):
        check_places(photos, tmp_path / "out", tmp_path / "out.vault")


def test_released_files_are_recognised_by_their_digests(release: Release, photos: Path) -> None:
    digests = {"a.png": sha256_of(release.out / "cat/000.png"), "b.png": "0" * 64}
    with pytest.raises(InputError, match=r"a\.png"):
        refuse_released(photos, digests, (release.vault,))
    refuse_released(photos, {"b.png": "0" * 64}, (release.vault, photos))


@unix
def test_places_inside_a_linked_class_folder_are_refused(tmp_path: Path) -> None:
    pool = write_photos(tmp_path / "pool", 2)
    src = tmp_path / "view"
    src.mkdir()
    for name in ("cat", "dog"):
        (src / name).symlink_to(pool / name)
    check_places(src, tmp_path / "out", tmp_path / "out.vault")
    with pytest.raises(InputError, match=r"--out .* are inside each other"):
        check_places(src, pool / "cat" / "out", tmp_path / "out.vault")
    with pytest.raises(InputError, match=r"--vault .* are inside each other"):
        check_places(src, tmp_path / "out", pool / "dog")
