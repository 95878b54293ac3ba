"""Golden ranks (published parameters, alpha = 0.01), exactness on linear functionals, coverage, properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, norm

from pueprotect.certify import bounds
from pueprotect.errors import InputError
from pueprotect.learning.draw_engine import deviations

SIGMA = 0.25


@pytest.mark.parametrize(
    ("draws", "q", "eta", "rank"),
    [(1000, 0.9, 0.0, 922), (1000, 0.9, 0.25, 997), (1000, 0.7, 0.1, 851), (44, 0.9, 0.0, 44), (43, 0.9, 0.0, None)],
)
def test_golden_ranks(draws: int, q: float, eta: float, rank: int | None) -> None:
    assert bounds.order_statistic_rank(draws, bounds.shifted_tail(q, eta, SIGMA), 0.01) == rank


def test_golden_shift() -> None:
    assert bounds.shifted_quantile(0.9, 0.25, 0.25) == pytest.approx(0.988742, abs=5e-7)
    # mpmath: ncdf(-(quantile(0.9) + 30)) = 8.6e-215 has no float64 complement
    assert 0 < bounds.shifted_tail(0.9, 30 * SIGMA, SIGMA) < 1e-200


@given(
    st.integers(1, 400),
    st.floats(1e-4, 0.9999),
    st.floats(1e-4, 0.3),
)
@settings(max_examples=200, deadline=None)
def test_rank_is_the_smallest_that_satisfies_the_definition(draws: int, quantile: float, alpha: float) -> None:
    satisfying = [k for k in range(1, draws + 1) if binom.cdf(k - 1, draws, quantile) >= 1 - alpha]
    expected = satisfying[0] if satisfying else None
    rank = bounds.order_statistic_rank(draws, 1 - quantile, alpha)
    if rank != expected:  # the two sides may differ only where floats cannot tell
        near = min(k for k in (rank, expected) if k is not None)
        assert binom.cdf(near - 1, draws, quantile) == pytest.approx(1 - alpha, abs=1e-12)


@given(st.floats(0.01, 0.99), st.floats(0, 3), st.floats(0, 3), st.floats(1e-3, 0.4), st.floats(1e-3, 0.4))
@settings(max_examples=100, deadline=None)
def test_rank_is_monotone(q: float, eta_a: float, eta_b: float, alpha_a: float, alpha_b: float) -> None:
    def rank(eta: float, alpha: float) -> float:
        found = bounds.order_statistic_rank(500, bounds.shifted_tail(q, eta, 1.0), alpha)
        return math.inf if found is None else found

    assert rank(min(eta_a, eta_b), alpha_a) <= rank(max(eta_a, eta_b), alpha_a)
    assert rank(eta_a, max(alpha_a, alpha_b)) <= rank(eta_a, min(alpha_a, alpha_b))


@given(st.floats(0.05, 0.95), st.floats(0, 4), st.floats(0.01, 2), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_shift_is_an_equality_for_linear_functionals(q: float, ratio: float, sigma: float, seed: int) -> None:
    """A(theta) = a.theta: the worst centre on the sphere lies along a, and its quantile is known exactly."""
    a = np.random.default_rng(seed).normal(size=7)
    length = float(np.linalg.norm(a))
    eta = ratio * sigma
    worst_quantile = eta * length + sigma * length * norm.ppf(q)
    bound = sigma * length * norm.isf(bounds.shifted_tail(q, eta, sigma))
    assert bound == pytest.approx(worst_quantile, rel=1e-12, abs=1e-12 * length * sigma)


@given(st.floats(0.05, 0.95), st.floats(0.01, 4), st.floats(0.01, 2), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_with_relative_deviations_the_ball_is_that_of_rescaled_weights(
    q: float, ratio: float, sigma: float, seed: int
) -> None:
    """A(theta) = a.theta again; the three tensors have sizes and root mean squares far apart, the last is zero."""
    stream = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(3, 2, generator=stream), 100 * torch.randn(5, generator=stream), torch.zeros(4)]
    drawn = deviations(tensors, sigma, relative=True)
    assert isinstance(drawn, list)
    units = np.concatenate([np.full(t.numel(), float(t.square().mean().sqrt())) for t in tensors])
    spread = np.concatenate([np.full(t.numel(), float(d)) for t, d in zip(tensors, drawn, strict=True)])
    a, eta = np.random.default_rng(seed).normal(size=15), ratio * sigma
    noise = float(np.linalg.norm(a * spread))  # of A over the draws
    bound = noise * norm.isf(bounds.shifted_tail(q, eta, sigma))
    # The worst centre of the ball sum_i (u_i / unit_i)^2 <= eta^2 moves along unit_i^2 a_i.
    worst = eta * units**2 * a / np.linalg.norm(units * a)
    inside = units > 0
    assert np.linalg.norm(worst[inside] / units[inside]) == pytest.approx(eta)
    assert bound == pytest.approx(a @ worst + noise * norm.ppf(q), rel=1e-5, abs=1e-6 * noise)
    other = np.random.default_rng(seed + 1).normal(size=15)
    other *= eta / np.linalg.norm(other[inside])
    assert a @ (units * other) + noise * norm.ppf(q) <= bound * (1 + np.sign(bound) * 1e-5)


@given(st.floats(1e-6, 0.9), st.floats(1e-6, 0.4), st.integers(1, 5000))
@settings(max_examples=50, deadline=None)
def test_the_parts_of_the_population_bound_add_up_to_alpha(tail: float, alpha: float, candidates: int) -> None:
    """One part for the draws; by Markov's inequality b / UNLUCKY for the test images of each candidate."""
    wider, level, limit = bounds.population_plan(tail, alpha, candidates)
    assert level + candidates * limit / bounds.UNLUCKY == pytest.approx(alpha)
    assert level == pytest.approx(alpha / 2)
    assert wider == pytest.approx(tail * (1 - bounds.UNLUCKY))


def test_all_looks_together_spend_at_most_alpha() -> None:
    spent = [bounds.spent(0.05, look) for look in range(1, 10_000)]
    assert spent == sorted(spent, reverse=True)
    assert spent[0] == 0.025
    assert 0.0499 < sum(spent) <= 0.05
    assert bounds.spent(0.05, 0) == 0.05, "a bound that stands alone"


@pytest.mark.parametrize("sampler", ["uniform", "two-valued", "binomial"])
def test_coverage(sampler: str) -> None:
    """Misses over 2,000 repeats stay within the exact binomial tail of alpha."""
    rng = np.random.default_rng(7)
    repeats, draws, quantile, alpha = 2000, 300, 0.95, 0.05
    shape = (repeats, draws)
    if sampler == "uniform":
        values, truth = rng.random(shape), quantile
    elif sampler == "two-valued":
        values, truth = (rng.random(shape) < 0.06).astype(float), 1.0
    else:
        values, truth = rng.binomial(20, 0.3, shape), binom.ppf(quantile, 20, 0.3)
    rank = bounds.order_statistic_rank(draws, 1 - quantile, alpha)
    assert rank is not None
    misses = int((np.sort(values, axis=1)[:, rank - 1] < truth).sum())
    assert misses <= binom.ppf(1 - 1e-6, repeats, alpha)
    if sampler == "uniform":  # a continuous distribution also shows that the rank wastes nothing
        exact = binom.sf(rank - 1, draws, quantile)
        assert binom.ppf(1e-6, repeats, exact) <= misses


@pytest.mark.parametrize("shared", [True, False])
def test_population_coverage(shared: bool) -> None:
    """Draws and test images are both random; the bound on the population's quantile fails at rate alpha."""
    rng = np.random.default_rng(11)
    repeats, draws, images, quantile, alpha = 600, 400, 300, 0.9, 0.1
    tail, level, limit_alpha = bounds.population_plan(1 - quantile, alpha)
    rank = bounds.order_statistic_rank(draws, tail, level)
    assert rank is not None
    truth = beta.ppf(quantile, 30, 70)
    misses, naive = 0, 0
    for _ in range(repeats):
        accuracies = rng.beta(30, 70, draws)
        if shared:  # the same images are easy for every classifier: the worst dependence there is
            counts = np.searchsorted(np.sort(rng.random(images)), accuracies)
        else:
            counts = rng.binomial(images, accuracies)
        count = int(np.sort(counts)[rank - 1])
        misses += bounds.upper_limit(count, images, limit_alpha) < truth
        naive += count / images < truth
    assert misses <= binom.ppf(1 - 1e-6, repeats, alpha)
    if shared:  # without the finite-sample term the same order statistic does miss
        assert naive > binom.ppf(1 - 1e-6, repeats, alpha)


@given(st.integers(0, 200), st.floats(1e-6, 0.4))
@settings(max_examples=100, deadline=None)
def test_upper_limit_inverts_the_binomial(count: int, alpha: float) -> None:
    limit = bounds.upper_limit(count, 200, alpha)
    assert limit >= count / 200
    if count < 200:
        assert binom.cdf(count, 200, limit) == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize("draws", [1000, 10**7])
@pytest.mark.parametrize("ratio", [0.0, 1.0, 5.0, 8.5, 30.0])
def test_far_tails_stay_finite_and_conservative(draws: int, ratio: float) -> None:
    tail = bounds.shifted_tail(0.9, ratio, 1.0)
    rank = bounds.order_statistic_rank(draws, tail, 0.01)
    needed = bounds.draws_needed(tail, 0.01)
    assert needed is not None
    assert (rank is None) == (needed > draws)
    if rank is not None:
        assert binom.sf(draws - rank, draws, tail) >= 0.99


@given(st.floats(0.05, 0.95), st.integers(50, 10**7), st.floats(1e-4, 0.2))
@settings(max_examples=100, deadline=None)
def test_largest_eta_is_the_edge_of_abstention(q: float, draws: int, alpha: float) -> None:
    eta = bounds.largest_eta(q, SIGMA, draws, alpha)
    if eta is None:
        assert bounds.order_statistic_rank(draws, 1 - q, alpha) is None
        return
    assert eta >= 0
    inside = bounds.shifted_tail(q, eta * (1 - 1e-9), SIGMA)
    outside = bounds.shifted_tail(q, eta + 1e-6, SIGMA)
    assert bounds.order_statistic_rank(draws, inside, alpha) == draws
    assert bounds.order_statistic_rank(draws, outside, alpha) is None
    assert bounds.draws_needed(inside, alpha) <= draws < bounds.draws_needed(outside, alpha)  # type: ignore[operator]


def test_the_largest_radii_are_the_published_ones() -> None:
    for draws, ratio in ((1000, 1.32), (10**4, 2.03), (10**5, 2.63), (10**6, 3.15)):
        assert bounds.largest_eta(0.9, 1.0, draws, 0.01) == pytest.approx(ratio, abs=0.006)


@pytest.mark.parametrize(
    "wrong",
    [
        {"q": 0.0}, {"q": 1.0}, {"sigma": 0.0}, {"sigma": math.nan}, {"alpha": 0.0}, {"alpha": 0.5}, {"draws": 0},
        {"eta": -0.1}, {"eta": math.nan},
    ],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    good = {"q": 0.9, "sigma": 0.05, "alpha": 0.01, "draws": 10, "eta": 0.1}
    with pytest.raises(InputError, match=f"--{next(iter(wrong))}"):
        bounds.check(**(good | wrong))  # type: ignore[arg-type]


def test_the_edges_of_the_ranges() -> None:
    """One draw and radius 0 are allowed, an infinite radius is not."""
    bounds.check(q=0.9, sigma=0.1, alpha=0.01, draws=1)
    bounds.check(q=0.9, sigma=0.1, alpha=0.01, draws=1, eta=0.0)
    for eta in (-0.1, math.inf, math.nan):
        with pytest.raises(InputError, match="--eta"):
            bounds.check(q=0.9, sigma=0.1, alpha=0.01, draws=1, eta=eta)


def test_no_number_of_draws_is_enough_without_a_tail() -> None:
    assert bounds.draws_needed(0.0, 0.01) is None


def test_draws_that_are_just_enough_certify_radius_0_alone() -> None:
    assert bounds.largest_eta(0.5, SIGMA, 1, 0.5) == 0.0
    assert bounds.largest_eta(0.51, SIGMA, 1, 0.5) is None
