from typing import Any

import numpy as np
import pytest
import torch
from helpers import KEY, OTHER_KEY, originals, random_images
from torch.nn import functional

from pueprotect.learning.augment import crop_padding, draw_crops
from pueprotect.learning.data import ImageSet, Part
from pueprotect.learning.device import HERE, Machine
from pueprotect.learning.distributed import Group
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule
from pueprotect.protect.methods import error_minimising
from pueprotect.protect.methods.base import Made, NoiseSettings
from pueprotect.runtime import generator


def optimised(**wanted: object) -> error_minimising.Optimizer:
    settings = NoiseSettings(**({"rounds": 3, "key": KEY} | wanted))  # type: ignore[arg-type]
    optimizer = error_minimising.Optimizer(random_images(), settings)
    optimizer.run(optimizer.settings.rounds)
    return optimizer


@pytest.mark.parametrize("mode", ["class-wise", "sample-wise"])
def test_budget_shape_and_both_signs(mode: str) -> None:
    optimizer = optimised(mode=mode, epsilon=6)
    levels = optimizer.levels()
    assert levels.shape == ((3 if mode == "class-wise" else 48), 16, 16, 3)
    assert levels.dtype == torch.int8
    assert int(levels.abs().max()) <= 6
    assert 0.3 < float((levels < 0).float().mean()) < 0.7


def test_same_key_same_noise_and_another_key_another() -> None:
    assert torch.equal(optimised(seed=1).levels(), optimised(seed=2).levels())
    assert not torch.equal(optimised().levels(), optimised(key=OTHER_KEY).levels())


def test_everything_random_follows_from_the_key() -> None:
    """Surrogate, first noise, order of the batches and weight draws: each is another one with another key."""
    one, two = (error_minimising.Optimizer(random_images(), NoiseSettings(key=key)) for key in (KEY, OTHER_KEY))
    first = [next(iter(optimizer.surrogate.parameters())) for optimizer in (one, two)]
    assert not torch.equal(*first)
    assert abs(float(torch.corrcoef(torch.stack([one.delta.flatten(), two.delta.flatten()]))[0, 1])) < 0.1
    assert one.stream.initial_seed() != two.stream.initial_seed()


def test_going_on_draws_from_a_stream_of_its_own_on_every_rank() -> None:
    """Otherwise the batches of the first rounds would come again."""
    start = torch.zeros(3, 16, 16, 3)
    for given, purpose in ((None, "protect"), (start, "improve")):
        for rank in (0, 1):
            made = error_minimising.Optimizer(random_images(), NoiseSettings(key=KEY), Group(rank, 2), start=given)
            assert made.stream.initial_seed() == generator(KEY, purpose, rank).initial_seed()


@pytest.mark.parametrize("method", ["pue", "emn"])
def test_the_default_settings_do_not_repeat_the_noise(method: str) -> None:
    """Whoever runs the tool on the same images finds other noise: a key is drawn each time."""
    made = []
    for _ in range(2):
        optimizer = error_minimising.Optimizer(random_images(), NoiseSettings(method=method, rounds=3))
        optimizer.run(3)
        made.append(optimizer.levels().float().flatten())
    assert abs(float(torch.corrcoef(torch.stack(made))[0, 1])) < 0.15


@pytest.mark.parametrize("mode", ["class-wise", "sample-wise"])
def test_pue_without_weight_noise_is_emn(mode: str) -> None:
    pue, emn = optimised(method="pue", sigma=0.0, mode=mode), optimised(method="emn", mode=mode)
    assert torch.equal(pue.levels(), emn.levels())


def test_weight_noise_changes_the_noise_once_the_surrogate_fits() -> None:
    data = random_images()
    results = []
    for sigma in (0.0, 0.1):
        optimizer = error_minimising.Optimizer(data, NoiseSettings(sigma=sigma, rounds=2, key=KEY))
        teacher = build("resnet8", 3, 16, seed=9)  # a teacher counts as fitted
        optimizer.run(2, teacher=teacher)
        results.append(optimizer.levels())
    assert not torch.equal(*results)


@pytest.mark.parametrize("size", [16, 56])
def test_one_class_wise_step_equals_a_plain_loop(size: int) -> None:
    """Autograd through crop and flip, image by image, against the batched adjoint and the product with labels."""
    data = random_images(8, size)
    chosen = NoiseSettings(method="emn", step_size=0.8, key=KEY)
    optimizer = error_minimising.Optimizer(data, chosen)
    start = optimizer.delta.clone()
    crop = draw_crops(8, size, torch.Generator().manual_seed(3), "cpu")
    reference = build("resnet8", 3, size, seed=KEY, purpose="surrogate").train()
    trainer = error_minimising.Trainer(optimizer.surrogate, Schedule(), 10)
    optimizer._step(trainer, torch.arange(8), crop, noisy=False)

    noisy = torch.stack([data.images[n].permute(1, 2, 0).float() + start[data.labels[n]] for n in range(8)])
    noisy.requires_grad_()
    if size == 16:
        padding = crop_padding(size)
        inside = functional.pad(noisy, (0, 0, padding, padding, padding, padding))
        rows, columns = crop.rows + padding, crop.columns + padding
        shown = torch.stack([inside[n][rows[n, :, 0]][:, columns[n, 0]] for n in range(8)])
    else:
        shown = torch.stack([torch.einsum("sh,hwc,tw->stc", crop.rows[n], noisy[n], crop.columns[n]) for n in range(8)])
    inputs = (shown.permute(0, 3, 1, 2).clamp(0, 255) / 255).detach().requires_grad_()
    functional.cross_entropy(reference(inputs), data.labels).backward()
    (carried,) = torch.autograd.grad(shown.permute(0, 3, 1, 2), noisy, error_minimising.fine(inputs.grad))
    signs = carried.sign()
    for label in range(3):
        members = data.labels == label
        expected = (start[label] - 0.8 * signs[members].mean(0)).clamp(-8, 8)
        different = ((optimizer.delta[label] - expected).abs() > 1e-4).float().mean()
        assert float(different) < 0.01  # signs of gradients near zero may flip with the order of summation


def test_a_part_of_a_set_gives_the_same_noise_as_a_copy_of_it() -> None:
    whole, members = random_images(60), torch.arange(60)[torch.arange(60) % 4 != 1]
    found = []
    for data in (Part(whole, members), whole.subset(members)):
        optimizer = error_minimising.Optimizer(data, NoiseSettings(rounds=3, mode="sample-wise", key=KEY))
        optimizer.run(3)
        found.append(optimizer.levels())
    assert torch.equal(*found)


class Watched:
    """Records which images were requested."""

    def __init__(self, data: ImageSet) -> None:
        self.data, self.asked = data, list[list[int]]()
        self.labels, self.classes, self.size, self.device = data.labels, data.classes, data.size, data.device

    def __len__(self) -> int:
        return len(self.data)

    def frames(self, index: torch.Tensor) -> torch.Tensor:
        self.asked.append(index.tolist())
        return self.data.frames(index)


@pytest.mark.parametrize("mode", ["class-wise", "sample-wise"])
def test_in_shuffled_rounds_only_the_noise_predicts_the_class(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise and label match in every round; the image matches them in the later rounds only."""
    watched, trained = Watched(random_images()), []
    wanted = NoiseSettings(mode=mode, rounds=6, shuffled=0.5)  # type: ignore[arg-type]
    optimizer = error_minimising.Optimizer(watched, wanted)
    step = error_minimising.Trainer.step
    monkeypatch.setattr(
        error_minimising.Trainer, "step", lambda self, inputs, labels, **more: trained.append(labels.tolist())
        or step(self, inputs, labels, **more),
    )  # fmt: skip
    optimizer.run(6)
    visits = [labels for labels, again in zip(trained, [None, *trained], strict=False) if labels != again]
    names = watched.labels.tolist()
    matching = [[names[i] for i in asked] == labels for asked, labels in zip(watched.asked, visits, strict=True)]
    first = round(0.5 * optimizer.settings.class_rounds)
    assert matching == [False] * first + [True] * (6 - first)
    assert all(sorted(asked) == list(range(48)) for asked in watched.asked)


def test_fine_removes_what_is_smooth() -> None:
    flat = torch.ones(1, 3, 16, 16)
    assert float(error_minimising.fine(flat).abs().max()) < 1e-6
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1).expand(1, 3, -1, -1)
    assert float((error_minimising.fine(board) * board).mean()) > 0.8


def test_unseen_images_get_noise_within_budget_and_leave_the_surrogate_alone() -> None:
    optimizer = optimised(mode="sample-wise")
    before = {name: value.clone() for name, value in optimizer.surrogate.state_dict().items()}
    unseen = random_images(9, seed=5)
    noise = optimizer.noise_for(unseen, originals(unseen).laying, optimizer.class_delta[unseen.labels], steps=3)
    assert noise.shape == (9, 16, 16, 3)
    assert 0 < int(noise.abs().max()) <= 8
    assert all(torch.equal(before[name], value) for name, value in optimizer.surrogate.state_dict().items())


@pytest.mark.parametrize("mode", ["class-wise", "sample-wise"])
def test_images_without_colours_get_noise_without_colours_of_full_strength(mode: str) -> None:
    data = random_images(60)
    grey = np.arange(60) % 2 == 0
    given, wanted = originals(data, grey=grey), NoiseSettings(mode=mode, rounds=3)  # type: ignore[arg-type]
    made = error_minimising.PUE().make(given, wanted, HERE)
    worn = made.noise[made.rows].astype(float)
    assert worn.shape == (60, 16, 16, 3)
    assert np.array_equal(worn[grey], worn[grey][..., :1].repeat(3, axis=3))
    strength = [np.sqrt((worn[kind] ** 2).mean()) for kind in (grey, ~grey)]
    assert strength[0] == pytest.approx(strength[1], rel=0.1)
    assert not np.array_equal(worn[~grey], worn[~grey][..., :1].repeat(3, axis=3))
    assert not np.array_equal(worn[0], worn[3]), "a class has a pattern for each kind"


def test_noise_for_small_files_is_optimised_as_their_working_copies_show_it() -> None:
    """With files of half the working size, only one noise value of four is written: the others must not move."""
    data = random_images(24)
    given = originals(data, sides=np.full((24, 2), 8))
    optimizer = error_minimising.PUE()._optimizer(given, NoiseSettings(rounds=2, step_size=3), HERE)
    start = optimizer.delta.clone()
    optimizer.run(2)
    moved = (optimizer.delta != start).any(0).any(-1)
    assert moved[1::2, 1::2].all()
    assert int(moved.sum()) == 64


@pytest.mark.parametrize("mode", ["class-wise", "sample-wise"])
def test_going_on_starts_from_the_noise_and_the_teacher_and_counts_its_rounds(mode: str) -> None:
    method, given = error_minimising.PUE(), originals(random_images())
    wanted = NoiseSettings(rounds=2, mode=mode, sigma=0)  # type: ignore[arg-type]
    first = method.make(given, wanted, HERE)
    teacher = build("resnet8", 3, 16, seed=9)
    more = [method.improve(first, given, wanted, teacher, 1, HERE) for _ in range(2)]
    assert more[0] is not None
    assert more[1] is not None
    assert (first.rounds, more[0].rounds) == (2, 3)
    assert np.array_equal(more[0].noise, more[1].noise), "nothing but the noise is needed to go on"
    moved = np.abs(first.noise.astype(int) - more[0].noise)
    steps = 6 if mode == "sample-wise" else 1
    assert 0 < moved.max() <= steps, "one round of steps of at most one level, or those of the held-out images"
    assert first.rows.tolist() == more[0].rows.tolist()


def test_steps_on_unseen_images_lower_the_surrogates_error_on_them() -> None:
    """Six steps of one level go on from the start; the images keep their order in batches of 256."""
    optimizer, unseen = optimised(rounds=6), random_images(300, seed=5)
    laying, start = originals(unseen).laying, optimizer.class_delta[unseen.labels].round()
    moved = optimizer.noise_for(unseen, laying, start)
    assert moved.dtype == torch.int8
    assert int((moved - start).abs().max()) == 6
    assert torch.equal(optimizer.noise_for(unseen, laying, start, steps=0), start.to(torch.int8))
    optimizer.surrogate.eval()
    with torch.no_grad():
        before, after = (
            functional.cross_entropy(
                optimizer.surrogate(((unseen.images + noise.permute(0, 3, 1, 2)).clamp(0, 255)) / 255), unseen.labels
            )
            for noise in (start, moved)
        )
    assert float(after) < float(before)


class Reports:
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.said = list[Any]()

    def start(self, label: str, total: int) -> None:
        self.said.append((label, total))

    def advance(self, parts: int = 1, note: str = "") -> None:
        self.said.append(note)

    def finish(self, note: str = "") -> None:
        self.said.append("finished")


def test_each_round_reports_how_well_the_surrogate_fits() -> None:
    shown, given, wanted = Reports(), originals(random_images()), NoiseSettings(rounds=2, key=KEY)
    made = error_minimising.PUE().make(given, wanted, Machine(progress=shown))
    assert shown.said[::3] == [("optimise noise", 2), "finished"]
    for note in shown.said[1:3]:
        share = note.removeprefix("surrogate ").removesuffix("% on protected images")
        assert 0 <= int(share) <= 100
    shown.said.clear()
    error_minimising.PUE().improve(made, given, wanted, build("resnet8", 3, 16, seed=9), 1, Machine(progress=shown))
    assert shown.said[0] == ("optimise further", 1)


class Leader:
    """The first of two ranks; what it sends is kept for the other one."""

    rank, size, leads = 0, 2, True

    def __init__(self) -> None:
        self.sent = list[Any]()

    def from_leader(self, thing: Any) -> Any:
        self.sent.append(thing)
        return thing

    def deal(self, pieces: Any, device: str) -> torch.Tensor:
        assert device == "cpu"
        self.sent.append(torch.cat(list(pieces)))
        return self.sent[-1][::2]

    def collect(self, mine: torch.Tensor) -> torch.Tensor:
        """As if the other rank had the same noise."""
        return mine.repeat_interleave(2, 0)


class Follower:
    """The second of two ranks; gets what the first one has sent, in the same order."""

    rank, size, leads = 1, 2, False

    def __init__(self, sent: list[Any]) -> None:
        self.sent, self.collected = sent, list[torch.Tensor]()

    def from_leader(self, thing: Any) -> Any:
        assert thing is None
        return self.sent.pop(0)

    def deal(self, pieces: Any, device: str) -> torch.Tensor:
        assert (pieces, device) == (None, "cpu")
        found: torch.Tensor = self.sent.pop(0)[1::2]
        return found

    def collect(self, mine: torch.Tensor) -> torch.Tensor:
        self.collected.append(mine)
        return mine


def mixed_folder() -> Any:
    """Every fourth image is held out, every third is greyscale, and files have three sizes."""
    number = np.arange(24)
    sides = np.stack([[8, 16, 24], [16, 8, 16]], axis=1)[number % 3]
    return originals(random_images(24), grey=number % 3 == 0, sides=sides)


@pytest.mark.parametrize("mode", ["class-wise", "sample-wise"])
@pytest.mark.parametrize("earlier", [False, True])
def test_the_second_rank_gets_every_other_training_image_with_all_that_belongs_to_it(mode: str, earlier: bool) -> None:
    given, wanted = mixed_folder(), NoiseSettings(mode=mode, key=KEY, rounds=4)  # type: ignore[arg-type]
    count = 24 if mode == "sample-wise" else 6
    noise = np.random.default_rng(0).integers(-8, 9, (count, 16, 16, 3)).astype(np.int8)
    before = Made(noise, np.arange(24), rounds=4) if earlier else None
    method, leader = error_minimising.PUE(), Leader()
    whole = method._optimizer(given, wanted, HERE, before)
    first = method._optimizer(given, wanted, Machine(group=leader), before)  # type: ignore[arg-type]
    second = method._optimizer(None, wanted, Machine(group=Follower(leader.sent)))  # type: ignore[arg-type]
    assert leader.sent == []
    assert len(whole.data) == 18
    own = earlier and mode == "sample-wise"
    for rank, part in enumerate((first, second)):
        mine = slice(rank, None, 2)
        index = torch.arange(9)
        assert torch.equal(part.data.frames(index), whole.data.frames(torch.arange(18)[mine]))
        assert torch.equal(part.labels, whole.labels[mine])
        assert part.rows is not None
        assert whole.rows is not None
        assert torch.equal(part.rows, whole.rows[mine])
        assert part.laying is not None
        assert whole.laying is not None
        for name in ("grey", "sides"):
            assert torch.equal(getattr(part.laying, name), getattr(whole.laying, name)[mine])
        assert torch.equal(part.laying.matrices, whole.laying.matrices)
        assert torch.equal(part.grey, whole.grey)  # type: ignore[arg-type]
        assert torch.equal(part.delta, whole.delta[mine] if own else whole.delta)
        assert (part.rounds, part.individual) == (whole.rounds, whole.individual) == (4 * earlier, own)
        assert (part.settings, part.group.rank) == (wanted, rank)


def test_only_pue_uses_weight_noise() -> None:
    for method, sigma in ((error_minimising.PUE(), 0.05), (error_minimising.EMN(), 0.0)):
        assert method._optimizer(originals(random_images()), NoiseSettings(sigma=0.05), HERE).settings.sigma == sigma


@pytest.mark.parametrize("mode", ["class-wise", "sample-wise"])
def test_the_second_rank_helps_to_make_and_to_improve(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs as many rounds as the first rank, from the same teacher, and hands over the noise of its images."""
    given, wanted = mixed_folder(), NoiseSettings(mode=mode, key=KEY, rounds=4)  # type: ignore[arg-type]
    ran = list[Any]()

    def run(self: Any, rounds: int, *, teacher: Any = None, progress: Any = None) -> None:
        weights = None if teacher is None else next(teacher.parameters()).detach().clone()
        ran.append((self.group.rank, rounds, weights))
        if mode == "sample-wise" and not self.individual:
            self.class_delta, self.delta, self.individual = self.delta, self.delta[self.pattern], True

    monkeypatch.setattr(error_minimising.Optimizer, "run", run)
    method, leader = error_minimising.PUE(), Leader()
    made = method.make(given, wanted, Machine(group=leader))  # type: ignore[arg-type]
    helper = Follower(leader.sent)
    method.assist(helper.from_leader(None), Machine(group=helper))  # type: ignore[arg-type]
    teacher = build("resnet8", 3, 16, seed=9)
    method.improve(made, given, wanted, teacher, 2, Machine(group=leader))  # type: ignore[arg-type]
    method.assist(helper.from_leader(None), Machine(group=helper))  # type: ignore[arg-type]
    assert leader.sent == []
    assert [found[:2] for found in ran] == [(0, 4), (1, 4), (0, 2), (1, 2)]
    assert [found[2] is None for found in ran] == [True, True, False, False]
    assert all(torch.equal(found[2], next(teacher.parameters())) for found in ran[2:])
    assert [len(levels) for levels in helper.collected] == ([9, 9] if mode == "sample-wise" else [])
    assert all(levels.dtype == torch.int8 for levels in helper.collected)
