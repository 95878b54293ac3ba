"""Prints the command reference of README.md from the live help; with a file name, puts it there between its markers.

    python examples/reference.py [README.md]

Plain text at 80 columns. The first marker names the version of Typer, which lays the help out.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

os.environ |= {"COLUMNS": "80", "NO_COLOR": "1"}

import typer
from typer.testing import CliRunner

from pueprotect.cli import COMMANDS, app

BEGIN = f"<!-- reference: python examples/reference.py README.md, typer {typer.__version__} -->"
END = "<!-- end of reference -->"


def reference() -> str:
    """The help of the tool and, folded, of each command."""
    runner = CliRunner()
    parts = ["```console", "$ pueprotect --help", runner.invoke(app, ["--help"], prog_name="pueprotect").output, "```"]
    for name in COMMANDS:
        shown = runner.invoke(app, [name, "--help"], prog_name="pueprotect").output
        parts += ["", f"<details><summary><code>pueprotect {name}</code></summary>", "", "```console"]
        parts += [f"$ pueprotect {name} --help", shown, "```", "", "</details>"]
    text = "\n".join(line.rstrip() for line in "\n".join(parts).splitlines())
    return f"{BEGIN}\n\n{text}\n\n{END}".replace("\n\n```\n", "\n```\n")


def main() -> None:
    """Print, or replace."""
    if len(sys.argv) < 2:
        print(reference())
        return
    readme = Path(sys.argv[1])
    text = readme.read_text(encoding="utf-8")
    found = re.sub(r"<!-- reference: .*?<!-- end of reference -->", lambda _: reference(), text, flags=re.DOTALL)
    readme.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
