from pathlib import Path

from helpers import Command, Release, put_files, refused

from pueprotect.release.vault import Vault


def test_verify_lists_every_difference(release: Release, tmp_path: Path, command: Command) -> None:
    mine = release.copy(tmp_path)
    whole = command("verify", mine.out, "--json")
    assert (whole.code, whole.data["ok"], whole.data["files"]) == (0, True, 60)
    (mine.out / "cat/000.png").unlink()
    (mine.out / "dog/new.png").write_bytes(b"new")
    with (mine.out / "owl/001.png").open("ab") as file:
        file.write(b"x")
    found = command("verify", mine.out, "--json")
    assert found.code == 3
    assert (found.data["missing"], found.data["extra"], found.data["changed"]) == (
        ["cat/000.png"], ["dog/new.png"], ["owl/001.png"],
    )  # fmt: skip
    shown = command("verify", mine.out)
    assert shown.code == 3
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["missing", "cat/000.png"], ["extra", "dog/new.png"], ["changed", "owl/001.png"],
    ]  # fmt: skip


def test_verify_without_vault(photos: Path, command: Command) -> None:
    refused(command("verify", photos), 2, f"{photos}.vault")


def test_one_file_is_one_file(tmp_path: Path, command: Command) -> None:
    vault = Vault.create(tmp_path / "out.vault")
    vault.write_manifest(put_files(tmp_path / "out", {"ant/0.png": b"x"}))
    vault.seal({})
    done = command("verify", tmp_path / "out")
    assert done.code == 0
    assert done.stderr == "1 file recorded; all are as released.\n"
