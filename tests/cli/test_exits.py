import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import AUDIT, CERTIFY, TINY, Command, RecordedRelease, Release, refused, tree, unix, write_policy

import pueprotect
from pueprotect.protect import pipeline
from pueprotect.protect.methods import error_minimising


@pytest.mark.parametrize("name", ["certify", "audit"])
def test_changed_files_are_stale_and_listed(release: Release, tmp_path: Path, command: Command, name: str) -> None:
    mine = release.copy(tmp_path)
    (mine.out / "cat/000.png").unlink()
    (mine.out / "dog/001.png").write_bytes(b"changed")
    before = tree(tmp_path)
    refused(command(name, mine.out, "--device", "cpu"), 3, "1 missing (cat/000.png)", "1 changed (dog/001.png)")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["protect", "certify", "audit", "attacks", "doctor"])
def test_a_torchvision_that_does_not_load_is_reported(
    name: str, release: Release, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    arguments = {"protect": [release.src, "--out", tmp_path / "out"], "certify": [release.out], "audit": [release.out]}
    refused(command(name, *arguments.get(name, [])), 2, "torchvision does not load", "pip install")
    assert tree(tmp_path) == {}


@pytest.fixture
def protection_raises(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Make every later `protect` end with this error."""

    def from_now_on(error: Exception) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(pipeline, "protect_folder", fail)

    return from_now_on


def test_unexpected_failures_are_one_line(
    photos: Path,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    protection_raises: Callable[[Exception], None],
) -> None:
    protection_raises(RuntimeError("boom\nwith details"))
    refused(
        command("protect", photos, "--out", tmp_path / "out"), 2, "RuntimeError: boom with details", "PUEPROTECT_DEBUG"
    )
    monkeypatch.setenv("PUEPROTECT_DEBUG", "1")
    debugged = command("protect", photos, "--out", tmp_path / "out")
    assert debugged.code == 2
    assert "Traceback" in debugged.stderr


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_exhausted_memory_and_disks_are_one_line(
    error: Exception,
    photos: Path,
    tmp_path: Path,
    command: Command,
    protection_raises: Callable[[Exception], None],
) -> None:
    protection_raises(error)
    refused(command("protect", photos, "--out", tmp_path / "out"), 2, type(error).__name__)


@pytest.mark.parametrize("name", ["certify", "audit"])
def test_interrupted_evidence_keeps_what_is_finished(
    name: str, release: Release, tmp_path: Path, command: Command, interrupted_during: Callable[[str], None]
) -> None:
    mine = release.copy(tmp_path)
    if name == "certify":
        arguments: tuple[object, ...] = ("certify", mine.out, *CERTIFY[:-2], "--surrogate-recipe", "worst")
        interrupted_during("train the weight-noise surrogate")
    else:
        arguments = (
            "audit",
            mine.out,
            "--attack",
            "standard",
            "--attack",
            "weight-noise",
            "--epochs",
            4,
            "--device",
            "cpu",
        )
        interrupted_during("attack weight-noise (resnet8)")
    assert command(*arguments).code == 130
    kept = {"certify": "certify/plain.safetensors", "audit": "audit/standard-resnet8.json"}[name]
    stamp = (mine.vault / kept).stat().st_mtime_ns
    assert not (mine.vault / "certificate.json").exists()
    assert command(*arguments, "--resume").code == 0
    assert (mine.vault / kept).stat().st_mtime_ns == stamp


@unix
def test_sigterm_is_an_interruption(
    src: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimise = error_minimising.Optimizer.run

    def terminated(*arguments: Any, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        optimise(*arguments, **named)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(error_minimising.Optimizer, "run", terminated)
    done = command("protect", src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    assert done.code == 130
    assert "--resume" in done.stderr
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "out").exists()


@unix
@pytest.mark.parametrize("name", ["check", "check --format json", "attacks", "attacks --json", "certify", "audit"])
def test_a_closed_pipe_is_no_failed_gate(name: str, evidence: RecordedRelease, tmp_path: Path) -> None:
    command, *options = name.split()
    arguments: dict[str, list[object]] = {
        "check": [evidence.out, "--policy", write_policy(tmp_path, "version: 1\nimages: {min_coverage: 0.5}\n")],
        "certify": [evidence.out, *CERTIFY, "--resume"],
        "audit": [evidence.out, *AUDIT, "--attack", "standard", "--resume"],
    }
    words = [sys.executable, "-m", "pueprotect", command, *map(str, arguments.get(command, [])), *options]
    env = os.environ | {"PYTHONPATH": str(Path(pueprotect.__file__).parents[1])}
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, env=env, check=False)
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert "error" not in done.stderr
    assert "Exception ignored" not in done.stderr
