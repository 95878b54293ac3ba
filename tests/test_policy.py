import pytest
from hypothesis import given
from hypothesis import strategies as st

from pueprotect.policy import FAIL, INCONCLUSIVE, PASS, Verdict, at_most, exit_code


@pytest.mark.parametrize(("observed", "passed"), [(0.3, True), (0.31, False), (0.0, True), (None, None)])
def test_a_figure_may_reach_its_limit_and_not_exceed_it(observed: float | None, passed: bool | None) -> None:
    verdict = at_most("audit.max_accuracy", observed, 0.3, "accuracy of standard")
    assert verdict.passed is passed
    assert (verdict.rule, verdict.observed, verdict.limit) == ("audit.max_accuracy", observed, 0.3)
    assert verdict.reason.startswith("accuracy of standard is ")


@given(st.lists(st.sampled_from([True, False, None])))
def test_a_failure_outweighs_a_missing_figure_and_that_a_pass(outcomes: list[bool | None]) -> None:
    code = exit_code(Verdict("rule", outcome, None, 0.5, "") for outcome in outcomes)
    if any(outcome is False for outcome in outcomes):
        assert code == FAIL == 1
    elif any(outcome is None for outcome in outcomes):
        assert code == INCONCLUSIVE == 3
    else:
        assert code == PASS == 0
