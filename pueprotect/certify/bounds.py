"""Computes the bounds of quantile parametric smoothing, without sampling and without torch.

Let A(theta) be the accuracy of the classifier with weights theta, v ~ N(0, sigma^2 I), and
h_q(theta) = inf{y : P[A(theta + v) <= y] >= q}. By the Neyman-Pearson lemma for Gaussians (Chiang et al., "Detection as
Regression", 2020; Wang et al., "Provably Unlearnable Data Examples", NDSS 2025), for every ||u||_2 <= eta

    h_q(theta + u) <= h_{q_shifted}(theta),    q_shifted = Phi(Phi^-1(q) + eta / sigma).

With deviations of their own for the layers, v_l ~ N(0, sigma^2 s_l^2 I), the same holds in rescaled weights w_l / s_l:
for every u with sqrt(sum_l ||u_l||^2 / s_l^2) <= eta. That is the relative sigma, where s_l is the root mean square of
weight tensor l; a tensor of zeros gets no noise and must stay as it is (u_l = 0).

An order statistic of N independent draws bounds the right-hand side. Near 1 a quantile loses its digits, so everything
here is computed from the tail 1 - q_shifted.
"""

from __future__ import annotations

import math

from scipy.special import bdtr
from scipy.stats import beta, binom, norm

from pueprotect.errors import InputError

UNLUCKY = 0.1  # see `population_plan`


def check(*, q: float, sigma: float, alpha: float, draws: int, eta: float = 0.0) -> None:
    """Refuse values outside the range for which the bound is stated.

    Raises:
        InputError: names the value and its range.
    """
    if not 0 < q < 1:
        raise InputError(f"--q {q:g} is not inside (0, 1): it is the share of classifiers that the bound covers.")
    if not (0 < sigma < math.inf):
        raise InputError(f"--sigma {sigma:g} is not a positive number: it is the spread of the weight noise.")
    if not 0 < alpha < 0.5:
        raise InputError(f"--alpha {alpha:g} is not inside (0, 0.5): it is the failure probability of the bound.")
    if draws < 1:
        raise InputError(f"--draws {draws} is below 1: the bound needs at least one classifier.")
    if not (0 <= eta < math.inf):
        raise InputError(f"--eta {eta:g} is not a number >= 0: it is the radius of the certified weight ball.")


def spent(alpha: float, look: int) -> float:
    """The failure probability of the `look`-th certification of one release, so that all together have `alpha`.

    alpha / (j (j + 1)) adds up to at most alpha over j = 1, 2, ..., however many follow. Number 0 stands for a bound
    that is computed only once, whatever it says: it gets all of alpha.
    """
    return alpha / (look * (look + 1)) if look else alpha


def shifted_tail(q: float, eta: float, sigma: float) -> float:
    """1 - q_shifted in (0, 1), exact to float precision however small."""
    return float(norm.sf(norm.ppf(q) + eta / sigma))


def shifted_quantile(q: float, eta: float, sigma: float) -> float:
    """q_shifted in (0, 1]; rounds to 1 near eta / sigma = 7, where `shifted_tail` still has its digits."""
    return float(norm.cdf(norm.ppf(q) + eta / sigma))


def order_statistic_rank(draws: int, tail: float, alpha: float) -> int | None:
    """The 1-based rank of the order statistic that bounds the (1 - tail)-quantile from above.

    X_(k), the k-th smallest of `draws` independent values, is at least the quantile with probability >= 1 - alpha. k is
    the smallest rank with BinomCDF(k - 1; draws, 1 - tail) >= 1 - alpha. This holds for any distribution; ties make it
    more conservative. None abstains: even the maximum is not enough.
    """
    # With j = draws - k the condition reads BinomCDF(j; draws, tail) <= alpha: take the largest such j.
    above = int(binom.ppf(alpha, draws, tail))
    while above >= 0 and bdtr(above, draws, tail) > alpha:
        above -= 1
    while above + 1 < draws and bdtr(above + 1, draws, tail) <= alpha:
        above += 1
    return draws - above if above >= 0 else None


def draws_needed(tail: float, alpha: float) -> int | None:
    """The smallest number of draws that does not abstain; None when it has no finite float value."""
    per_draw = math.log1p(-tail) if tail > 0 else 0.0
    return math.ceil(math.log(alpha) / per_draw) if per_draw < 0 else None


def largest_eta(q: float, sigma: float, draws: int, alpha: float) -> float | None:
    """The largest radius that `draws` can certify; None when they abstain even at radius 0."""
    smallest_tail = -math.expm1(math.log(alpha) / draws)
    eta = sigma * float(norm.isf(smallest_tail) - norm.ppf(q))
    return eta if eta >= 0 else None


def population_plan(tail: float, alpha: float, candidates: int = 1) -> tuple[float, float, float]:
    """How to bound accuracy on the distribution of the test images instead of on these images alone.

    The test images are one sample, shared by all draws, so the chance error must be covered for the draws together.
    Splitting alpha over N draws (a union bound) would grow with N. This needs no N: call a draw unlucky when its count
    lies below what its population accuracy makes likely, an event of probability at most b for each draw. By Markov's
    inequality, except with probability alpha / 2 over the test images, at most a share b / (alpha / 2) of the draws
    whose population accuracy reaches the wanted quantile is unlucky, and with b = UNLUCKY * alpha / 2 that is UNLUCKY.
    So the quantile is taken with the tail (1 - UNLUCKY) * tail, at confidence 1 - alpha / 2, and the order statistic's
    count is raised to its Clopper-Pearson limit at b.

    The price is up to sqrt(log(2 / (UNLUCKY * alpha)) / (2 * images)) of accuracy (at alpha 0.01: 6 points for 1,000
    images, 2 for 10,000), and slightly more draws for the same radius. It assumes test images drawn independently from
    the distribution, and surrogates made without them, or chosen among `candidates` networks that were.

    Every network that could have been chosen on the test images is a candidate: recipes, the networks that early
    stopping measures, each sigma of a search, the attempts of the self-check. Choosing on one half of the images and
    certifying on the other would need no count, but a half has the larger chance error. At accuracy 0.3 and alpha 0.005
    the usual 30 candidates cost 1.3 points for 1,000 images and 2.9 for 200, and a half costs 2.3 and 5.4; 128 times as
    many, with a search for sigma, cost 2.8 and 6.4.

    `tail` is 1 - q_shifted, and `alpha` the failure probability of the whole bound, over test images and draws. The
    result is the tail for the order statistic, its alpha, and the alpha of `upper_limit`.
    """
    return tail * (1 - UNLUCKY), alpha / 2, UNLUCKY * alpha / 2 / candidates


def upper_limit(count: int, images: int, alpha: float) -> float:
    """The one-sided Clopper-Pearson limit: the largest accuracy at which `count` or fewer is no rarer than alpha."""
    return 1.0 if count >= images else float(beta.isf(alpha, count + 1, images - count))
