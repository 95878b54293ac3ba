from typing import Any

import pytest

from pueprotect.release.audits import CLEAN_BEHIND_IT, AttackResult, Audit, AuditRow, AuditWorst


def result(accuracy: float | None, arch: str = "cnn", **details: Any) -> AttackResult:
    return AttackResult(
        attack="iss", arch=arch, accuracy=accuracy, best_accuracy=accuracy, epochs=15, seconds=2.0,
        flags=("diverged",) if accuracy is None else (), details=details,
    )  # fmt: skip


def test_a_row_holds_the_means_over_the_seeds_and_their_spread() -> None:
    runs = [
        result(accuracy, train_accuracy=fit, points={CLEAN_BEHIND_IT: clean}, order=order)
        for order, (accuracy, fit, clean) in enumerate([(0.2, 0.9, 0.5), (0.4, 0.7, 0.6)])
    ]
    row = AuditRow.over(runs, 0.25, ("below-chance", "below-chance"))
    assert row.accuracy == row.best_accuracy == pytest.approx(0.3)
    assert (row.seconds, row.recovered, row.flags) == (4.0, 0.25, ("below-chance",))
    assert row.clean_accuracy_same_filter == pytest.approx(0.55)
    assert row.seeds is not None
    assert (row.seeds.accuracies, row.seeds.lowest, row.seeds.highest) == ([0.2, 0.4], 0.2, 0.4)
    assert row.seeds.sd == pytest.approx(0.02**0.5)
    assert row.details["train_accuracy"] == pytest.approx(0.8)
    assert row.details["order"] == 0


def test_one_failed_seed_leaves_the_row_without_a_figure() -> None:
    row = AuditRow.over([result(0.2), result(None)])
    assert (row.failed, row.flags) == (True, ("diverged",))
    assert row.accuracy is row.best_accuracy is row.seeds is None


def test_one_seed_has_no_spread() -> None:
    row = AuditRow.over([result(0.2)])
    assert (row.accuracy, row.seeds, row.clean_accuracy_same_filter) == (0.2, None, None)


def test_a_row_is_compared_with_the_clean_line_of_its_network_and_its_files() -> None:
    plain, wide, held_out = (AuditRow.over([result(value)]) for value in (0.7, 0.8, 0.6))
    rows = [
        AuditRow.over([result(0.2)]),
        AuditRow.over([result(0.3, "wide")]),
        AuditRow.over([result(0.1)]).model_copy(update={"held_out": True}),
        AuditRow.over([result(0.1, "other")]),
    ]
    audit = Audit(
        suite=None, chance=0.1, clean_accuracy=0.7, clean_lines={"cnn": plain, "wide": wide},
        held_out_lines={"cnn": held_out}, results=rows, worst=AuditWorst(attack="iss", arch="wide"), flags=[],
        data_digest="sha256:" + "0" * 64,
    )  # fmt: skip
    lines = [audit.clean_line(row) for row in rows]
    assert [line and line.accuracy for line in lines] == [0.7, 0.8, 0.6, None]
    assert audit.worst_row is not None
    assert audit.worst_row.arch == "wide"
    assert audit.model_copy(update={"worst": AuditWorst()}).worst_row is None
