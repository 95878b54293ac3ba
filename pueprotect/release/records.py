"""Defines the JSON records that commands write into a vault, print with --json and read back.

Models allow further keys: the contract grows by adding. No torch.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class Record(BaseModel):
    """Anything written as JSON; more keys may be added."""

    # One run of a command uses few of these models: each is built when it is first used.
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json", by_alias=True)


class ManifestRow(BaseModel):
    """One released image.

    Attributes:
        path: POSIX path below the released folder; `source_path` is below the source folder.
        class_name: its label; `class` in JSON.
        split: the surrogate and the noise were fitted on `train`; the originals of `holdout` measure the result.
        source_sha256: lower-case hex digest of the original file; `released_sha256` is of the released file.
        linf: largest difference in levels (0..255), if measured; likewise `psnr` in dB and `ssim`, at most 1.
    """

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True, defer_build=True)

    path: str
    class_name: str = Field(validation_alias="class", serialization_alias="class")
    split: Literal["train", "holdout"]
    source_path: str
    source_sha256: str
    released_sha256: str
    linf: int | None = None
    psnr: float | None = None
    ssim: float | None = None


class Realised(Record):
    """How far the release is from the originals, as read back: levels of 0..255, mean dB and mean SSIM."""

    linf_max: int
    psnr_mean: float
    ssim_mean: float


class Changed(Record):
    """How far one released file is from its original."""

    path: str
    linf: int | None
    psnr: float | None
    ssim: float | None


class Surrogate(Record):
    """The network of the optimisation, or of the self-check where nothing is optimised."""

    name: str
    size: int
    parameters: int
    train_accuracy_protected: Share


class SelfCheck(Record):
    """What a fresh network learnt from the released files, before they were published.

    Attributes:
        limit: the accuracy that passes: near chance, and at most half way to `clean_accuracy`.
        attempts: the accuracies of all checks.
        networks: what each network of the last check learnt; the best one counts.
        clean_accuracy: what the same training gives on the originals; None where it was not measured.
    """

    arch: str
    epochs: float
    accuracy: Share
    chance: Share
    limit: Share
    passed: bool
    attempts: list[Share] = []
    clean_accuracy: Share | None = None
    networks: list[Share] = []


class NoiseFacts(Record):
    """Facts about the noise in a draft.

    Attributes:
        rounds: passes of the optimisation so far.
        clean_accuracy: what a network learns from the originals; None until it was measured.
        surrogate: None until a check.
        checks: of the files written with the key `written`.
    """

    rounds: int = 0
    clean_accuracy: Share | None = None
    surrogate: Surrogate | None = None
    checks: list[SelfCheck] = []
    written: str | None = None


class LeftOut(Record):
    """A picture that is not in the release, and the reason."""

    path: str
    reason: str


class Protect(Record):
    """Output of `pueprotect protect --json`; figures of a release that was refused are null."""

    schema_version: Literal[1] = 1
    images: int
    classes: int
    class_counts: dict[str, int] = {}
    train_images: int
    holdout_images: int
    method: str
    mode: str
    epsilon: Share
    rounds: int = 0
    realised: Realised | None = None
    surrogate: Surrogate
    self_check: SelfCheck
    seconds: dict[str, float]
    vault: str
    data_digest: Digest | None = None
    skipped: list[LeftOut] = []
    file_growth: float | None = None
    jpeg: dict[str, int | float] | None = None
    worst: list[Changed] = []


class RunRecord(Record):
    """`run.json` of a vault: the result of `protect`, and all that is needed to repeat it."""

    schema_version: Literal[1]
    settings: dict[str, Any]
    seed: int
    environment: dict[str, str]
    classes: list[str]
    split: dict[str, float]
    timings: dict[str, float]
    manifest_sha256: str
    data_digest: Digest


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


class TestOverlap(Record):
    """Test images that nearly equal a training image: how many, and the first pairs of (test, training) paths."""

    __test__ = False  # no test class for pytest

    images: int
    first: list[tuple[str, str]]


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


class EvidenceKey(Record):
    """The files and test images that a piece of evidence is for."""

    data_digest: Digest
    test_digest: Digest


class AttackKey(EvidenceKey):
    """An attack and all that its result depends on; `clean-line` is plain training on the clean originals."""

    attack: str
    arch: str
    epochs: float
    seed: int


class AttackResult(Record):
    """Clean test accuracies of one run of one attack.

    Attributes:
        attack: registered name; `arch` is the attacker's architecture.
        accuracy: at the end of training; null where training failed.
        best_accuracy: the best over epochs and candidates, which an attacker with clean validation images would pick.
        epochs: requested passes over the data; `seconds` is the wall time.
        flags: reasons to doubt the figure.
        details: further findings: `train_accuracy` on its own training images without augmentation; `epoch_accuracy`;
            `points`: name -> accuracy of observed networks.
    """

    attack: str
    arch: str
    accuracy: Share | None
    best_accuracy: Share | None
    epochs: float
    seconds: float
    flags: tuple[str, ...] = ()
    details: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Whether training ended without a figure."""
        return self.accuracy is None


class AuditRecord(Record):
    """`audit/<attack>-<arch>.json` of a vault."""

    key: AttackKey
    result: AttackResult
    chance: Share | None = None
    test_images: int | None = None


class Spread(Record):
    """Accuracies over several seeds: all of them, standard deviation, lowest and highest."""

    accuracies: list[Share]
    sd: float
    lowest: Share
    highest: Share


class AuditRow(AttackResult):
    """One attack with one network over all seeds, next to the clean line of the network.

    Accuracies are means over the seeds and `seconds` their sum; `details` are the first seed's, but for the mean
    `train_accuracy`.

    Attributes:
        recovered: (accuracy - chance) / (clean accuracy - chance) within [0, 1]; null where unknown.
        clean_accuracy_same_filter: accuracy of training on clean images behind the attack's filter, where measured.
        held_out: whether the attacker trained on the held-out files and was measured on the originals of the others.
        chance: the accuracy of the constant answer on those originals; None for the audit's.
    """

    recovered: Share | None = None
    clean_accuracy_same_filter: Share | None = None
    seeds: Spread | None = None
    held_out: bool = False
    chance: Share | None = None

    @classmethod
    def over(cls, results: Sequence[AttackResult], recovered: float | None = None, flags: Sequence[str] = ()) -> Self:
        """The row of one run for each seed, at least one; `flags` are added to those of the runs."""
        first, complete = results[0], not any(result.failed for result in results)
        found = [result.accuracy or 0.0 for result in results]
        best = [result.best_accuracy or 0.0 for result in results]
        filtered = [result.details.get("points", {}).get(CLEAN_BEHIND_IT) for result in results]
        spread = None
        if complete and len(found) > 1:
            spread = Spread(accuracies=found, sd=statistics.stdev(found), lowest=min(found), highest=max(found))
        own = [flag for result in results for flag in result.flags]
        fits = [fit for result in results if (fit := result.details.get("train_accuracy")) is not None]
        fitted = {"train_accuracy": statistics.mean(fits)} if fits else {}
        return cls(
            attack=first.attack, arch=first.arch, epochs=first.epochs, details=first.details | fitted,
            recovered=recovered,
            accuracy=statistics.mean(found) if complete else None,
            best_accuracy=statistics.mean(best) if complete else None,
            seconds=sum(result.seconds for result in results), flags=tuple(dict.fromkeys((*own, *flags))),
            clean_accuracy_same_filter=statistics.mean(filtered) if complete and None not in filtered else None,
            seeds=spread,
        )  # fmt: skip


class AuditWorst(Record):
    """The attack with the highest accuracy at the end of its training; null when all failed."""

    attack: str | None = None
    arch: str | None = None
    accuracy: Share | None = None
    recovered: Share | None = None


class Audit(Record):
    """Output of `pueprotect audit --json`.

    Attributes:
        chance: accuracy of always answering the most frequent class.
        clean_accuracy: of the first network's clean line.
        clean_lines: plain training on the clean originals, by network.
        held_out_lines: the same for attacks with `held_out`: trained on the originals of the held-out files.
        attacked_images: released files that the attackers train on, but for `held_out`; `attacked_share` is their
            share of all released files.
        results: sorted by recovered share, or by accuracy where that is unknown; failed attacks last.
        complete: whether every attack has a figure; otherwise the audit is inconclusive.
        skipped: attacks of the suite whose requirements are not met here.
        flags: reasons to doubt the whole audit.
        test_overlap: test images that nearly equal training images, if there are any.
    """

    schema_version: Literal[1] = 1
    suite: str | None
    chance: Share
    clean_accuracy: Share | None
    clean_lines: dict[str, AuditRow] = {}
    held_out_lines: dict[str, AuditRow] = {}
    attacked_images: int | None = None
    attacked_share: Share | None = None
    results: list[AuditRow]
    worst: AuditWorst
    complete: bool = True
    skipped: list[str] = []
    flags: list[str]
    data_digest: Digest
    test_overlap: TestOverlap | None = None

    @property
    def worst_row(self) -> AuditRow | None:
        """The row that `worst` names."""
        wanted = self.worst.attack, self.worst.arch
        return next((row for row in self.results if (row.attack, row.arch) == wanted), None)

    def clean_line(self, row: AuditRow) -> AuditRow | None:
        """The clean line that a row is compared with."""
        return (self.held_out_lines if row.held_out else self.clean_lines).get(row.arch)


# Names of points in `details` that other modules look up.
CLEAN_BEHIND_IT = "clean images behind the same filter"
AS_THEY_ARE = "test images as they are"
CLEAN_SHARE_ALONE = "clean share alone"
PST_ALARM = 1.5  # the quotient above which PST raises its alarm
CLEAN_LINE = "clean-line"  # the attack name under which plain training on the originals is recorded
