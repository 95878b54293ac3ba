import dataclasses

import pytest
from helpers import random_images

from pueprotect.protect.methods.self_check import SELF_CHECK_MARGIN, self_check


def test_self_check_passes_within_the_margin_only() -> None:
    data = random_images()
    check = self_check(data, data, "resnet8", epochs=1, seed=0)
    assert check.chance == pytest.approx(1 / 3)
    assert check.limit == pytest.approx(1 / 3 + SELF_CHECK_MARGIN * 2 / 3)
    assert dataclasses.replace(check, accuracy=check.limit).passed
    assert not dataclasses.replace(check, accuracy=check.limit + 0.01).passed
