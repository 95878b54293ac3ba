"""Defines the arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Released = Annotated[Path, typer.Argument(metavar="OUT", help="The released folder.")]
VaultPath = Annotated[Path | None, typer.Option(help="Its vault.", show_default="OUT.vault")]
TestImages = Annotated[Path | None, typer.Option(help="Clean labelled images to measure on.", show_default="holdout")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda[:i].")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write the result as JSON to stdout.")]
