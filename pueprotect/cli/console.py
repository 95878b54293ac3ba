"""The terminal: progress and messages on stderr, data on stdout, errors as one sentence and an exit code."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from pueprotect.errors import InputError, PueprotectError

INTERRUPTED = 130
INTERNAL = 2

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)

P = ParamSpec("P")
R = TypeVar("R")


class Bars:
    """Draws the core's progress on a terminal; on anything else it writes one line for each finished part."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.task: TaskID | None = None
        self.label, self.note, self.began = "", "", 0.0

    def start(self, label: str, total: int) -> None:
        """Begin a bar."""
        self.label, self.note, self.began = label, "", time.perf_counter()
        if self.progress is not None:
            self.task = self.progress.add_task(label, total=total, note="")

    def advance(self, parts: int = 1, note: str = "") -> None:
        """Move the bar."""
        self.note = note or self.note
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, advance=parts, note=self.note)

    def finish(self, note: str = "") -> None:
        """Replace the bar by a line with the time it took and its last reading."""
        seconds = time.perf_counter() - self.began
        if self.progress is not None and self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None
        reading = note or self.note
        if seconds >= 1 or reading:
            err.print(f"[dim]{seconds:6.1f} s[/dim]  {self.label}" + (f": {reading}" if reading else ""))


@contextmanager
def bars() -> Iterator[Bars]:
    """Progress with the time left, drawn only when stderr is a terminal."""
    if not err.is_terminal:
        yield Bars(None)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True) as progress:
        yield Bars(progress)


def reported(command: Callable[P, int | None]) -> Callable[P, None]:
    """Turn a command's result and every expected failure into an exit code of the contract."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs) or 0
        except PueprotectError as error:
            complain(str(error))
            code = error.exit_code
        except KeyboardInterrupt:
            complain("Interrupted; what was finished is kept, and the same command with --resume goes on.")
            code = INTERRUPTED
        except (MemoryError, OSError) as error:
            complain(f"{type(error).__name__}: {error}; free memory or disk space, or check the path, and try again.")
            code = INTERNAL
        raise typer.Exit(code)

    return run


def complain(sentence: str) -> None:
    """One message on stderr."""
    err.print(f"[bold red]error:[/bold red] {escape(sentence)}")


def escape(text: str) -> str:
    """File names may contain what looks like markup."""
    from rich.markup import escape as rich_escape

    return rich_escape(text)


def note(sentence: str) -> None:
    """A plain remark on stderr."""
    err.print(escape(sentence))


def print_json(data: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def table(*headers: str, title: str | None = None) -> Table:
    """A plain table; the first column is text, the others are figures."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", title_style="bold")
    for number, header in enumerate(headers):
        made.add_column(header, justify="left" if number == 0 else "right", overflow="fold")
    return made


def percent(value: float | None) -> str:
    """0.123 -> 12.3 %; a dash where unknown."""
    return "-" if value is None else f"{100 * value:.1f} %"


def fraction(text: str, option: str) -> float:
    """Read a fraction (`8/255`) or a decimal.

    Raises:
        InputError: neither.
    """
    try:
        top, slash, bottom = text.partition("/")
        return float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{option} {text!r} is neither a fraction such as 8/255 nor a decimal such as 0.03.") from error


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Read a comma-separated list of numbers, sorted and without repeats.

    Raises:
        InputError: not numbers.
    """
    try:
        return tuple(sorted({float(part) for part in text.split(",") if part.strip()}))
    except ValueError as error:
        raise InputError(f"{option} {text!r} is not a list of numbers such as 0.05,0.1.") from error


def gate(value: float | None, option: str) -> None:
    """Refuse a gate outside [0, 1].

    Raises:
        InputError: names the option.
    """
    if value is not None and not 0 <= value <= 1:
        raise InputError(f"{option} {value:g} is outside [0, 1].")
