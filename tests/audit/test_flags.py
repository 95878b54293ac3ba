import pytest

from pueprotect.audit import flags
from pueprotect.certify.flags import FLAGS as CERTIFICATE_FLAGS


def test_each_flag_names_a_cause_and_a_remedy() -> None:
    assert set(flags.FLAGS) >= {
        "weak-clean-line", "clean-line-not-converged", "under-trained", "small-test", "test-overlap", "class-imbalance",
        "partly-protected", "below-chance", "seed-spread", "diverged", "failed", "suite-incomplete", "no-clean-line",
    }  # fmt: skip
    for name, flag in [*flags.FLAGS.items(), *CERTIFICATE_FLAGS.items()]:
        assert flag.cause.endswith("."), name
        assert flag.remedy.endswith("."), name
        assert str(flag) == f"{flag.cause} {flag.remedy}"


@pytest.mark.parametrize(("accuracy", "weak"), [(0.27, True), (0.29, False)])
def test_a_clean_line_is_weak_below_a_fifth_of_the_way(accuracy: float, weak: bool) -> None:
    assert flags.weak_clean_line(accuracy, 0.1) is weak


@pytest.mark.parametrize(
    ("epochs", "train", "cut_short"),
    [
        ([0.3, 0.5, 0.58, 0.59, 0.60], 0.7, False),
        ([0.3, 0.4, 0.45, 0.50, 0.56], 0.7, True),
        ([*[0.4] * 16, 0.5, 0.5, 0.55, 0.55], 0.7, True),
        ([*[0.4] * 16, 0.54, 0.54, 0.55, 0.55], 0.7, False),
        ([0.3, 0.5, 0.58, 0.59, 0.60], 0.5, True),
        ([0.6], None, False),
        ([], None, False),
    ],
)
def test_a_training_that_still_improves_is_not_converged(
    epochs: list[float], train: float | None, cut_short: bool
) -> None:
    assert flags.not_converged(epochs, train, 0.1) is cut_short


@pytest.mark.parametrize(
    ("train", "clean", "flagged"),
    [
        (0.9, 0.7, False),
        (0.52, 0.7, False),
        (0.48, 0.7, True),
        (0.5, None, True),
        (0.6, None, False),
        (None, 0.7, False),
    ],
)
def test_an_attack_that_fits_clearly_less_than_the_clean_line(
    train: float | None, clean: float | None, flagged: bool
) -> None:
    assert flags.under_trained(train, clean, 0.1) is flagged


@pytest.mark.parametrize(("counts", "flagged"), [([10, 30], False), ([10, 31], True), ([0, 5], True), ([5, 5], False)])
def test_imbalance(counts: list[int], flagged: bool) -> None:
    assert flags.imbalanced(counts) is flagged


@pytest.mark.parametrize(
    ("values", "limit", "flagged"),
    [([0.3, 0.5], 0.45, True), ([0.3, 0.5], 0.7, False), ([0.4], 0.4, False), ([0.3, 0.5], None, False)],
)
def test_spread_over_seeds_against_the_gate(values: list[float], limit: float | None, flagged: bool) -> None:
    assert flags.spread_exceeds_margin(values, limit) is flagged
