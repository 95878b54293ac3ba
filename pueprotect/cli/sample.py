"""Defines the command `pueprotect sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pueprotect.cli.arguments import Seed
from pueprotect.cli.console import escape, hint, out


def sample(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    per_class: Annotated[int, typer.Option(help="Images of each class.")] = 150,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 32,
    seed: Seed = 0,
) -> int:
    """Write a small labelled photo-like data set to try everything on."""
    from pueprotect.images.sample import write_sample

    count = write_sample(folder, per_class=per_class, size=size, seed=seed)
    out.print(f"{count} images under {escape(str(folder))}", soft_wrap=True)
    hint("protect", folder, out=Path(f"{folder}-shared"))
    return 0
