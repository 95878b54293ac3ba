"""The command line: one file for each group of commands. Nothing heavy is imported until a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from pueprotect import __version__
from pueprotect.cli import audit, certify, check, protect, tools

app = typer.Typer(
    name="pueprotect",
    help="Make labelled images unlearnable, certify how much could still be learnt, and audit the result.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pueprotect {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Make labelled images unlearnable, certify how much could still be learnt, and audit the result."""


for module in (protect, certify, audit, check, tools):
    module.add_to(app)
