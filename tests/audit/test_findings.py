from typing import Any

import pytest

from pueprotect.audit.findings import Gates, by_seed, clean_row, in_order, judge, recovered_share, verdict, worst_of
from pueprotect.release.audits import AttackResult, AuditRow, AuditWorst


def result(
    accuracy: float | None, attack: str = "standard", flags: tuple[str, ...] = (), **details: Any
) -> AttackResult:
    return AttackResult(
        attack=attack,
        arch="resnet8",
        accuracy=accuracy,
        best_accuracy=None if accuracy is None else accuracy + 0.01,
        epochs=15,
        seconds=2.0,
        flags=flags,
        details=details,
    )


def line(accuracy: float, **details: Any) -> AuditRow:
    return clean_row((result(accuracy, **details),), 0.1)


@pytest.mark.parametrize(
    ("accuracy", "clean", "recovered"),
    [(0.1, 0.6, 0.0), (0.6, 0.6, 1.0), (0.35, 0.6, 0.5), (0.05, 0.6, 0.0), (0.7, 0.6, 1.0)],
)
def test_recovered_share(accuracy: float, clean: float, recovered: float) -> None:
    assert judge((result(accuracy),), line(clean), 0.1).recovered == pytest.approx(recovered)


def test_recovered_is_unknown_without_a_clean_line_above_chance() -> None:
    assert judge((result(0.3),), None, 0.1).recovered is None
    assert judge((result(0.3),), line(0.1), 0.1).recovered is None


def test_constant_predictions_below_chance_are_flagged() -> None:
    assert judge((result(0.05),), line(0.6), 0.1).flags == ("below-chance",)
    assert judge((result(0.1),), line(0.6), 0.1).flags == ()


def test_an_attack_that_did_not_fit_is_flagged() -> None:
    clean = line(0.6, train_accuracy=0.7)
    assert judge((result(0.3, train_accuracy=0.2),), clean, 0.1).flags == ("under-trained",)
    assert judge((result(0.3, train_accuracy=0.9),), clean, 0.1).flags == ()


def test_an_attack_must_fit_as_far_as_the_clean_line_did() -> None:
    """Training accuracy of 40 % is enough next to a clean line with 50 %, and too little where that is unknown."""
    run = (result(0.3, train_accuracy=0.4),)
    assert judge(run, line(0.6, train_accuracy=0.5), 0.1).flags == ()
    assert judge(run, None, 0.1).flags == ("under-trained",)


def test_the_clean_line_recovers_all_unless_it_is_at_chance() -> None:
    assert line(0.6).recovered == 1.0
    assert line(0.1).recovered is None


def test_the_clean_line_is_flagged_when_weak_or_cut_short() -> None:
    assert line(0.2).flags == ("weak-clean-line",)
    assert line(0.6, train_accuracy=0.3).flags == ("clean-line-not-converged",)
    assert line(0.6, epoch_accuracy=[0.3, 0.4, 0.5, 0.6]).flags == ("clean-line-not-converged",)
    assert line(0.6, epoch_accuracy=[0.3, 0.59, 0.6], train_accuracy=0.8).flags == ()


def test_seeds_are_averaged_and_their_spread_is_shown() -> None:
    runs = tuple(result(value) for value in (0.2, 0.3, 0.4))
    row = judge(runs, line(0.6), 0.1)
    assert row.accuracy == pytest.approx(0.3)
    assert row.recovered == pytest.approx(0.4)
    assert row.best_accuracy == pytest.approx(0.31)
    data = row.as_json()
    assert data["seeds"] == {
        "accuracies": [0.2, 0.3, 0.4], "sd": pytest.approx(0.1), "lowest": 0.2, "highest": 0.4,
    }  # fmt: skip
    assert data["seconds"] == 6.0
    assert judge((result(0.2),), line(0.6), 0.1).as_json()["seeds"] is None


def test_flags_look_at_every_seed() -> None:
    """The second seed alone did not fit, or was cut short."""
    fitted, unfitted = (result(0.3, train_accuracy=fit) for fit in (0.9, 0.2))
    assert judge((fitted, unfitted), line(0.6, train_accuracy=0.7), 0.1).flags == ("under-trained",)
    assert judge((fitted, fitted), line(0.6, train_accuracy=0.7), 0.1).flags == ()
    rising = result(0.6, epoch_accuracy=[0.3, 0.4, 0.5, 0.6])
    assert clean_row((result(0.6, epoch_accuracy=[0.3, 0.59, 0.6]), rising), 0.1).flags == ("clean-line-not-converged",)
    row = clean_row((result(0.6, train_accuracy=0.7), result(0.6, train_accuracy=0.9)), 0.1)
    assert row.details["train_accuracy"] == pytest.approx(0.8)


def test_a_gate_within_the_spread_of_the_seeds_is_flagged() -> None:
    runs = tuple(result(value) for value in (0.2, 0.3, 0.4))
    assert judge(runs, line(0.6), 0.1, Gates(accuracy=0.35)).flags == ("seed-spread",)
    assert judge(runs, line(0.6), 0.1, Gates(accuracy=0.45)).flags == ()
    assert judge(runs, line(0.6), 0.1, Gates(recovered=0.5)).flags == ("seed-spread",)
    assert judge(runs, line(0.6), 0.1, Gates(recovered=0.7)).flags == ()


@pytest.mark.parametrize("flag", ["diverged", "failed"])
def test_a_failed_attack_has_no_figure(flag: str) -> None:
    failed = judge((result(0.5), result(None, flags=(flag,))), line(0.6), 0.1)
    assert (failed.failed, failed.accuracy, failed.best_accuracy, failed.recovered) == (True, None, None, None)
    data = failed.as_json()
    assert data["accuracy"] is data["best_accuracy"] is data["recovered"] is None
    assert data["flags"] == [flag]
    sound = judge((result(0.2),), line(0.6), 0.1)
    assert worst_of((sound, failed)).accuracy == 0.2
    assert worst_of((failed,)) == AuditWorst()
    assert worst_of((failed,)).as_json() == {"attack": None, "arch": None, "accuracy": None, "recovered": None}
    assert clean_row((result(None, flags=(flag,)),), 0.1).failed


def test_the_worst_case_is_the_most_accurate_attack() -> None:
    rows = tuple(judge((result(a, name),), line(0.6), 0.1) for name, a in (("a", 0.2), ("b", 0.4), ("c", 0.3)))
    worst = worst_of(rows)
    assert worst.as_json() == {
        "attack": "b", "arch": "resnet8", "accuracy": 0.4, "recovered": pytest.approx(0.6)
    }  # fmt: skip


def test_the_most_damaging_attack_comes_first_and_failed_ones_last() -> None:
    clean = line(0.6)
    rows = [judge((result(value, name),), clean, 0.1) for name, value in (("a", 0.2), ("b", None), ("c", 0.5))]
    assert [row.attack for row in in_order(rows)] == ["c", "a", "b"]


def test_attacks_are_ordered_by_what_they_recover_on_their_network() -> None:
    """The second attack is less accurate, but its clean line is lower still."""
    rows = [judge((result(0.5, "a"),), line(0.9), 0.1), judge((result(0.4, "b"),), line(0.5), 0.1)]
    assert [row.attack for row in in_order(rows)] == ["b", "a"]


def test_attacks_are_ordered_by_accuracy_without_a_clean_line() -> None:
    rows = [judge((result(value, name),), None, 0.1) for name, value in (("none", 0.0), ("some", 0.3))]
    assert [row.attack for row in in_order(rows)] == ["some", "none"]


def test_the_verdict_leaves_out_what_is_unknown() -> None:
    text = verdict(judge((result(0.3, "pst"),), None, 0.1), None, 0.1, "warps the images")
    assert text == (
        "Worst case: pst with resnet8 reaches 30.0% (chance 10.0%). It warps the images. Other attackers may do better."
    )


def test_the_verdict_says_how_many_seeds_it_averages() -> None:
    worst = judge((result(0.2, "pst"), result(0.4, "pst")), None, 0.1)
    assert "reaches 30.0%, mean of 2 seeds (chance 10.0%)" in verdict(worst, None, 0.1, "warps the images")


def test_the_verdict_fits_two_lines_and_names_what_was_measured() -> None:
    worst = judge((result(0.74, "class-mean"),), clean_row((result(0.78),), 0.2), 0.2)
    text = verdict(worst, 0.78, 0.2, "removes the fine detail of each class's average image")
    assert text.startswith(
        "Worst case: class-mean with resnet8 reaches 74.0% (chance 20.0%, clean originals 78.0%), so 93%"
    )
    assert "It removes the fine detail" in text
    assert len(text) < 3 * 80
    assert "shows nothing" in verdict(None, None, 0.2, "")


def test_a_gate_sees_each_seed_of_a_row() -> None:
    """The mean of a lucky and an unlucky seed passes limits that the unlucky one does not."""
    clean = clean_row([result(0.8), result(0.6)], 0.1)
    row = judge([result(0.2), result(0.5)], clean, 0.1)
    assert row.accuracy == 0.35
    rows = by_seed(row, clean, 0.1)
    assert [found.accuracy for found in rows] == [0.2, 0.5]
    assert [found.recovered for found in rows] == [recovered_share(found, 0.1, clean.accuracy) for found in (0.2, 0.5)]
    assert [found.recovered for found in by_seed(row, None, 0.1)] == [None, None]
    alone = judge([result(0.2)], clean, 0.1)
    assert by_seed(alone, clean, 0.1) == [alone]
