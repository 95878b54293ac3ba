from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pueprotect.cli.parsing import fraction, gate, numbers
from pueprotect.errors import InputError


@given(st.integers(-1000, 1000), st.integers(1, 1000))
def test_fractions_and_decimals_are_read(top: int, bottom: int) -> None:
    assert fraction(f"{top}/{bottom}", "--epsilon") == pytest.approx(float(Fraction(top, bottom)))
    assert fraction(f" {top / bottom!r} ", "--epsilon") == top / bottom


@pytest.mark.parametrize("text", ["", "eight", "8/", "/255", "8/0", "8/255/2", "1,5"])
def test_text_that_is_not_a_number_is_refused_with_its_option(text: str) -> None:
    with pytest.raises(InputError) as caught:
        fraction(text, "--epsilon")
    assert f"--epsilon {text!r}" in str(caught.value)


@given(st.lists(st.floats(0, 100), min_size=1))
def test_lists_are_sorted_and_without_repeats(values: list[float]) -> None:
    found = numbers(", ".join(map(repr, values)) + ",", "--eta")
    assert list(found) == sorted(set(values))


@pytest.mark.parametrize(
    ("text", "part"), [("0.1,wide", "'0.1,wide' is not a list"), (" , ", "is empty"), ("", "empty")]
)
def test_lists_of_anything_else_are_refused(text: str, part: str) -> None:
    with pytest.raises(InputError, match=f"--eta.*{part}"):
        numbers(text, "--eta")


@pytest.mark.parametrize(("value", "fine"), [(None, True), (0.0, True), (1.0, True), (1.01, False), (-0.1, False),
                                             (float("nan"), False)])  # fmt: skip
def test_a_gate_is_between_0_and_1(value: float | None, fine: bool) -> None:
    if fine:
        gate(value, "--max-accuracy")
    else:
        with pytest.raises(InputError, match="--max-accuracy"):
            gate(value, "--max-accuracy")
