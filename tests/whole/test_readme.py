"""README says what the code does: command reference, modules, files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MARKED = re.compile(r"<!-- reference: .*?<!-- end of reference -->", re.DOTALL)


def options(text: str) -> dict[str, set[str]]:
    """The options of each command."""
    parts = re.split(r"\$ pueprotect (\S+) --help", text)
    return {name: set(re.findall(r"--[a-z-]+", help)) for name, help in zip(parts[1::2], parts[2::2], strict=True)}


def test_the_command_reference_is_the_live_help() -> None:
    done = subprocess.run([sys.executable, ROOT / "examples/reference.py"], capture_output=True, text=True, check=True)
    (written,) = MARKED.findall(README)
    live = done.stdout.strip()
    if written.splitlines()[0] == live.splitlines()[0]:
        assert written == live, "renew it: python examples/reference.py README.md"
    assert options(written) == options(live), "another Typer may lay the help out in another way, no more"


def test_links_into_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
               for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)}  # fmt: skip
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def test_commands_in_readme_are_commands() -> None:
    from pueprotect.cli import COMMANDS

    assert set(re.findall(r"^\$? ?pueprotect ([a-z]+)", README, re.MULTILINE)) == set(COMMANDS)


def test_the_attack_in_readme_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    from pueprotect.audit.attacks import REGISTRY, base

    monkeypatch.setattr(base, "REGISTRY", dict(REGISTRY))
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {"__name__": "readme"})
    attack = base.find("mosaic")
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    squeezed = attack.squeezed(images)  # type: ignore[attr-defined]
    assert squeezed.shape == images.shape
    assert torch.equal(squeezed[..., 1::2, :], squeezed[..., ::2, :])
