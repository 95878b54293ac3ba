import dataclasses

import pytest
import torch

from pueprotect.attacks.base import AttackResult
from pueprotect.audit import AuditReport, Settings, clean_share, default_epochs
from pueprotect.audit import _judge as judge
from pueprotect.errors import InputError
from pueprotect.training import ImageSet


def result(accuracy: float, attack: str = "standard") -> AttackResult:
    return AttackResult(attack, "resnet8", accuracy, accuracy, 15, 1.0, (), {})


@pytest.mark.parametrize(
    ("accuracy", "clean", "recovered"),
    [(0.1, 0.6, 0.0), (0.6, 0.6, 1.0), (0.35, 0.6, 0.5), (0.05, 0.6, 0.0), (0.7, 0.6, 1.0)],
)
def test_recovered_share(accuracy: float, clean: float, recovered: float) -> None:
    assert judge(result(accuracy), result(clean), 0.1).recovered == pytest.approx(recovered)


def test_recovered_is_unknown_without_a_clean_line_above_chance() -> None:
    assert judge(result(0.3), None, 0.1).recovered is None
    assert judge(result(0.3), result(0.1), 0.1).recovered is None


def test_constant_predictions_below_chance_are_flagged() -> None:
    assert judge(result(0.05), result(0.6), 0.1).flags == ("below-chance",)
    assert judge(result(0.1), result(0.6), 0.1).flags == ()


def test_the_worst_case_is_the_most_accurate_attack() -> None:
    rows = tuple(judge(result(a, name), result(0.6), 0.1) for name, a in (("a", 0.2), ("b", 0.4), ("c", 0.3)))
    report = AuditReport(None, 0.1, {"resnet8": result(0.6)}, rows, (), "sha256:0")
    assert report.worst.result.attack == "b"
    data = report.as_json()
    assert data["worst"] == {"attack": "b", "arch": "resnet8", "accuracy": 0.4, "recovered": pytest.approx(0.6)}
    assert data["clean_accuracy"] == 0.6


def test_clean_share_is_stratified_and_a_part_of_the_originals() -> None:
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 3)
    images = torch.arange(63).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).to(torch.uint8)
    share = clean_share(ImageSet(images, labels, 3), 0.2, 0)
    assert share is not None
    assert torch.bincount(share.labels).tolist() == [10, 2, 1]
    numbers = share.images[:, 0, 0, 0].long()  # each image holds its own index
    assert torch.equal(labels[numbers], share.labels)
    assert clean_share(None, 0.2, 0) is None


def test_small_sets_are_trained_longer_but_not_for_ever() -> None:
    assert [default_epochs(images) for images in (100, 2500, 5000, 50_000)] == [60, 30, 15, 15]


@pytest.mark.parametrize(
    "wrong",
    [
        {"attacks": ("nonsense",)},
        {"epochs": 0},
        {"clean_fraction": 1.0},
        {"etas": (0.0,)},
        {"etas": (float("inf"),)},
    ],
)
def test_out_of_range(wrong: dict[str, object]) -> None:
    good = Settings(attacks=("standard",), suite=None, archs=("resnet8",))
    with pytest.raises(InputError):
        dataclasses.replace(good, **wrong)  # type: ignore[arg-type]
