"""Two gloo processes give the certificate of one, bit for bit, and a killed run goes on to it.

Together they train and protect as one process does, up to rounding and to the order in which images are seen."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from conftest import Release, run_command, write_photos

import pueprotect
from pueprotect.errors import PlatformError
from pueprotect.learning import training
from pueprotect.learning.distributed import Group, joined, launched, own_device
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, Trainer, accuracy, count_correct, train
from pueprotect.protect.methods.base import Mode, NoiseSettings
from pueprotect.protect.methods.error_minimising import Optimizer

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


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched() == (0, 1)
    assert own_device("auto") == "auto"
    with joined("cpu") as group:
        assert group == Group(0, 1)
        assert group.leads


ROWS = torch.arange(17 * 2).view(17, 2)


def _exchange(group: Group) -> Any:
    mine = group.deal(ROWS.split(5) if group.leads else None, "cpu")
    whole = group.collect(mine)
    shares = [torch.full((2, 2), float(group.rank)), torch.tensor([group.rank, 4.0])]
    group.average(shares)
    return (group.rank, group.gather({group.rank: "x"}), group.from_leader(f"from {group.rank}"), group.leads,
            mine.tolist(), whole.tolist(), [share.tolist() for share in shares])  # fmt: skip


def _steps(group: Group) -> Any:
    """Three steps on the same batches: a rank of two takes every other image of each."""
    model = build("cnn", 3, 16, seed=2)
    trainer = Trainer(model, Schedule(epochs=1), 3, group)
    stream = torch.Generator().manual_seed(0)
    for _ in range(3):
        inputs, labels = torch.rand((8, 3, 16, 16), generator=stream), torch.arange(8) % 3
        trainer.step(inputs[group.rank :: group.size], labels[group.rank :: group.size])
    return group.rank, [parameter.detach().flatten()[:200].tolist() for parameter in model.parameters()]


def _train(group: Group) -> Any:
    """A whole training on images dealt out; BatchNorm statistics end equal too."""
    data = toy.stripes(64).subset(slice(group.rank, None, group.size))
    steps = []
    model = train(
        build("resnet8", 2, 16, seed=0), data, Schedule(epochs=6, batch_size=16), seed=0, group=group,
        after_step=lambda: steps.append(1),
    )  # fmt: skip
    state = {name: value.tolist() for name, value in model.state_dict().items()}
    return group.rank, len(steps), state, accuracy(model, toy.stripes(64, seed=1))


def _member(rank: int, port: int, answers: Any) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    training.native_bf16 = lambda _: False  # as conftest.py does for the process that they are compared with
    with joined("cpu") as group:
        answers.put(_everything(group))


def _everything(group: Group) -> dict[str, Any]:
    works = {"exchange": _exchange, "steps": _steps, "train": _train, "noise": _noise, "own noise": _own_noise}
    return {name: work(group) for name, work in works.items()} | {"repeated": _own_noise(group), "": group.rank}


@pytest.fixture(scope="module")
def together() -> list[dict[str, Any]]:
    """What each of two ranks returned from every work."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    members = [context.Process(target=_member, args=(rank, port, answers)) for rank in range(2)]
    for member in members:
        member.start()
    found = sorted((answers.get(timeout=300) for _ in members), key=lambda answer: int(answer[""]))
    for member in members:
        member.join(60)
        assert member.exitcode == 0
    return found


def test_processes_exchange_what_they_hold(together: list[dict[str, Any]]) -> None:
    both = [{0: "x"}, {1: "x"}]
    means = [[[0.5, 0.5], [0.5, 0.5]], [0.5, 4.0]]
    rows = ROWS.tolist()
    assert [answers["exchange"] for answers in together] == [
        (0, both, "from 0", True, rows[::2], rows, means), (1, both, "from 0", False, rows[1::2], rows, means),
    ]  # fmt: skip


def test_two_ranks_step_as_one_does_on_the_whole_batch(together: list[dict[str, Any]]) -> None:
    first, second = (answers["steps"] for answers in together)
    _, alone = _steps(Group(0, 1))
    assert first[1] == second[1]
    for shared, own in zip(first[1], alone, strict=True):
        torch.testing.assert_close(torch.tensor(shared), torch.tensor(own), rtol=1e-4, atol=1e-6)


def test_two_ranks_train_one_network_in_as_many_steps(together: list[dict[str, Any]]) -> None:
    first, second = (answers["train"] for answers in together)
    _, steps, _, reached = _train(Group(0, 1))
    assert first[1:] == second[1:]
    assert first[1] == steps
    assert reached >= 0.95
    assert abs(first[3] - reached) <= 0.05


def _noise(group: Group, mode: Mode = "class-wise") -> Any:
    """Noise for striped images, made together; the settings are those of the smallest useful run."""
    mine = toy.stripes(64).subset(slice(group.rank, None, group.size))
    settings = NoiseSettings(mode=mode, epsilon=16, sigma=0.02, rounds=12, seed=3, step_size=3)
    optimizer = Optimizer(mine, settings, group)
    optimizer.run(settings.rounds)
    known = group.gather(int(count_correct(optimizer.surrogate, optimizer.protected())))
    whole = group.collect(optimizer.levels()) if optimizer.individual else optimizer.levels()
    return group.rank, whole.tolist(), sum(known) / 64


def _own_noise(group: Group) -> Any:
    return _noise(group, "sample-wise")


@pytest.mark.parametrize(("name", "work"), [("noise", _noise), ("own noise", _own_noise)])
def test_two_ranks_make_one_noise_that_works_as_ones_own(
    name: str, work: Callable[[Group], Any], together: list[dict[str, Any]]
) -> None:
    first, second = (answers[name] for answers in together)
    _, alone, known = work(Group(0, 1))
    assert first[1:] == second[1:]
    noise = torch.tensor(first[1])
    assert noise.shape == torch.tensor(alone).shape
    assert int(noise.abs().max()) <= 16
    assert first[1] != alone, "ranks see the images in another order"
    assert abs(first[2] - known) <= 0.03
    assert together[0]["repeated"] == together[0]["own noise"], "the same seed, the same noise"


def test_torchrun_protects_a_folder_and_sends_idle_ranks_home(tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos", 5)
    words = ["protect", str(source), "--out", str(tmp_path / "out"), "--size", "16", "--rounds", "2", "--preset",
             "quick", "--device", "cpu", "--release-anyway", "--mode", "sample-wise", "--json"]  # fmt: skip
    made = pueprotect_in(2, *words)
    assert made["realised"]["linf_max"] <= 8
    assert run_command("verify", tmp_path / "out").code == 0
    assert pueprotect_in(2, *words, "--resume")["data_digest"] == made["data_digest"], "finished: nothing left to share"


def test_half_of_torchruns_surroundings_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PlatformError, match="torchrun"), joined("cpu"):
        pass
