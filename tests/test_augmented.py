import pytest
import torch
from toy import stripes, target

from pueprotect.audit.attacks import find
from pueprotect.learning.augment import Grouped, cutout, lent_stream, plasma
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, Trainer, train


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cutout_masks_one_square_of_half_the_side_at_its_own_place() -> None:
    images = 0.5 + 0.5 * torch.rand((200, 3, 16, 16), generator=stream())
    cut = cutout(images, stream(1))
    black = cut == 0
    assert torch.equal(black[:, 0], black[:, 1])
    assert torch.equal(cut[~black], images[~black])
    areas, places = set(), set()
    for hole in black[:, 0]:
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, torch.outer(rows, columns))  # a rectangle
        height, width = int(rows.sum()), int(columns.sum())
        assert 4 <= height <= 8
        assert 4 <= width <= 8
        areas.add(height * width)
        places.add((int(rows.int().argmax()), int(columns.int().argmax())))
    assert max(areas) == 64
    assert len(places) > 50
    assert float(images.min()) >= 0.5, "the input is left alone"


def mixtures(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Black and white images through the attack's mixing: inputs, labels, the images before."""
    labels = torch.tensor([0, 1] * 8)
    images = labels.float().view(-1, 1, 1, 1).expand(-1, 3, 16, 16).contiguous()
    prepare = find(name).prepare(target())  # type: ignore[attr-defined]
    inputs, shares = prepare(images.clone(), labels, stream())
    return inputs, shares, images


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_labels_mix_as_the_images_do(name: str) -> None:
    inputs, shares, _ = mixtures(name)
    assert shares.shape == (16, 2)
    torch.testing.assert_close(shares.sum(1), torch.ones(16))
    white = inputs.mean((1, 2, 3))  # a white image is of class 1
    torch.testing.assert_close(white, shares[:, 1], atol=1e-5, rtol=0)
    assert 0 < float(shares[0, 0]) < 1


def test_mixup_blends_and_cutmix_pastes() -> None:
    blended, pasted = mixtures("mixup")[0], mixtures("cutmix")[0]
    assert len(blended[0].unique()) == 1
    assert set(pasted.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_each_batch_gets_its_own_share(name: str) -> None:
    prepare = find(name).prepare(target())  # type: ignore[attr-defined]
    images, labels = torch.rand((8, 3, 16, 16)), torch.arange(8) % 2
    found = {tuple(prepare(images.clone(), labels, stream())[1][0].tolist()) for _ in range(5)}
    assert len(found) == 5


def test_mixed_labels_train_a_network_between_the_classes() -> None:
    """A step on half-half labels must not pull towards either; a wrong loss would take the argmax."""
    model = build("resnet8", 2, 16, seed=0)
    trainer = Trainer(model, Schedule(lr=0.1, weight_decay=0), 200)
    inputs = torch.rand((8, 3, 16, 16), generator=stream())
    for _ in range(60):
        right = trainer.step(inputs, torch.tensor([[0.3, 0.7]]).expand(8, -1))
    model.train()
    with torch.no_grad():
        shares = model(inputs).softmax(1).mean(0)
    torch.testing.assert_close(shares, torch.tensor([0.3, 0.7]), atol=0.1, rtol=0)
    assert int(right) == 8  # the larger share counts as right


def test_groups_share_parameters_and_batches_do_not() -> None:
    """A transform that adds one random number: eight images share it, the next eight have their own."""
    shifted = Grouped(lambda images: images + torch.rand(()), stream(5))(torch.zeros(20, 3, 4, 4))
    values = shifted[:, 0, 0, 0]
    assert len(values.unique()) == 3
    assert len(values[:8].unique()) == len(values[8:16].unique()) == len(values[16:].unique()) == 1


def test_lent_stream_moves_on_and_leaves_the_global_one_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    own, twin = stream(5), stream(5)
    with lent_stream(own):
        drawn = torch.rand(2)
    assert torch.equal(drawn, torch.rand(2, generator=twin))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.rand(2, generator=own), torch.rand(2, generator=twin))
    with pytest.raises(ValueError, match="stop"), lent_stream(own):
        raise ValueError("stop")
    assert torch.equal(torch.rand(1, generator=own), torch.rand(1, generator=twin))


def test_plasma_is_smooth_and_spans_the_range() -> None:
    fields = plasma(20, 32, stream(), "cpu")
    assert fields.shape == (20, 1, 32, 32)
    assert fields.amin((2, 3)).unique().tolist() == [0.0]
    torch.testing.assert_close(fields.amax((2, 3)), torch.ones(20, 1))
    neighbours = (fields[..., 1:] - fields[..., :-1]).abs().mean()
    assert float(neighbours) < 0.1
    assert len(fields.flatten(1).unique(dim=0)) == 20


@pytest.mark.parametrize("name", ["cutout", "randaugment", "colour"])
def test_the_augmentation_is_in_the_loop(name: str) -> None:
    here = target(epochs=1)
    transform = find(name).transform(here)  # type: ignore[attr-defined]
    images = torch.rand((16, 3, 16, 16), generator=stream())
    assert not torch.equal(transform(images, stream()), images)
    plain = train(here.fresh(), here.released, here.schedule, seed=here.seed).state_dict()
    from pueprotect.audit.attacks.base import Run

    state = find(name).train(Run(here, stripes(8, seed=1))).state_dict()
    assert any(not torch.equal(state[key], plain[key]) for key in plain)


def test_a_hook_that_changes_nothing_changes_no_result() -> None:
    here = target(epochs=2)
    plain = train(here.fresh(), here.released, here.schedule, seed=0).state_dict()
    hooked = train(
        here.fresh(), here.released, here.schedule, seed=0, prepare=lambda inputs, labels, _: (inputs, labels)
    ).state_dict()
    assert all(torch.equal(plain[key], hooked[key]) for key in plain)
