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
