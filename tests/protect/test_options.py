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
