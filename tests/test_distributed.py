"""Two gloo processes give the certificate of one, bit for bit, and a killed run goes on to it."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Release

import pueprotect
from pueprotect.distributed import Group, joined, launched, own_device
from pueprotect.errors import PlatformError

SETTINGS = ["--device", "cpu", "--epochs", "2", "--eta", "0,0.003", "--json"]
ROOT = str(Path(pueprotect.__file__).parent.parent)


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return kept | {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", "COLUMNS": "80"} | more


def certify(out: Path, *words: str, ranks: int = 1) -> Any:
    runner = [sys.executable]
    if ranks > 1:
        runner += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    line = [*runner, "-m", "pueprotect", "certify", str(out), *SETTINGS, *words]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"seconds": 0}


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


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched() == (0, 1)
    assert own_device("auto") == "auto"
    with joined("cpu") as group:
        assert group == Group(0, 1)
        assert group.leads


def _member(rank: int, port: int, answers: Any) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with joined("cpu") as group:
        answers.put((group.rank, group.gather({rank: "x"}), group.from_leader(f"from {rank}"), group.leads))


def test_processes_exchange_what_they_hold() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    members = [context.Process(target=_member, args=(rank, port, answers)) for rank in range(2)]
    for member in members:
        member.start()
    found = sorted(answers.get(timeout=120) for _ in members)
    for member in members:
        member.join(60)
        assert member.exitcode == 0
    both = [{0: "x"}, {1: "x"}]
    assert found == [(0, both, "from 0", True), (1, both, "from 0", False)]


def test_half_of_torchruns_surroundings_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PlatformError, match="torchrun"), joined("cpu"):
        pass
