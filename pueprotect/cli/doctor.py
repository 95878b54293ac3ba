"""Defines the command `pueprotect doctor`."""

from __future__ import annotations

import os

from pueprotect.cli.arguments import AsJson
from pueprotect.cli.console import escape, out, print_json, table
from pueprotect.errors import PlatformError


def doctor(as_json: AsJson = False) -> int:
    """Show versions, device, memory and what auto chooses.

    It also checks that torchvision's operators load.

    Exit codes: 0 ready; 2 something is missing, and the message says how to fix it.
    """
    from pueprotect.learning.device import choose_device, environment

    try:
        device = choose_device("auto")
    except PlatformError as error:
        if as_json:
            print_json({"ready": False, "mend": str(error)})
        raise
    from pueprotect.learning.models import choose_surrogate

    surrogate, why = choose_surrogate("auto", device)
    facts: dict[str, str] = environment(device) | {
        "torchvision_operators": "load",
        "cpus": str(os.cpu_count()),
        "auto_device": device.reason,
        "auto_surrogate": f"{surrogate} ({why})",
        "auto_size": "32 pixels for images up to 48 pixels, else 64",
    }
    if hasattr(os, "sysconf"):
        facts["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    if as_json:
        print_json({"ready": True, **facts})
        return 0
    rows = table("what", "value", left=(0, 1))
    for name, value in facts.items():
        rows.add_row(name, escape(value))
    out.print(rows)
    return 0
