import pytest
import torch
from helpers import stripes, target
from torch import nn

from pueprotect.audit.attacks import early_stopping, find
from pueprotect.audit.attacks.base import Run
from pueprotect.audit.attacks.early_stopping import VALIDATION_PER_CLASS, validation_set
from pueprotect.errors import InputError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.training import Schedule


def test_validation_images_are_few_and_of_every_class() -> None:
    labels = torch.tensor([0] * 80 + [1] * 10)
    images = torch.zeros((90, 3, 4, 4), dtype=torch.uint8)
    found = validation_set(ImageSet(images, labels, 2))
    assert torch.bincount(found.labels).tolist() == [VALIDATION_PER_CLASS, 10]


@pytest.mark.parametrize(("scores", "kept"), [([3, 9, 4, 9, 1], 2), ([1, 2, 3, 4, 5], 5), ([7, 0, 0, 0, 0], 1)])
def test_the_network_of_the_best_pass_is_kept(scores: list[int], kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation is scripted; the returned weights are those that training had after the chosen pass."""
    script, states = iter(scores), []

    def score(model: nn.Module, _data: ImageSet) -> torch.Tensor:
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return torch.tensor(next(script))

    monkeypatch.setattr(early_stopping, "count_correct", score)
    run = Run(target(epochs=5), stripes(8, seed=1))
    model = find("early-stopping").train(run)
    assert len(states) == 5
    assert run.details["stopped_after_pass"] == kept
    assert all(torch.equal(value, states[kept - 1][name]) for name, value in model.state_dict().items())


def test_early_stopping_needs_clean_images() -> None:
    from pueprotect.audit.attacks import Target

    with pytest.raises(InputError, match="early-stopping needs clean"):
        find("early-stopping").run(Target(stripes(), "resnet8", Schedule(epochs=1), 0), stripes(8))
