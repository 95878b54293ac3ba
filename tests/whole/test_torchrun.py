"""Under torchrun two processes give the certificate of one, bit for bit, and a killed run goes on to it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import Release, run_command, write_photos

import pueprotect

SETTINGS = ["--device", "cpu", "--epochs", "2", "--eta", "0,0.003", "--json"]
ROOT = str(Path(pueprotect.__file__).parent.parent)


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return kept | {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", "COLUMNS": "80"} | more


def pueprotect_in(ranks: int, *words: str) -> Any:
    runner = [sys.executable]
    if ranks > 1:
        runner += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    line = [*runner, "-m", "pueprotect", *words]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def certify(out: Path, *words: str, ranks: int = 1) -> Any:
    return pueprotect_in(ranks, "certify", str(out), *SETTINGS, *words) | {"seconds": 0}


@pytest.fixture(scope="module")
def single(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Any:
    mine = release.copy(tmp_path_factory.mktemp("single"))
    return certify(mine.out, "--draws", "64", "--surrogate-recipe", "weight-noise")


def test_two_processes_give_the_certificate_of_one(release: Release, tmp_path: Path, single: Any) -> None:
    mine = release.copy(tmp_path)
    together = certify(mine.out, "--draws", "64", "--surrogate-recipe", "weight-noise", ranks=2)
    assert together == single
    assert json.loads((mine.vault / "certificate.json").read_text()) | {"seconds": 0} == single


def test_a_killed_run_goes_on_to_the_same_certificate(release: Release, tmp_path: Path, single: Any) -> None:
    mine = release.copy(tmp_path)
    line = [sys.executable, "-m", "pueprotect", "certify", str(mine.out), *SETTINGS, "--draws", "1000000"]
    line += ["--surrogate-recipe", "weight-noise"]
    log = mine.vault / "certify" / "weight-noise.draws"
    with subprocess.Popen(line, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") > 20):
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert certify(mine.out, "--draws", "64", "--surrogate-recipe", "weight-noise", "--resume") == single


def test_torchrun_protects_a_folder_and_sends_idle_ranks_home(tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos", 5)
    words = ["protect", str(source), "--out", str(tmp_path / "out"), "--size", "16", "--rounds", "2", "--preset",
             "quick", "--device", "cpu", "--release-anyway", "--mode", "sample-wise", "--json"]  # fmt: skip
    made = pueprotect_in(2, *words)
    assert made["realised"]["linf_max"] <= 8
    assert run_command("verify", tmp_path / "out").code == 0
    assert pueprotect_in(2, *words, "--resume")["data_digest"] == made["data_digest"], "finished: nothing left to share"
