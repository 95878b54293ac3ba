"""Defines what `certify` records: `certificate.json` of a vault. No torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pueprotect.release.records import Digest, Record, Share, TestOverlap


class Point(Record):
    """The bound at one radius.

    Attributes:
        eta: L2 radius of the weight ball.
        q_shifted: the quantile that the draws must bound, in (0, 1].
        rank: of the order statistic, 1-based; None where the certificate abstains.
        certified_learnability: accuracy on the given test images, in [0, 1]; None where it abstains.
        draws_needed: the smallest number of draws that does not abstain; where this one abstains, in the next look.
        population: the bound for the distribution of the test images (`bounds.population_plan`), None likewise.
    """

    eta: Annotated[float, Field(ge=0)]
    q_shifted: Share
    rank: int | None
    certified_learnability: Share | None
    draws_needed: int | None
    population: Share | None = None


class Histogram(Record):
    """How many draws fall into each of equal bins of accuracy from 0 to 1."""

    edges: list[float]
    draws: list[int]


class NoisyAccuracy(Record):
    """Clean accuracy of the classifiers drawn around a surrogate; `quantile` is the q-quantile."""

    mean: Share
    median: Share
    max: Share
    quantile: Share | None = None
    histogram: Histogram | None = None


class RecipeFigures(Record):
    """The bounds around one surrogate.

    Attributes:
        surrogate_clean_accuracy: its own accuracy on the clean images, without weight noise.
        surrogate_fit: its accuracy on (a sample of) its training images.
        unanswered: answers lost to logits that were not finite, over all draws.
        screened: whether these are the few draws that chose among recipes; they certify nothing.
        parameters: number of weights; the dimension of the ball.
        weights_norm: L2 norm of all weights of the surrogate.
        draw_distance: L2 distance from the surrogate of a typical draw (root mean square).
    """

    recipe: str
    draws: int = 0
    surrogate_clean_accuracy: Share
    surrogate_fit: Share | None = None
    noisy_accuracy: NoisyAccuracy
    unanswered: int = 0
    curve: list[Point]
    screened: bool | None = None
    parameters: int | None = None
    weights_norm: float | None = None
    draw_distance: float | None = None

    def at(self, eta: float | None) -> Point | None:
        """The point of the smallest radius that is at least `eta`, as a larger ball contains a smaller one.

        None asks for the largest radius.
        """
        ordered = sorted(self.curve, key=lambda point: point.eta)
        if eta is None:
            return ordered[-1] if ordered else None
        return next((point for point in ordered if point.eta >= eta - 1e-12), None)


class Stress(Record):
    """The empirical cross-check of a bound.

    Attributes:
        eta: radius of the centres: the largest certified one; `bound` is the certified learnability there.
        draws: around each centre.
        above: centre -> how many of its draws exceed the bound; on average at most a share 1 - q.
        limit: more than this many contradict the certificate (one-sided, 0.001 over all centres together).
        recovery_distance: how far the recovery attack went within eta, in L2; null where it was left out.
    """

    eta: float
    bound: Share
    draws: int
    above: dict[str, int]
    limit: int
    recovery_distance: float | None = None


class Certificate(RecipeFigures):
    """`certificate.json` of a vault and output of `pueprotect certify --json`.

    The figures at the top level are those of the most learnable surrogate. `recipes` holds all surrogates and
    `baseline` the same recipe on the clean originals. What older certificates lack is null.

    Attributes:
        alpha: failure probability of all looks at these released bytes together; `alpha_each` that of one radius in
            this look, and `alpha_spent` the sum over all recorded looks.
        surrogate_recipe: the value of --surrogate-recipe: `worst` or one recipe.
        epochs: passes of each surrogate's training.
        looks: how many certifications of these released bytes were recorded, this one included.
        test_overlap: test images that nearly equal training images, if there are any.
        look: which of them this one is, from 1. A repeat with the same settings keeps its number.
        relative: whether sigma and eta are in root mean squares of each weight tensor (see `certify.certificate`), or
            absolute L2 lengths.
        recovery_distance: how far the recovery attack moved weights in L2: in the cross-check, else the largest that
            the audit has recorded for these files.
    """

    schema_version: Literal[1] = 1
    q: Share
    sigma: float
    alpha: Share
    alpha_each: Share | None = None
    joint: bool
    seed: int = 0
    precision: str = "fp32"
    holdout_images: int
    classes: int
    chance: Share
    max_eta: float | None
    recipes: dict[str, RecipeFigures]
    baseline: RecipeFigures | None
    stress: Stress | None = None
    batch_norm: str = ""
    flags: list[str]
    seconds: float
    data_digest: Digest
    surrogate_recipe: str | None = None
    epochs: float | None = None
    looks: int | None = None
    test_overlap: TestOverlap | None = None
    look: int | None = None
    alpha_spent: float | None = None
    relative: bool = False
    recovery_distance: float | None = None
