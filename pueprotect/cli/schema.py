"""Defines the command `pueprotect schema`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pueprotect.cli.console import out
from pueprotect.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel


def schema(
    name: Annotated[str | None, typer.Argument(help="policy, or an artefact.", show_default="list the names")] = None,
) -> int:
    """Print the JSON Schema of the policy or of an artefact."""
    from pueprotect.check.policy import Policy
    from pueprotect.check.schemas import RECORDS

    models: dict[str, type[BaseModel]] = {"policy": Policy, **RECORDS}
    if name is None:
        out.print("\n".join(models))
        return 0
    if name not in models:
        raise InputError(f"There is no schema {name!r}; known: {', '.join(models)}.")
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **models[name].model_json_schema()}
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return 0
