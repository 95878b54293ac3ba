"""Shows progress: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pueprotect.cli.console import err, escape, say
from pueprotect.runtime import SILENT
from pueprotect.runtime import Progress as ProgressProtocol

if TYPE_CHECKING:
    from rich.progress import Progress, Task, TaskID

    from pueprotect.learning.device import Machine


class Bars:
    """Draws progress on a terminal; elsewhere it writes one line for each finished piece of work."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.task: TaskID | None = None
        self.label, self.note, self.began, self.done = "", "", 0.0, 0

    def start(self, label: str, total: int) -> None:
        """Begin a bar."""
        self.label, self.note, self.began, self.done = label, "", time.perf_counter(), 0
        if self.progress is not None:
            self.task = self.progress.add_task(escape(label), total=total, note="")

    def advance(self, parts: int = 1, note: str = "") -> None:
        """Move the bar."""
        self.note = note or self.note
        self.done += parts
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, advance=parts, note=escape(self.note))

    def finish(self, note: str = "") -> None:
        """Replace the bar by a line with its time and its last reading."""
        seconds = time.perf_counter() - self.began
        if self.progress is not None and self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None
        reading = note or self.note or (speed(self.done / seconds) if seconds >= 1 else "")
        if seconds >= 1 or reading:
            say(f"[dim]{seconds:6.1f} s[/dim]  {escape(self.label)}" + (f": {escape(reading)}" if reading else ""))


def speed(parts: float) -> str:
    """Parts per second; empty below 20, as for steps and draws, where the number says little."""
    return f"{parts:.0f}/s" if parts >= 20 else ""


@contextmanager
def bars(speak: bool = True) -> Iterator[ProgressProtocol]:
    """Progress with the time left, drawn only if stderr is a terminal; silent unless `speak`."""
    if not speak:
        yield SILENT
        return
    if not err.is_terminal:
        yield Bars(None)
        return
    with _columns() as progress:
        yield Bars(progress)


def _columns() -> Progress:
    """One line for each running part: bar, count, speed, time left and the last reading."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(speed(task.speed or 0.0))

    return Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=10), MofNCompleteColumn(), Speed(),
        TimeRemainingColumn(), TextColumn("left  [dim]{task.fields[note]}"), console=err.console, transient=True,
    )  # fmt: skip


@contextmanager
def at_work(device: str) -> Iterator[Machine]:
    """The machine of a command: its device, the processes that torchrun started, and progress shown by the first.

    Raises:
        PlatformError: the device is not there.
    """
    from pueprotect.learning.device import Machine, choose_device
    from pueprotect.learning.distributed import joined, own_device

    chosen = choose_device(own_device(device))
    with joined(chosen.name) as group, bars(group.leads) as progress:
        yield Machine(chosen, group, progress)
