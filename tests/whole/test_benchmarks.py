import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "benchmarks" / "audit.py"


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
