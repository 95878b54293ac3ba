from pathlib import Path

from helpers import Command, refused


def test_sample_writes_images_once(tmp_path: Path, command: Command) -> None:
    done = command("sample", tmp_path / "set", "--per-class", 1, "--size", 32)
    assert done.code == 0
    assert len(list((tmp_path / "set").glob("*/*.jpg"))) == 5
    assert f"Next: pueprotect protect {tmp_path / 'set'} --out {tmp_path / 'set'}-shared" in done.stderr
    refused(command("sample", tmp_path / "set"), 2, str(tmp_path / "set"))
