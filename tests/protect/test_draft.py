"""Tests locks, the journal and what a killed `protect` leaves behind."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, Command, release_all, tree, unix

from pueprotect.errors import VaultError
from pueprotect.protect.draft import partial_folder
from pueprotect.release.vault import Vault, locked


@unix
def test_a_second_run_on_one_out_or_vault_is_refused(src: Path, tmp_path: Path, command: Command) -> None:
    arguments = ("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    with partial_folder(tmp_path / "out"):
        done = command(*arguments)
        assert done.code == 2
        assert "another run" in done.stderr
        assert done.stderr.count("\n") == 1
    assert tree(tmp_path) == {}
    (tmp_path / "vault").mkdir()
    with locked(tmp_path / "vault", "--vault"):
        done = command(*arguments, "--vault", tmp_path / "vault")
        assert done.code == 2
        assert "--vault" in done.stderr
    assert not (tmp_path / "out").exists()
    assert command(*arguments, "--vault", tmp_path / "vault").code == 0


@unix
def test_a_lock_does_not_outlive_the_folder_it_was_taken_on(tmp_path: Path) -> None:
    with partial_folder(tmp_path / "a/b/out") as partial:
        (partial / "x").write_bytes(b"x")
        partial.rename(tmp_path / "a/b/out")
        with partial_folder(tmp_path / "a/b/out") as another:
            assert another.is_dir()
    assert {path.name for path in (tmp_path / "a/b").iterdir()} == {"out"}
    with partial_folder(tmp_path / "new/deep/out"):
        pass
    assert not (tmp_path / "new").exists()


def test_a_journal_that_cannot_be_written_is_named(src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pueprotect.protect.draft import Journal

    store = Vault.create(tmp_path / "vault")
    (store.path / "draft").mkdir()
    journal = Journal(store, "key", goes_on=False)
    journal.close()
    (store.path / "draft/written.jsonl").write_bytes(b'{"key":"key"}\n{"row":{},"before":1,"after":1}\n{"row')
    again = Journal(store, "key", goes_on=True)
    assert again.finished == {}
    again.close()
    assert [json.loads(line) for line in again.path.read_bytes().splitlines()] == [{"key": "key"}]
    monkeypatch.setattr(os, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(VaultError, match=r"written\.jsonl.*No space"):
        Journal(store, "key", goes_on=False)


def test_temporary_files_of_a_killed_process_are_swept(src: Path, tmp_path: Path) -> None:
    vault = tmp_path / "out.vault"
    (vault / "draft").mkdir(parents=True)
    for name in (".0123.tmp", "draft/.4567.tmp"):
        (vault / name).write_bytes(np.zeros(9).tobytes())
    release_all(src, tmp_path / "out")
    assert not list(vault.rglob("*.tmp"))
