import pytest

from pueprotect.cli import progress as module
from pueprotect.cli.progress import Bars, bars, speed
from pueprotect.runtime import SILENT


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which a test can change."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_finished_work_writes_one_line_with_its_last_reading(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Bars(None)
    shown.start("train [plain]", 3)
    shown.advance(note="40 %")
    shown.advance(2)
    clock[0] += 2.5
    assert capsys.readouterr().err == "", "nothing is written before the end"
    shown.finish()
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == "   2.5 s  train [plain]: 40 %\n"
    shown.start("draw", 3)
    shown.finish()
    assert capsys.readouterr().err == "", "the reading of earlier work is forgotten"
    shown.start("draw", 3)
    shown.advance(note="10 %")
    shown.finish("median 20 %")
    assert capsys.readouterr().err == "   0.0 s  draw: median 20 %\n", "the last reading replaces earlier ones"


def test_short_work_without_a_reading_writes_no_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for seconds, line in ((0.9, ""), (2.0, "   2.0 s  read: 50/s\n")):
        shown = Bars(None)
        shown.start("read", 100)
        shown.advance(100)
        clock[0] += seconds
        shown.finish()
        assert capsys.readouterr().err == line


@pytest.mark.parametrize(("parts", "shown"), [(19.9, ""), (20, "20/s"), (1234.4, "1234/s")])
def test_slow_work_shows_no_speed(parts: float, shown: str) -> None:
    assert speed(parts) == shown


def test_only_the_first_process_shows_progress_and_bars_need_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with bars(speak=False) as silent:
        assert silent is SILENT
    with bars() as lines:
        assert isinstance(lines, Bars)
        assert lines.progress is None
    monkeypatch.setattr(type(module.err), "is_terminal", True)
    with bars() as drawn:
        assert isinstance(drawn, Bars)
        assert drawn.progress is not None
        drawn.start("train", 4)
        drawn.advance(3, note="50 %")
        (task,) = drawn.progress.tasks
        assert (task.description, task.total, task.completed, task.fields["note"]) == ("train", 4, 3, "50 %")
        drawn.finish()
        assert drawn.progress.tasks == []
