import pytest
import torch
from helpers import stream, stripes, target

from pueprotect.audit.attacks import find
from pueprotect.learning.training import train


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


@pytest.mark.parametrize("name", ["cutout", "randaugment", "colour"])
def test_the_augmentation_reaches_the_training(name: str) -> None:
    here = target(epochs=1)
    transform = find(name).transform(here)  # type: ignore[attr-defined]
    images = torch.rand((16, 3, 16, 16), generator=stream())
    assert not torch.equal(transform(images, stream()), images)
    plain = train(here.fresh(), here.released, here.schedule, seed=here.seed).state_dict()
    from pueprotect.audit.attacks.base import Run

    state = find(name).train(Run(here, stripes(8, seed=1))).state_dict()
    assert any(not torch.equal(state[key], plain[key]) for key in plain)
