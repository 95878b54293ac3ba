import dataclasses

import numpy as np
import pytest
import torch
from helpers import noise_images

from pueprotect.certify import bounds, certificate
from pueprotect.certify.certificate import CertificateSettings, certify, curve, plan
from pueprotect.certify.draws import DrawLog
from pueprotect.errors import InputError
from pueprotect.learning.models import build


def test_curve_picks_the_order_statistic_and_ignores_order() -> None:
    settings = CertificateSettings(q=0.9, sigma=0.05, etas=(0.0, 0.05), draws=1000)
    counts = np.random.default_rng(0).permutation(1000).tolist()
    at_zero, at_sigma = curve(counts, 2000, settings)
    assert (at_zero.rank, at_zero.certified_learnability) == (922, 921 / 2000)
    assert (at_sigma.rank, at_sigma.certified_learnability) == (997, 996 / 2000)


def test_abstains_and_says_how_many_draws_it_takes() -> None:
    settings = CertificateSettings(etas=(0.0, 0.1), draws=43)
    points = curve(range(43), 100, settings)
    assert [point.certified_learnability for point in points] == [None, None]
    assert points[0].draws_needed == 44
    enough = dataclasses.replace(settings, draws=points[1].draws_needed)
    assert plan(enough)[1].rank == enough.draws
    assert settings.max_eta is None
    assert enough.max_eta == pytest.approx(0.1, rel=0.01)


def test_joint_divides_alpha() -> None:
    alone = CertificateSettings(etas=(0.01, 0.02, 0.03, 0.04), draws=1000)
    joint = dataclasses.replace(alone, joint=True)
    assert joint.alpha_each == pytest.approx(alone.alpha / 4)
    for a, b in zip(plan(alone), plan(joint), strict=True):
        assert a.rank is not None
        assert b.rank is None or b.rank >= a.rank
        assert bounds.order_statistic_rank(1000, bounds.shifted_tail(0.9, a.eta, 0.05), 0.0025) == b.rank


def test_a_look_gets_its_share_of_alpha() -> None:
    alone = CertificateSettings(etas=(0.0, 0.02), draws=1000)
    for look, share in ((1, 2), (2, 6), (5, 30)):
        looked = dataclasses.replace(alone, look=look)
        assert looked.alpha_each == pytest.approx(0.01 / share)
        assert dataclasses.replace(looked, joint=True).alpha_each == pytest.approx(0.01 / share / 2)
        assert looked.max_eta == bounds.largest_eta(0.9, 0.05, 1000, looked.alpha_each)
        ranks = [
            bounds.order_statistic_rank(1000, bounds.shifted_tail(0.9, eta, 0.05), 0.01 / share) for eta in (0, 0.02)
        ]
        assert [point.rank for point in plan(looked)] == ranks
        assert [point.rank for point in curve(range(1000), 1000, looked)] == ranks
        assert looked.next_look.look == look + 1
    assert alone.next_look == alone
    short = dataclasses.replace(alone, draws=50, look=1)
    needed = curve(range(50), 100, short)[0].draws_needed
    assert needed is not None
    assert plan(dataclasses.replace(short, draws=needed, look=2))[0].rank == needed
    assert plan(dataclasses.replace(short, draws=needed - 1, look=2))[0].rank is None


def test_certificate_repeats_and_describes_its_draws() -> None:
    data = noise_images()
    model = build("cnn", 3, 16, seed=1)
    settings = CertificateSettings(etas=(0.0,), draws=60, sigma=0.1)
    first, second = (certify(model, "plain", data, data, settings) for _ in range(2))
    assert first == second
    log = DrawLog(None, {})
    assert certify(model, "plain", data, data, settings, log=log) == first
    counts = [correct for correct, _ in log.first(60)]
    assert first.noisy_accuracy.max == max(counts) / 50
    assert first.noisy_accuracy.median == float(np.median(counts)) / 50
    assert first.noisy_accuracy.quantile == float(np.quantile(counts, 0.9)) / 50
    assert first.curve[0].certified_learnability == sorted(counts)[first.curve[0].rank - 1] / 50  # type: ignore[operator]
    other = certify(model, "plain", data, data, dataclasses.replace(settings, seed=1))
    assert other.noisy_accuracy != first.noisy_accuracy


def test_population_bound_lies_above_the_bound_on_the_images() -> None:
    settings = CertificateSettings(q=0.9, sigma=0.05, etas=(0.0, 0.02, 0.05), draws=1000)
    counts = np.random.default_rng(0).binomial(1000, 0.2, 1000).tolist()
    alone, chosen = (curve(counts, 1000, settings, candidates=candidates) for candidates in (1, 5))
    for point, more in zip(alone, chosen, strict=True):
        assert point.certified_learnability is not None
        assert point.population is not None
        assert point.certified_learnability < point.population < point.certified_learnability + 0.08
        assert more.population is not None
        assert more.population > point.population
        assert more.certified_learnability == point.certified_learnability


@pytest.mark.parametrize("wrong", [{"q": 1.0}, {"sigma": 0.0}, {"alpha": 0.5}, {"draws": 0}, {"etas": (-1.0,)}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        CertificateSettings(**wrong)  # type: ignore[arg-type]


def test_the_surrogates_fit_is_measured_on_all_classes_of_a_sorted_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "FIT_IMAGES", 30)
    data = noise_images(90)
    data = data.subset(data.labels.argsort())
    model = build("cnn", 3, 16, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        list(model.parameters())[-1][0] = 1.0  # the bias of class 0
    found = certify(model, "plain", data, data, CertificateSettings(etas=(0.0,), draws=5, sigma=1e-6))
    assert 0.1 < found.surrogate_fit < 0.7
