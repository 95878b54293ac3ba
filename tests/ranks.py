"""What each of two processes does in tests of distributed work; importable in a process that was spawned."""

import os
from typing import Any

import torch
from helpers import KEY, stripes, with_noise

from pueprotect.learning import training
from pueprotect.learning.distributed import Group, joined
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, Trainer, accuracy, count_correct, train
from pueprotect.protect.methods.base import Mode, NoiseSettings
from pueprotect.protect.methods.error_minimising import Optimizer

ROWS = torch.arange(17 * 2).view(17, 2)


def exchange(group: Group) -> Any:
    mine = group.deal(ROWS.split(5) if group.leads else None, "cpu")
    whole = group.collect(mine)
    shares = [torch.full((2, 2), float(group.rank)), torch.tensor([group.rank, 4.0])]
    group.average(shares)
    return (group.rank, group.gather({group.rank: "x"}), group.from_leader(f"from {group.rank}"), group.leads,
            mine.tolist(), whole.tolist(), [share.tolist() for share in shares])  # fmt: skip


def three_steps(group: Group) -> Any:
    """Three steps on the same batches: a rank of two takes every other image of each."""
    model = build("cnn", 3, 16, seed=2)
    trainer = Trainer(model, Schedule(epochs=1), 3, group)
    stream = torch.Generator().manual_seed(0)
    for _ in range(3):
        inputs, labels = torch.rand((8, 3, 16, 16), generator=stream), torch.arange(8) % 3
        trainer.step(inputs[group.rank :: group.size], labels[group.rank :: group.size])
    return group.rank, [parameter.detach().flatten()[:200].tolist() for parameter in model.parameters()]


def whole_training(group: Group) -> Any:
    """A whole training on images dealt out; BatchNorm statistics end equal too."""
    data = stripes(64).subset(slice(group.rank, None, group.size))
    steps = []
    model = train(
        build("resnet8", 2, 16, seed=0), data, Schedule(epochs=6, batch_size=16), seed=0, group=group,
        after_step=lambda: steps.append(1),
    )  # fmt: skip
    state = {name: value.tolist() for name, value in model.state_dict().items()}
    return group.rank, len(steps), state, accuracy(model, stripes(64, seed=1))


def class_noise(group: Group, mode: Mode = "class-wise") -> Any:
    """Noise for striped images, made together; the settings are those of the smallest useful run."""
    mine = stripes(64).subset(slice(group.rank, None, group.size))
    settings = NoiseSettings(mode=mode, epsilon=16, sigma=0.02, rounds=12, key=KEY, step_size=3)
    optimizer = Optimizer(mine, settings, group)
    optimizer.run(settings.rounds)
    known = group.gather(int(count_correct(optimizer.surrogate, with_noise(mine, optimizer))))
    whole = group.collect(optimizer.levels()) if optimizer.individual else optimizer.levels()
    return group.rank, whole.tolist(), sum(known) / 64


def sample_noise(group: Group) -> Any:
    return class_noise(group, "sample-wise")


def member(rank: int, port: int, answers: Any) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    training.native_bf16 = lambda _: False  # as conftest.py does for the process that they are compared with
    with joined("cpu") as group:
        answers.put(everything(group))


def everything(group: Group) -> dict[str, Any]:
    works = {"exchange": exchange, "steps": three_steps, "train": whole_training}
    works |= {"noise": class_noise, "own noise": sample_noise}
    return {name: work(group) for name, work in works.items()} | {"repeated": sample_noise(group), "": group.rank}
