"""Builds the command line from one file for each command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pueprotect.cli.exits import reported
from pueprotect.runtime import VERSION

# In the order of use; each names a module and the function in it.
COMMANDS = ("sample", "protect", "certify", "audit", "check", "report", "verify", "schema", "attacks", "doctor")
STYLE: dict[str, Any] = {
    "rich_markup_mode": None,  # plain help is faster, and the same on a terminal as in a pipe
    "pretty_exceptions_show_locals": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


class _Commands(Mapping[str, Any]):
    """The commands by name, each built on access, because building all of them would slow `check` down."""

    def __getitem__(self, name: str) -> Any:
        function = getattr(import_module(f"{__name__}.{name}"), name)
        alone = typer.Typer(add_completion=False, **STYLE)
        alone.command(name)(reported(function))
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(TyperGroup):
    """The program `pueprotect`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"commands": _Commands()})


app = typer.Typer(name="pueprotect", cls=_Group, no_args_is_help=True, **STYLE)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pueprotect {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Make labelled images unlearnable, certify how much could still be learnt, and audit the result."""
