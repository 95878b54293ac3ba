"""Prints the command reference from the live help; with a file name, writes it there.

    python examples/reference/print.py [examples/reference/cli.md]

Plain text at 80 columns. The first line names the version of Typer, which lays the help out.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ |= {"COLUMNS": "80", "NO_COLOR": "1"}

import typer
from typer.testing import CliRunner

from pueprotect.cli import COMMANDS, app

HEAD = f"""<!-- python examples/reference/print.py examples/reference/cli.md, typer {typer.__version__} -->

# Commands and options

The help of every command, as the program prints it. `examples/reference/print.py` generates this page; do not edit it.
"""


def reference() -> str:
    """The help of the program, then a section for each command."""
    runner = CliRunner()
    parts = [HEAD, "\n".join(f"- [{name}](#pueprotect-{name})" for name in COMMANDS)]
    for words in ((), *((name,) for name in COMMANDS)):
        title = " ".join(("pueprotect", *words))
        shown = runner.invoke(app, [*words, "--help"], prog_name="pueprotect").output.strip()
        parts += ["", f"## {title}", "", "```console", f"$ {title} --help", shown, "```"]
    return "\n".join(line.rstrip() for line in "\n".join(parts).splitlines()) + "\n"


def main() -> None:
    """Print, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, nargs="?", help="the file to write; printed if left out")
    page = parser.parse_args().page
    if page is None:
        print(reference(), end="")
    else:
        page.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
