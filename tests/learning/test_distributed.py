"""Two gloo processes exchange, train and make noise like one process, except for rounding and the order of images."""

import multiprocessing
import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ranks import ROWS, class_noise, member, sample_noise, three_steps, whole_training

from pueprotect.errors import PlatformError
from pueprotect.learning.distributed import Group, joined, launched, own_device


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched() == (0, 1)
    assert own_device("auto") == "auto"
    with joined("cpu") as group:
        assert group == Group(0, 1)
        assert group.leads


@pytest.fixture(scope="module")
def together() -> list[dict[str, Any]]:
    """The results of every task on each of two ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=member, args=(rank, port, answers)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted((answers.get(timeout=300) for _ in processes), key=lambda answer: int(answer[""]))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return found


def test_processes_exchange_objects_and_tensors(together: list[dict[str, Any]]) -> None:
    both = [{0: "x"}, {1: "x"}]
    means = [[[0.5, 0.5], [0.5, 0.5]], [0.5, 4.0]]
    rows = ROWS.tolist()
    assert [answers["exchange"] for answers in together] == [
        (0, both, "from 0", True, rows[::2], rows, means), (1, both, "from 0", False, rows[1::2], rows, means),
    ]  # fmt: skip


def test_two_ranks_step_like_one_process_on_the_whole_batch(together: list[dict[str, Any]]) -> None:
    first, second = (answers["steps"] for answers in together)
    _, alone = three_steps(Group(0, 1))
    assert first[1] == second[1]
    for shared, own in zip(first[1], alone, strict=True):
        torch.testing.assert_close(torch.tensor(shared), torch.tensor(own), rtol=1e-4, atol=1e-6)


def test_two_ranks_train_one_network_in_as_many_steps(together: list[dict[str, Any]]) -> None:
    first, second = (answers["train"] for answers in together)
    _, steps, _, reached = whole_training(Group(0, 1))
    assert first[1:] == second[1:]
    assert first[1] == steps
    assert reached >= 0.95
    assert abs(first[3] - reached) <= 0.05


@pytest.mark.parametrize(("name", "work"), [("noise", class_noise), ("own noise", sample_noise)])
def test_two_ranks_make_one_noise_that_works_like_the_noise_of_one_process(
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


def test_incomplete_environment_variables_of_torchrun_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PlatformError, match="torchrun"), joined("cpu"):
        pass
