import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pueprotect

ROOT = Path(pueprotect.__file__).parents[1]
SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "audit.py"


def test_costs_are_printed_relative_to_plain_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--images 64 --test-images 16 --size 16 --epochs 1 --attack cutout --device cpu --threads 1"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words.split()])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    row = capsys.readouterr().out.splitlines()[-1].strip("|").split("|")
    assert row[0].strip() == "cutout"
    assert all(float(cell) > 0 for cell in row[1:])


def test_the_rate_of_textures_stands_beside_its_floor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = SCRIPT.with_name("texture.py")
    monkeypatch.setattr(sys, "argv", [str(script), *["--images", "300", "--size", "16"]])
    runpy.run_path(str(script), run_name="__main__")
    rates = [float(line.split("|")[2]) for line in capsys.readouterr().out.splitlines()[-3:]]
    assert len(rates) == 3
    assert min(rates) > 0


def lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: str, *words: object
) -> list[str]:
    """What a benchmark prints."""
    path = SCRIPT.with_name(script)
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
    runpy.run_path(str(path), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_draws_stand_beside_the_bare_pass_and_a_research_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = lines(monkeypatch, capsys, "certify.py", "--images", 64, "--size", 16, "--draws", 1)
    rows = [line.split("|")[1].strip() for line in printed if line.startswith("| ")]
    assert {"bare forward pass", "research loop"} <= set(rows)


def test_training_stands_beside_bare_steps_and_a_research_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = lines(monkeypatch, capsys, "train.py", "--images", 64, "--size", 16, "--rounds", 1)
    rows = [line.split("|")[1].strip() for line in printed[-3:]]
    assert rows == ["bare steps", "engine, with random crop and flip", "research loop"]


def apart(script: str, *words: object) -> list[str]:
    """What a benchmark prints in a process of its own: it changes the package, or measures the process."""
    command = [sys.executable, str(SCRIPT.with_name(script)), *map(str, words)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_photographs_are_made_and_timed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    apart("io.py", "--make", data, "--count", 2)
    assert len(list(data.glob("*/*.jpg"))) == 2
    printed = apart("io.py", data, "--count", 2, "--rounds", 1, "--workers", 1)
    assert printed[-2].startswith("throughput")


def test_the_memory_of_protecting_a_folder_is_measured(photos: Path, tmp_path: Path) -> None:
    data = shutil.copytree(photos, tmp_path / "data")
    (line,) = (line for line in apart("memory.py", "photos", data, "--count", 24, "--size", 16) if "peak" in line)
    assert line.startswith("24 photographs at 16 px: peak")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_check_is_timed_next_to_sha256sum() -> None:
    printed = apart("check.py", "--files", 20, "--repeats", 1)
    assert sum(line.startswith("  check / sha256sum") for line in printed) == 2


def test_the_memory_of_a_cache_is_measured() -> None:
    (line,) = (line for line in apart("memory.py", "cache", "--images", 256, "--size", 16) if "peak" in line)
    assert line.startswith("256 images at 16 px: peak")
