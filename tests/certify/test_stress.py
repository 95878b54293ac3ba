import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pueprotect.certify import stress
from pueprotect.certify.certificate import CertificateSettings, certify
from pueprotect.certify.stress import stress_test
from pueprotect.errors import CertificateError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import HERE
from pueprotect.learning.draw_engine import DrawEngine, deviations
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import Schedule, train
from pueprotect.learning.weights import trainable, weights_digest
from pueprotect.release.certificates import RecipeFigures

SETTINGS = CertificateSettings(sigma=0.02, etas=(0.0, 0.01, 5.0), draws=300)


@pytest.fixture(scope="module")
def data() -> ImageSet:
    stream = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (60, 3, 16, 16), generator=stream, dtype=torch.uint8)
    labels = torch.arange(60) % 3
    images[:, 0] = images[:, 0] // 2 + (labels * 60).to(torch.uint8).view(-1, 1, 1)
    return ImageSet(images, labels, 3)


@pytest.fixture(scope="module")
def model(data: ImageSet) -> Classifier:
    return train(build("cnn", 3, 16, seed=1), data, Schedule(epochs=30), seed=0)


@pytest.fixture(scope="module")
def opened(data: ImageSet) -> Any:
    """The part of a release that the cross-check uses."""
    return SimpleNamespace(released=data, test=data, machine=HERE, originals=None)


@pytest.fixture(scope="module")
def certificate(model: Classifier, data: ImageSet) -> RecipeFigures:
    return certify(model, "plain", data, data, SETTINGS)


def test_an_honest_bound_holds_on_the_sphere(
    model: Classifier, opened: Any, certificate: RecipeFigures, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights_digest(model)
    seen: list[float] = []

    def attacked(start: Classifier, eta: float, *_: object) -> list[torch.Tensor]:
        seen.append(eta)
        return [parameter.detach() + 1e-4 for parameter in trainable(start)]

    monkeypatch.setattr(stress, "recovery", attacked)
    found = stress_test(model, certificate, SETTINGS, opened, None, draws=60)
    assert found is not None
    assert found.eta == 0.01, "the largest radius that was certified, not the one that abstained"
    assert seen == [0.01]
    assert set(found.above) == {"random 1", "random 2", "random 3", "random 4", "recovery"}
    assert max(found.above.values()) <= found.limit < 60
    moved = sum(parameter.numel() for parameter in trainable(model)) ** 0.5 * 1e-4
    assert found.recovery_distance == pytest.approx(moved, rel=1e-2)
    assert weights_digest(model) == before


def test_a_false_bound_is_an_error(model: Classifier, opened: Any, certificate: RecipeFigures) -> None:
    too_low = [point.model_copy(update={"certified_learnability": 0.05}) for point in certificate.curve]
    with pytest.raises(CertificateError, match="contradicts"):
        stress_test(model, certificate.model_copy(update={"curve": too_low}), SETTINGS, opened, None, draws=60)


def test_centres_are_on_the_sphere(model: Classifier) -> None:
    moved = stress._moved(model, stress._direction(model, 0, 1), 0.7, relative=False)
    steps = [a - b for a, b in zip(trainable(moved), trainable(model), strict=True)]
    length = torch.cat([step.detach().flatten() for step in steps]).double().norm()
    assert float(length) == pytest.approx(0.7, rel=1e-5)
    other = stress._direction(model, 0, 2)
    assert not torch.equal(other[0], stress._direction(model, 0, 1)[0])


def test_relative_centres_are_on_the_sphere_of_rescaled_weights(model: Classifier) -> None:
    flat = copy.deepcopy(model)
    with torch.no_grad():
        trainable(flat)[1].zero_()
    moved = stress._moved(flat, stress._direction(flat, 0, 1), 0.7, relative=True)
    total = 0.0
    for there, here in zip(trainable(moved), trainable(flat), strict=True):
        unit = float(here.detach().square().mean().sqrt())
        step = (there - here).detach().double()
        assert unit > 0 or not step.any(), "a tensor of zeros is not part of the ball"
        total += float((step / (unit or 1.0)).square().sum())
    assert total**0.5 == pytest.approx(0.7, rel=1e-4)


def test_a_relative_bound_is_checked_with_the_noise_of_the_certificate(
    model: Classifier, data: ImageSet, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Around another centre the deviations stay those of the surrogate, and the recovery attack is left out."""
    relative = CertificateSettings(sigma=0.1, relative=True, etas=(0.0, 0.05), draws=300)
    found = certify(model, "plain", data, data, relative)
    monkeypatch.setattr(stress, "recovery", lambda *_: pytest.fail("within another ball"))
    used: list[Any] = []

    class Spy(DrawEngine):
        def __init__(self, *args: Any, sigma: Any, **more: Any) -> None:
            used.append(sigma)
            super().__init__(*args, sigma=sigma, **more)

    monkeypatch.setattr("pueprotect.certify.certificate.DrawEngine", Spy)
    checked = stress_test(model, found, relative, opened, None, draws=40)
    assert checked is not None
    assert checked.recovery_distance is None
    assert set(checked.above) == {"random 1", "random 2", "random 3", "random 4"}
    wanted = [float(deviation) for deviation in deviations(trainable(model), 0.1, relative=True)]  # type: ignore[union-attr]
    assert [[float(deviation) for deviation in sigma] for sigma in used] == [wanted] * 4


def test_there_is_no_cross_check_where_every_radius_abstains(model: Classifier, data: ImageSet, opened: Any) -> None:
    few = CertificateSettings(sigma=0.02, etas=(0.0, 0.05), draws=50)
    found = certify(model, "plain", data, data, few)
    assert stress_test(model, found, few, opened, None) is None
