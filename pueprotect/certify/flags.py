"""Reasons to doubt a certificate, each with its cause and its remedy. No torch."""

from __future__ import annotations

from pueprotect.audit.flags import Flag

CERTIFICATE_FLAGS = {
    "informative-baseline-missing": Flag(
        "A small bound may only mean that sigma destroys any network.", "Add --baseline."
    ),
    "weak-baseline": Flag(
        "The clean baseline itself is near chance, so the bound proves little.", "Use --sigma auto, or more --epochs."
    ),
    "small-holdout": Flag(
        "Fewer than 500 clean images or 20 per class: the bound is coarse.", "Give more with --test."
    ),
    "online-unknown": Flag(
        "pueprotect did not make this release, so the surrogate of its optimisation is unknown.",
        "None is needed: the other recipes stand in.",
    ),
    "surrogate-unfitted": Flag(
        "The surrogate does not fit what it was trained on, so it shows little.", "Use more --epochs."
    ),
    "bound-at-chance": Flag(
        "On this many images the bound cannot be told from chance.", "Give more clean images with --test."
    ),
    "unanswered-draws": Flag(
        "Some draws gave logits that are not finite; they count as wrong.", "Use a smaller --sigma."
    ),
}
