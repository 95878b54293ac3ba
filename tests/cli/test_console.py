import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import CERTIFY, GOOD, Command, RecordedRelease, Release, write_policy

import pueprotect


@pytest.mark.parametrize(("variables", "coloured"), [({"FORCE_COLOR": "1"}, True), ({}, False),
                                                     ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)])  # fmt: skip
def test_colours_are_off_when_piped_or_unwanted(
    variables: dict[str, str], coloured: bool, evidence: RecordedRelease, tmp_path: Path
) -> None:
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    environment = (
        clean | {"PYTHONPATH": str(Path(pueprotect.__file__).parents[1]), "TERM": "xterm-256color"} | variables
    )
    words = ["-m", "pueprotect", "check", str(evidence.out), "--policy", str(write_policy(tmp_path, GOOD))]
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("\x1b[32m" in done.stdout) is coloured


def test_the_next_command_can_be_pasted(release: Release, tmp_path: Path, command: Command) -> None:
    mine = release.copy(tmp_path)
    vault = mine.vault.rename(tmp_path / "my vault")
    done = command("certify", mine.out, *CERTIFY[:-4], "--surrogate-recipe", "plain", "--eta", "0", "--vault", vault)
    assert done.code == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f"Next: pueprotect audit {mine.out} --vault '{vault}'"
    heads = [line.split() for line in done.stdout.splitlines() if line.startswith("eta ")]
    assert heads == [["eta", "protected", "population", "chance"]]
