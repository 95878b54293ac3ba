import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import GOOD, Command, RecordedRelease, write_policy

import pueprotect

HEAVY = """
import sys
from typer.testing import CliRunner
from pueprotect.cli import app

code = CliRunner().invoke(app, sys.argv[1:]).exit_code
heavy = {"torch", "torchvision", "scipy"} & set(sys.modules)
print(code, sorted(heavy))
"""


@pytest.mark.parametrize("name", ["check", "verify", "report", "schema", "--help"])
def test_commands_for_ci_import_no_torch(name: str, evidence: RecordedRelease, tmp_path: Path) -> None:
    words = {
        "check": ["check", str(evidence.out), "--policy", str(write_policy(tmp_path, GOOD))],
        "verify": ["verify", str(evidence.out)],
        "report": ["report", str(evidence.out), "--images", "1"],
        "schema": ["schema", "policy"],
        "--help": ["--help"],
    }[name]
    environment = os.environ | {"PYTHONPATH": str(Path(pueprotect.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", HEAVY, *words], env=environment, capture_output=True, text=True)
    assert done.stdout == "0 []\n", done.stderr


@pytest.mark.parametrize(
    ("words", "position", "offered"),
    [("pueprotect ce", 1, ["certify"]), ("pueprotect certify --st", 2, ["--stress"]),
     ("pueprotect check --format ", 3, ["text", "json", "junit", "sarif", "github"])],
)  # fmt: skip
def test_the_shell_completes_commands_options_and_choices(words: str, position: int, offered: list[str]) -> None:
    environment = {"_PUEPROTECT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    program = "from pueprotect.cli import app; app(prog_name='pueprotect')"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == offered


def test_version(command: Command) -> None:
    from pueprotect import __version__

    assert command("--version").stdout == f"pueprotect {__version__}\n"
