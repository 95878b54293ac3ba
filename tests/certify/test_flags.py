import re

import typer

from pueprotect.certify.flags import FLAGS
from pueprotect.cli import app


def test_published_names_stay() -> None:
    """They are recorded in certificates, whose readers look them up."""
    assert set(FLAGS) >= {
        "informative-baseline-missing", "weak-baseline", "small-holdout", "test-overlap", "online-unknown",
        "surrogate-unfitted", "bound-at-chance", "unanswered-draws",
    }  # fmt: skip


def test_a_remedy_names_options_that_the_command_has() -> None:
    options = {name for option in typer.main.get_command(app).commands["certify"].params for name in option.opts}  # type: ignore[attr-defined]
    named = {word for flag in FLAGS.values() for word in re.findall(r"--[a-z-]+", flag.remedy)}
    assert "--test" in named
    assert named <= options
