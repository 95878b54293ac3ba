"""The terminal: progress and messages on stderr, data on stdout, errors as one sentence and an exit code.

Rich is imported when something is first drawn: that takes as long as hashing 3,000 files.
"""

from __future__ import annotations

import gc
import json
import os
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ParamSpec

import typer

from pueprotect.errors import InputError, PueprotectError
from pueprotect.learning.distributed import launched
from pueprotect.runtime import SILENT
from pueprotect.runtime import Progress as ProgressProtocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.padding import Padding
    from rich.progress import Progress, Task, TaskID
    from rich.table import Table

INTERRUPTED = 130
INTERNAL = 2
DEBUG = "PUEPROTECT_DEBUG"

P = ParamSpec("P")


class Stream:
    """A Rich console on stdout or stderr, made when it is first used."""

    def __init__(self, *, stderr: bool) -> None:
        self._stderr = stderr

    @cached_property
    def console(self) -> Console:
        """The console itself."""
        from rich.console import Console

        return Console(stderr=self._stderr, highlight=False)

    @property
    def is_terminal(self) -> bool:
        """Whether somebody reads along, or FORCE_COLOR says so."""
        stream = sys.stderr if self._stderr else sys.stdout
        return bool(stream.isatty() or os.environ.get("FORCE_COLOR")) and self.console.is_terminal

    def print(self, *things: Any, **how: Any) -> None:
        """What `rich.console.Console.print` does."""
        self.console.print(*things, **how)


out = Stream(stderr=False)
err = Stream(stderr=True)


def escape(text: str) -> str:
    """`text` with its square brackets as they are, not as markup."""
    from rich.markup import escape as escaped

    return escaped(text)


class Bars:
    """Draws the core's progress on a terminal; on anything else it writes one line for each finished part."""

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
        """Replace the bar by a line with the time it took and its last reading."""
        seconds = time.perf_counter() - self.began
        if self.progress is not None and self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None
        reading = note or self.note or (speed(self.done / seconds) if seconds >= 1 else "")
        if seconds >= 1 or reading:
            _say(f"[dim]{seconds:6.1f} s[/dim]  {escape(self.label)}" + (f": {escape(reading)}" if reading else ""))


def speed(parts: float) -> str:
    """Parts for each second; nothing for slow parts, such as steps and draws, whose number says little."""
    return f"{parts:.0f}/s" if parts >= 20 else ""


@contextmanager
def bars(speak: bool = True) -> Iterator[ProgressProtocol]:
    """Progress with the time left, drawn only when stderr is a terminal; one process of several speaks."""
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


def reported(command: Callable[P, int]) -> Callable[P, None]:
    """Turn a command's result and every failure into an exit code of the contract.

    A failure is one sentence; with PUEPROTECT_DEBUG=1 its traceback comes too.
    """

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _terminable(), warnings.catch_warnings():
                # About damaged metadata and large pictures; what matters becomes an error of ours.
                warnings.filterwarnings("ignore", module=r"PIL\.")
                code = command(*args, **kwargs)
        except KeyboardInterrupt:
            complain("interrupted; what was finished is kept, and the same command with --resume goes on.")
            code = INTERRUPTED
        except Exception as error:
            if os.environ.get(DEBUG) == "1":
                err.console.print_exception()
            complain(_sentence(error))
            code = error.exit_code if isinstance(error, PueprotectError) else INTERNAL
        raise typer.Exit(code)

    return run


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: everything finished is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for cyclic garbage, not even at the exit: a quarter of the time of a command that makes none."""
    gc.disable()
    try:
        yield
    finally:
        if "torch" not in sys.modules:  # whose bindings complain without the search at the exit
            gc.freeze()
        gc.enable()


def _sentence(error: Exception) -> str:
    if isinstance(error, PueprotectError):
        return str(error)
    what = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"{what}; free memory, or choose a smaller --size or --surrogate."
    if isinstance(error, OSError):
        return f"{what}; check the path, its permissions and the space on the disk."
    return f"unexpected {what}; run it again with {DEBUG}=1 for the traceback and report it."


def printable(text: str) -> str:
    """`text` on one line: control characters and bytes that are no Unicode, which file names may hold, as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _say(markup: str) -> None:
    if launched()[0] != 0:  # of several processes the first one speaks
        return
    # Where nobody reads on a terminal, a sentence stays on one line for grep.
    err.print(printable(markup), soft_wrap=not err.is_terminal)


def complain(sentence: str) -> None:
    """One message about a failure, on stderr."""
    _say(f"[bold red]error:[/bold red] {escape(sentence)}")


def note(sentence: str) -> None:
    """A plain remark on stderr."""
    _say(escape(sentence))


def warn(name: str, sentence: str) -> None:
    """A named reason for doubt, on stderr."""
    _say(f"[yellow]{escape(name)}[/yellow]: {escape(sentence)}")


def hint(command: str, folder: Path, *options: str, **places: Path | None) -> None:
    """What to run next, on stderr, quoted for a shell; `places` are options with a path, left out where None."""
    words = ["pueprotect", command, str(folder)]
    words += [word for name, place in places.items() if place is not None for word in (f"--{name}", str(place))]
    _say(f"Next: [bold]{escape(shlex.join([*words, *options]))}[/bold]")


def print_json(data: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no Unicode
        text = json.dumps(data, indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")


def table(*headers: str, left: tuple[int, ...] = (0,)) -> Table:
    """A plain table: figures to the right, the columns numbered in `left` to the left."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for number, header in enumerate(headers):
        made.add_column(header, justify="left" if number in left else "right", overflow="fold")
    return made


def indented(name: str, text: str, width: int = 8) -> Padding:
    """A short name and a text that wraps beside it."""
    from rich.padding import Padding
    from rich.table import Table

    row = Table(box=None, show_header=False, pad_edge=False, padding=0)
    row.add_column(width=width)
    row.add_column(overflow="fold")
    row.add_row(escape(name), escape(text))
    return Padding(row, (0, 0, 0, 2))


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
        raise InputError(
            f"{option} {text!r} is neither a fraction such as 8/255 nor a decimal such as 0.03."
        ) from error


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Read a comma-separated list of numbers, sorted and without repeats.

    Raises:
        InputError: empty, or not numbers.
    """
    try:
        found = tuple(sorted({float(part) for part in text.split(",") if part.strip()}))
    except ValueError as error:
        raise InputError(f"{option} {text!r} is not a list of numbers such as 0.05,0.1.") from error
    if not found:
        raise InputError(f"{option} is empty; give a list of numbers such as 0.05,0.1.")
    return found


def gate(value: float | None, option: str) -> None:
    """Refuse a gate outside [0, 1].

    Raises:
        InputError: names the option.
    """
    if value is not None and not 0 <= value <= 1:
        raise InputError(f"{option} {value:g} is outside [0, 1].")
