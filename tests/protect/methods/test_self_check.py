import pytest
from helpers import random_images

from pueprotect.protect.methods import self_check as module
from pueprotect.protect.methods.self_check import SELF_CHECK_MARGIN, self_check


def test_self_check_passes_within_the_margin_only(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_images()
    check, _ = self_check(data, data, "resnet8", epochs=1, seed=0)
    assert check.chance == pytest.approx(1 / 3)
    assert check.limit == pytest.approx(1 / 3 + SELF_CHECK_MARGIN * 2 / 3)
    assert check.passed == (check.accuracy <= check.limit)
    monkeypatch.setattr(module, "accuracy", lambda *_: check.limit)
    assert self_check(data, data, "resnet8", epochs=1, seed=0)[0].passed
    monkeypatch.setattr(module, "accuracy", lambda *_: check.limit + 0.01)
    assert not self_check(data, data, "resnet8", epochs=1, seed=0)[0].passed
