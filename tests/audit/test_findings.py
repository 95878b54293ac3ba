from dataclasses import replace
from typing import Any

import pytest

from pueprotect.audit.attacks import AttackResult
from pueprotect.audit.findings import AuditReport, Gates, Row, clean_row, judge


def result(accuracy: float, attack: str = "standard", flags: tuple[str, ...] = (), **details: Any) -> AttackResult:
    return AttackResult(attack, "resnet8", accuracy, accuracy + 0.01, 15, 2.0, flags, details)


def line(accuracy: float, **details: Any) -> Row:
    return clean_row((result(accuracy, **details),), 0.1)


def report(rows: tuple[Row, ...], skipped: tuple[str, ...] = ()) -> AuditReport:
    return AuditReport(None, 0.1, {"resnet8": line(0.6)}, rows, skipped, (), "sha256:0")


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
    assert "seeds" not in judge((result(0.2),), line(0.6), 0.1).as_json()


def test_a_gate_within_the_spread_of_the_seeds_is_flagged() -> None:
    runs = tuple(result(value) for value in (0.2, 0.3, 0.4))
    assert judge(runs, line(0.6), 0.1, Gates(accuracy=0.35)).flags == ("seed-spread",)
    assert judge(runs, line(0.6), 0.1, Gates(accuracy=0.45)).flags == ()
    assert judge(runs, line(0.6), 0.1, Gates(recovered=0.5)).flags == ("seed-spread",)
    assert judge(runs, line(0.6), 0.1, Gates(recovered=0.7)).flags == ()


@pytest.mark.parametrize("flag", ["diverged", "failed"])
def test_a_failed_attack_has_no_figure_and_makes_the_audit_incomplete(flag: str) -> None:
    failed = judge((result(0.5), result(0.0, flags=(flag,))), line(0.6), 0.1)
    assert (failed.failed, failed.accuracy, failed.best_accuracy, failed.recovered) == (True, None, None, None)
    data = failed.as_json()
    assert data["accuracy"] is data["best_accuracy"] is data["recovered"] is None
    sound = judge((result(0.2),), line(0.6), 0.1)
    assert not report((sound, failed)).complete
    assert report((sound, failed)).worst is sound
    assert report((failed,)).worst is None
    assert report((failed,)).as_json()["worst"] == {
        "attack": None, "arch": None, "accuracy": None, "recovered": None,
    }  # fmt: skip
    assert report((sound,)).complete
    assert not report((sound,), ("recovery",)).complete
    broken = replace(report((sound,)), clean={"resnet8": clean_row((result(0.6, flags=(flag,)),), 0.1)})
    assert not broken.complete


def test_the_worst_case_is_the_most_accurate_attack() -> None:
    rows = tuple(judge((result(a, name),), line(0.6), 0.1) for name, a in (("a", 0.2), ("b", 0.4), ("c", 0.3)))
    found = report(rows)
    assert found.worst is not None
    assert found.worst.result.attack == "b"
    data = found.as_json()
    assert data["worst"] == {"attack": "b", "arch": "resnet8", "accuracy": 0.4, "recovered": pytest.approx(0.6)}
    assert data["clean_accuracy"] == 0.6
