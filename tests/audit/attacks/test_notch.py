import torch
from helpers import grained, stripes, target

from pueprotect.audit.attacks import find
from pueprotect.audit.attacks.notch import dependence, spectrum, telling
from pueprotect.learning.data import ImageSet


def test_dependence_finds_the_marked_indices_and_nothing_on_unmarked_images() -> None:
    ratio = dependence(grained(marked=((0, 3), (4, 1))))
    assert {tuple(place) for place in torch.nonzero(ratio > 2).tolist()} == {(0, 3), (4, 1)}
    assert float(dependence(grained()).max()) < 0.4
    assert int(telling(grained()).sum()) == 10, "at least ten go"


def test_the_notch_removes_the_indices_that_mark_the_classes() -> None:
    data = grained(marked=((0, 3), (4, 1)))
    done = find("notch").filter(target_of(data))(data.images)
    assert float(dependence(ImageSet(done, data.labels, 2))[0, 3]) < 0.4
    green = spectrum(done[:, 1].float())
    assert float(green[..., 0, 3].abs().max()) < 3, "only rounding is left"
    assert float(green[..., 7, 7].abs().mean()) > 5, "the rest stays"


def test_the_wide_notch_removes_thirty_indices_and_never_the_mean() -> None:
    data = grained(marked=((0, 3), (4, 1)))
    done = find("wide-notch").filter(target_of(data))(data.images)
    power = spectrum(done[:, 1].float()).abs().mean((0, 1, 2))
    assert int((power < 1).sum()) == 30, "only rounding is left of them"
    assert float(power[0, 0]) > 500
    assert bool((power[[0, 4], [3, 1]] < 1).all())


def test_equalising_removes_the_marks_of_the_classes() -> None:
    data = grained(marked=((0, 3), (4, 1)))
    done = find("equalise").filter(target_of(data))(data.images)
    assert float(dependence(ImageSet(done, data.labels, 2)).max()) < 0.4
    assert float((done.float().mean((2, 3)) - data.images.float().mean((2, 3))).abs().max()) < 2


def test_the_mid_notch_keeps_means_slopes_and_grain() -> None:
    data = grained(marked=((0, 3), (4, 1)))
    left = spectrum(find("mid-notch").filter(target_of(data))(data.images)[:, 1].float()).abs().mean((0, 1, 2))
    assert float(left[:5, :5].flatten()[[2, 3, 4, 10, 24]].max()) < 3
    assert float(left[:2, :2].min()) > 5
    assert float(left[5:, 5:].min()) > 5


def target_of(data: ImageSet) -> object:
    from dataclasses import replace

    return replace(target(), released=data)


def test_the_notch_removes_stripes() -> None:
    result = find("notch").run(target(), stripes(40, seed=1))
    assert result.accuracy < 0.75
    assert [0, 0] not in result.details["indices"]
