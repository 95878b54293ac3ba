"""Writes to the terminal: messages on stderr, data on stdout.

Rich is imported when something is first drawn, because the import would slow `check` and `verify` down.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pueprotect.errors import InputError
from pueprotect.learning.distributed import launched

if TYPE_CHECKING:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table


class Stream:
    """A Rich console on stdout or stderr, made on first use."""

    def __init__(self, *, stderr: bool) -> None:
        self._stderr = stderr

    @cached_property
    def console(self) -> Console:
        """The Rich console."""
        from rich.console import Console

        class Plain(Console):
            def on_broken_pipe(self) -> None:
                raise  # Rich would end the process with the code of a failed gate

        return Plain(stderr=self._stderr, highlight=False)

    @property
    def is_terminal(self) -> bool:
        """Whether this is a terminal or FORCE_COLOR is set."""
        stream = sys.stderr if self._stderr else sys.stdout
        return bool(stream.isatty() or os.environ.get("FORCE_COLOR")) and self.console.is_terminal

    def print(self, *things: Any, **how: Any) -> None:
        """See `rich.console.Console.print`."""
        self.console.print(*things, **how)


out = Stream(stderr=False)
err = Stream(stderr=True)


def escape(text: str) -> str:
    """`text` with its square brackets protected from being read as markup."""
    from rich.markup import escape as escaped

    return escaped(text)


def printable(text: str) -> str:
    """`text` on one line: control characters and undecodable bytes of file names become escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def say(markup: str) -> None:
    """Write one message in Rich markup on stderr; of several processes only the first writes."""
    if launched()[0] == 0:
        # Outside a terminal a sentence stays on one line, for grep.
        err.print(printable(markup), soft_wrap=not err.is_terminal)


def complain(sentence: str) -> None:
    """Write a message about a failure on stderr."""
    say(f"[bold red]error:[/bold red] {escape(sentence)}")


def note(sentence: str) -> None:
    """Write a plain message on stderr."""
    say(escape(sentence))


def warn(name: str, sentence: str) -> None:
    """Write a named reason for doubt on stderr."""
    say(f"[yellow]{escape(name)}[/yellow]: {escape(sentence)}")


def hint(command: str, folder: Path, *options: str, **places: Path | None) -> None:
    """Write the next command on stderr, quoted for a shell; `places` are options with a path, left out where None."""
    words = ["pueprotect", command, str(folder)]
    words += [word for name, place in places.items() if place is not None for word in (f"--{name}", str(place))]
    say(f"Next: [bold]{escape(shlex.join([*words, *options]))}[/bold]")


def print_json(data: dict[str, Any]) -> None:
    """Write one JSON object on stdout; it gets a schema_version if it has none."""
    from pueprotect.release.vault import SCHEMA_VERSION

    data = data if "schema_version" in data else {"schema_version": SCHEMA_VERSION, **data}
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not Unicode
        text = json.dumps(data, indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")


def table(*headers: str, left: tuple[int, ...] = (0,)) -> Table:
    """A plain table, aligned to the right except for the columns numbered in `left`."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for number, header in enumerate(headers):
        made.add_column(header, justify="left" if number in left else "right", overflow="fold")
    return made


def indented(name: str, text: str, width: int = 8) -> Padding:
    """A short name and a text that wraps in a column of its own."""
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


def write_file(path: Path, text: str, *, private: bool = False) -> None:
    """Write a whole file or nothing; only its owner can read a private one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.touch(0o600 if private else 0o666)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); check the folder.") from error
    finally:
        partial.unlink(missing_ok=True)
