from collections.abc import Mapping
from typing import Any

import pytest

from pueprotect.errors import InputError
from pueprotect.protect.options import Options


@pytest.mark.parametrize(
    "wrong", [{"preset": "huge"}, {"size": 7}, {"holdout": 0.0}, {"holdout": float("nan")}, {"workers": -1}], ids=str
)
def test_options_are_checked_where_they_are_made(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(wrong))}"):
        Options(**wrong)


def test_a_limit_below_the_budget_is_refused() -> None:
    with pytest.raises(InputError, match=r"--max-linf 7 is below the budget of 8 levels"):
        Options(epsilon=8, max_linf=7)
    assert Options(epsilon=8, max_linf=8).max_linf == 8
