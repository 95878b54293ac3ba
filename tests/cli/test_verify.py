from pathlib import Path

from helpers import Command, Release, refused


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
