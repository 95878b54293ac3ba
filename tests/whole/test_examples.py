"""The examples do what they say: the workflow's commands are executed as they are written."""

import os
import runpy
import shutil
import stat
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import RecordedRelease, Release, protected

import pueprotect
from pueprotect.check.evidence import read_evidence
from pueprotect.check.policyfile import read_policy
from pueprotect.check.verdicts import judge
from pueprotect.images.sample import write_sample

ROOT = Path(pueprotect.__file__).parents[1]
EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDED = ("run.json", "manifest.jsonl", "certificate.json", "certify", "audit")
POLICY = """version: 1
certify: {eta: 0.003, max_learnability: 0.5, min_draws: 1000}
audit: {suite: quick, max_accuracy: 0.5}
images: {min_coverage: 1.0, max_linf: 8}
"""


def shim(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def checkout(evidence: RecordedRelease, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A repository as the workflow describes it, and a PATH on which `pip install` does nothing."""
    place = tmp_path / "repository"
    place.mkdir()
    shutil.copytree(evidence.out, place / "released")
    (place / "released.vault").mkdir()
    for name in NEEDED:
        source = evidence.vault / name
        if source.is_dir():
            shutil.copytree(source, place / "released.vault" / name)
        else:
            shutil.copy(source, place / "released.vault")
    (place / "pueprotect.yaml").write_text(POLICY)
    programs = tmp_path / "bin"
    programs.mkdir()
    shim(programs, "pueprotect", f'exec "{sys.executable}" -m pueprotect "$@"')
    shim(programs, "pip", 'test "$*" = "install pueprotect"')
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return place, os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


def steps() -> list[dict[str, Any]]:
    workflow = yaml.safe_load((EXAMPLES / "gate/github-workflow.yml").read_text())
    found: list[dict[str, Any]] = workflow["jobs"]["check"]["steps"]
    return found


def shell(command: str, place: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command]  # as GitHub runs a step
    return subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True)


def test_the_workflows_commands_pass_on_a_good_release(checkout: tuple[Path, dict[str, str]]) -> None:
    place, environment = checkout
    commands = [step["run"] for step in steps() if "run" in step]
    assert len(commands) == 4
    for command in commands:
        done = shell(command, place, environment)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    uploaded = next(step["with"]["sarif_file"] for step in steps() if "sarif" in step.get("uses", ""))
    assert (place / uploaded).is_file()
    made = {path.name for path in place.glob("pueprotect.*")}
    assert made == {"pueprotect.yaml", "pueprotect.sarif", "pueprotect.xml", "pueprotect.json",
                    "pueprotect.intoto.json", "pueprotect.html"}  # fmt: skip


def test_the_workflow_fails_and_annotates_a_weak_release(checkout: tuple[Path, dict[str, str]]) -> None:
    place, environment = checkout
    (place / "pueprotect.yaml").write_text(POLICY.replace("max_accuracy: 0.5", "max_accuracy: 0.1"))
    command = next(step["run"] for step in steps() if "--format github" in step.get("run", ""))
    done = shell(command, place, environment)
    assert done.returncode == 1
    assert "::error file=pueprotect.yaml,line=3,title=audit.pst.max_accuracy::" in done.stdout
    after = [step for step in steps() if step.get("if")]
    assert len(after) == 3, "the reports are kept when the check has failed"


def test_the_git_hook_stops_a_commit_that_breaks_the_release(checkout: tuple[Path, dict[str, str]]) -> None:
    place, environment = checkout
    environment |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    identity = "git config user.name n && git config user.email e@example.org"
    set_up = f"git init -q . && {identity} && git add -A && git commit -qm 1"
    assert shell(set_up, place, environment).returncode == 0
    shutil.copy(EXAMPLES / "gate/pre-commit", place / ".git/hooks/pre-commit")
    other = shell("echo x > notes.txt && git add -A && git commit -qm 2", place, environment)
    assert other.returncode == 0, "commits that leave the release alone are none of its business"
    broken = shell("echo x >> released/cat/000.png && git add -A && git commit -qm 3", place, environment)
    assert broken.returncode != 0
    assert "not as released" in broken.stdout + broken.stderr


def test_jpeg_photographs_pass_what_the_example_policy_asks_of_images(tmp_path: Path) -> None:
    write_sample(tmp_path / "photos", per_class=5, size=48)
    protected(tmp_path / "photos", tmp_path / "released", size=48)
    assert len(list((tmp_path / "released").rglob("*.jpg"))) == 25
    policy = read_policy(EXAMPLES / "gate/pueprotect.yaml").policy
    verdicts = judge(policy, read_evidence(tmp_path / "released"), date(2026, 1, 1))
    images = {each.rule: each.passed for each in verdicts if each.rule.startswith("images.")}
    assert images == {"images.min_coverage": True, "images.max_linf": True, "images.min_ssim": True}


def test_the_example_policy_is_a_policy() -> None:
    policy = read_policy(EXAMPLES / "gate/pueprotect.yaml").policy
    assert policy.certify is not None
    assert policy.audit is not None
    assert policy.images is not None


def test_the_benchmark_prints_medians_and_their_ratio() -> None:
    words = [sys.executable, str(EXAMPLES / "benchmarks/check.py"), "--files", "20", "--repeats", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "check / sha256sum" in done.stdout.splitlines()[-1]


def script(name: str, *words: object) -> str:
    """What an example prints; it must succeed."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_quick_start_goes_from_a_sample_to_an_audit(tmp_path: Path) -> None:
    said = script("quickstart.py", "--tiny", tmp_path)
    assert "certified learnability at eta 0: " in said
    assert "worst of the audit: standard reaches" in said
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "shared", "shared.vault"}


def test_an_attack_of_ones_own_is_measured_like_any_other(release: Release, tmp_path: Path) -> None:
    said = script("own_attack.py", release.copy(tmp_path).out, "--epochs", 1)
    assert {line.split()[0] for line in said.splitlines()} == {"standard", "mosaic"}


def test_the_example_attack_shows_four_pixels_as_one() -> None:
    found = runpy.run_path(str(EXAMPLES / "own_attack.py"))["Mosaic"]()
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    coarse = found.filter(None)(images)
    assert coarse.shape == images.shape
    assert torch.equal(coarse[..., 1::2, :], coarse[..., ::2, :])
    assert torch.equal(coarse[..., 1::2], coarse[..., ::2])
    assert torch.equal(coarse[..., ::2, ::2], images[..., ::2, ::2])


def test_a_method_of_ones_own_protects(photos: Path, tmp_path: Path) -> None:
    assert "released: True" in script("own_method.py", photos, tmp_path / "striped", "--tiny")
    assert len(list((tmp_path / "striped").rglob("*.png"))) == len(list(photos.rglob("*.png")))
