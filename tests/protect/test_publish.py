import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import CLASSES, SMALL, Release, manifest, protected

from pueprotect.protect.pipeline import protect_folder
from pueprotect.release.digests import sha256_of
from pueprotect.release.vault import Vault


def test_the_vault_is_private(release: Release) -> None:
    assert stat.S_IMODE(release.vault.stat().st_mode) == 0o700
    files = [path for path in release.vault.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_an_existing_empty_vault_folder_becomes_private(photos: Path, tmp_path: Path) -> None:
    vault = tmp_path / "secret"
    vault.mkdir(mode=0o755)
    protect_folder(photos, tmp_path / "out", vault=vault, options=SMALL)
    assert stat.S_IMODE(vault.stat().st_mode) == 0o700


def test_the_vault_holds_the_documented_files_and_keys(release: Release) -> None:
    assert {path.name for path in release.vault.iterdir()} == {
        "run.json", "manifest.jsonl", "delta.safetensors", "surrogate.safetensors",
    }  # fmt: skip
    run = json.loads((release.vault / "run.json").read_text())
    assert set(run) >= {
        "schema_version",
        "settings",
        "seed",
        "environment",
        "classes",
        "split",
        "timings",
        "manifest_sha256",
    }
    assert run["classes"] == list(CLASSES)
    assert run["manifest_sha256"] == sha256_of(release.vault / "manifest.jsonl")
    assert set(run["settings"]) >= {"method", "mode", "epsilon", "sigma", "rounds", "preset", "holdout", "file_format"}
    assert run["settings"]["rounds"] == 1
    assert run["settings"]["surrogate"] == "resnet8", "what auto chose"
    assert set(run["environment"]) >= {"torch", "torchvision", "python", "device"}
    assert run["data_digest"] == release.outcome.data["data_digest"]

    rows = manifest(release.vault)
    assert len(rows) == 60
    for row in rows:
        assert set(row) == {
            "path", "class", "split", "source_path", "source_sha256", "released_sha256", "linf", "psnr", "ssim",
        }  # fmt: skip
        assert row["source_sha256"] == sha256_of(release.src / row["source_path"])
        assert row["released_sha256"] == sha256_of(release.out / row["path"])
        assert row["psnr"] > 25
        assert 0.5 < row["ssim"] < 1

    delta = Vault(release.vault).read_tensors("delta.safetensors")["delta"]
    assert (delta.shape, delta.dtype) == ((3, 16, 16, 3), np.int8)
    assert np.abs(delta).max() <= 8


def test_a_failed_rename_leaves_no_sealed_vault(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forbid_optimising: Callable[[], None]
) -> None:
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith("-partial"):
            raise OSError(16, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="busy"):
        protected(photos, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out.vault", ".out.pueprotect-partial"}
    assert not Vault(tmp_path / "out.vault").is_sealed
    monkeypatch.undo()
    forbid_optimising()
    assert protected(photos, tmp_path / "out", resume=True).released


def test_a_linked_out_is_released_where_it_points(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    protected(photos, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len(list((tmp_path / "real").rglob("*.png"))) == 60


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be flushed there")
def test_files_and_folders_are_on_the_disk_before_the_vault_is_sealed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []
    fsync, seal, rename = os.fsync, Vault.seal, Path.rename

    def flush(handle: int) -> None:
        done.append(("flush", os.fstat(handle).st_ino))
        fsync(handle)

    def sealing(self: Vault, record: dict[str, Any]) -> None:
        done.append(("seal", 0))
        seal(self, record)

    def renaming(self: Path, target: Path) -> Path:
        done.append(("rename", 0))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Vault, "seal", sealing)
    monkeypatch.setattr(Path, "rename", renaming)
    out = tmp_path / "out"
    protected(photos, out)
    order = [what for what, _ in done if what != "flush"]
    assert order == ["seal", "rename"]
    sealed, renamed = done.index(("seal", 0)), done.index(("rename", 0))
    before = {inode for _, inode in done[:sealed]}
    wanted = [out, *out.rglob("*"), tmp_path / "out.vault", tmp_path / "out.vault/manifest.jsonl"]
    assert [path for path in wanted if path.stat().st_ino not in before] == []
    assert ("flush", (tmp_path / "out.vault").stat().st_ino) in done[sealed:renamed], "the name run.json"
    assert ("flush", tmp_path.stat().st_ino) in done[renamed:], "the name of the finished folder"


def test_a_file_that_cannot_be_flushed_is_not_released(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def fail(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".png"):
            raise OSError(5, "Input/output error")
        fsync(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("no list of open files")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        protected(photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not Vault(tmp_path / "out.vault").is_sealed
