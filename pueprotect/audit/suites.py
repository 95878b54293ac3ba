"""Lists the fixed sets of attacks, apart from the attacks themselves so that a policy can name them without torch.

A suite never changes, because what a figure of `standard-v1` means must not depend on the year. Another attack, another
parameter of one, or another order of seeds makes the next version.
"""

from __future__ import annotations

from collections.abc import Iterable

from pueprotect.errors import InputError, did_you_mean

SUITES: dict[str, tuple[str, ...]] = {
    "quick": ("standard", "colour", "jpeg-10", "class-mean", "weight-noise", "pst"),
    "standard-v1": (
        "standard", "early-stopping", "cutout", "mixup", "cutmix", "randaugment", "colour", "blur", "grayscale",
        "jpeg-10", "jpeg-30", "bit-depth", "ueraser", "at-4", "at-8", "class-mean", "projection", "weight-noise",
        "weight-noise-short", "shallow-noise", "pst", "pst-colour", "recovery",
    ),
}  # fmt: skip
# The second version adds attackers who inspect the released images before they choose a filter.
SUITES["standard-v2"] = (
    *SUITES["standard-v1"], "blur-2", "half-size", "blue-drop", "jpeg-colour", "notch", "wide-notch", "mid-notch",
    "equalise", "denoise", "known-code", "whole-class-mean",
)  # fmt: skip
# Attacks on the weakness of one method; suites leave them out on releases of another.
ONLY_ON = {"known-code": "hardened"}
# Suites whose figures should not depend on one network: they are also run with these.
_OTHERS = {"cpu": ("resnet8", "cnn"), "cuda": ("cnn", "vit_tiny")}
TRANSFER = {"standard-v1": _OTHERS, "standard-v2": _OTHERS}


def applicable(names: Iterable[str], method: str | None) -> tuple[str, ...]:
    """The attacks that apply to a release of this method; None is a folder of another tool."""
    return tuple(name for name in names if ONLY_ON.get(name, method) == method)


def suite(name: str) -> tuple[str, ...]:
    """The attacks of a suite.

    Raises:
        InputError: unknown name; the message offers the nearest ones.
    """
    if name not in SUITES:
        raise InputError(f"Unknown suite {name!r}; {did_you_mean(name, SUITES)} All: {', '.join(SUITES)}.")
    return SUITES[name]
