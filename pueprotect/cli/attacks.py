"""Defines the command `pueprotect attacks`."""

from __future__ import annotations

from pueprotect.cli.arguments import AsJson
from pueprotect.cli.console import indented, out, print_json


def attacks(as_json: AsJson = False) -> int:
    """List the attacks: what each does and needs, and its source."""
    from pueprotect.learning.device import check_torch

    check_torch()
    from pueprotect.audit.attacks import REGISTRY

    if as_json:
        fields = ("name", "about", "needs", "source", "cost")
        print_json({"attacks": [{name: getattr(attack, name) for name in fields} for attack in REGISTRY.values()]})
        return 0
    for attack in REGISTRY.values():
        out.print(f"[bold]{attack.name}[/bold]")
        out.print(indented("does", attack.about))
        out.print(indented("needs", f"{attack.needs}; costs about {attack.cost:g} x plain training"))
        out.print(indented("source", attack.source))
    return 0
