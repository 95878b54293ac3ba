import pytest
import torch
from helpers import stripes, target

from pueprotect.audit.attacks import Target, find
from pueprotect.audit.attacks.recovery import SEARCH, project
from pueprotect.errors import InputError
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule
from pueprotect.learning.weights import distance, trainable
from pueprotect.release.audits import CLEAN_SHARE_ALONE as ALONE


def test_recovery_needs_clean_images_and_shows_what_they_give_alone() -> None:
    with pytest.raises(InputError, match="recovery needs clean training images"):
        find("recovery").run(Target(stripes(), "resnet8", Schedule(epochs=1), 0), stripes(8))
    result = find("recovery").run(target(epochs=2), stripes(40, seed=1))
    assert set(result.details["points"]) == {"before", "eta 0", "eta 0.1", "eta 0.5", ALONE, SEARCH}
    for eta in (0.1, 0.5):
        assert result.details["distance"][f"eta {eta:g}"] <= eta * (1 + 1e-6)
    own = {name: value for name, value in result.details["points"].items() if name != ALONE}
    assert result.best_accuracy == max([*own.values(), *result.details["epoch_accuracy"]])


@pytest.mark.parametrize("eta", [1e-3, 0.5, 4.0])
def test_projection_is_exact_and_only_from_outside(eta: float) -> None:
    centre = [parameter.detach().clone() for parameter in trainable(build("resnet8", 2, 16, seed=0))]
    stream = torch.Generator().manual_seed(1)
    outside = [middle + torch.randn(middle.shape, generator=stream) for middle in centre]
    direction = torch.cat([(a - b).flatten() for a, b in zip(outside, centre, strict=True)]).double()
    project(outside, centre, eta)
    assert distance(outside, centre) == pytest.approx(eta, rel=1e-6 if eta > 0.01 else 1e-4)
    pulled = torch.cat([(a - b).flatten() for a, b in zip(outside, centre, strict=True)]).double()
    assert float(torch.cosine_similarity(direction, pulled, dim=0)) > 1 - 1e-6
    inside = [middle + 1e-6 for middle in centre]
    before = [value.clone() for value in inside]
    project(inside, centre, eta)
    assert all(torch.equal(a, b) for a, b in zip(inside, before, strict=True))
