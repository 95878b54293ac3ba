import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pueprotect.errors import InputError
from pueprotect.images.holdout import stratified_holdout


@given(st.lists(st.integers(2, 40), min_size=1, max_size=5), st.floats(0.01, 0.99), st.integers(0, 9))
def test_holdout_takes_its_share_of_every_class(counts, share, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    held = stratified_holdout(labels, share, seed)
    assert np.array_equal(held, stratified_holdout(labels, share, seed))
    for label, count in enumerate(counts):
        taken = held[labels == label].sum()
        assert 1 <= taken <= count - 1
        assert count - taken >= min(2, count - 1)
        if 1 <= share * count <= count - 2:
            assert abs(taken - share * count) <= 0.5


def test_holdout_depends_on_the_seed_and_not_on_other_classes():
    labels = np.repeat([0, 1], [40, 40])
    first = stratified_holdout(labels, 0.25, 0)
    assert first.sum() == 20
    assert not np.array_equal(first, stratified_holdout(labels, 0.25, 1))
    assert np.array_equal(first[:40], stratified_holdout(np.repeat([0, 1], [40, 7]), 0.25, 0)[:40])
    assert not np.array_equal(first[:40], first[40:])


def test_holdout_refuses_shares_and_classes_that_cannot_be_split():
    with pytest.raises(InputError, match="'bee'"):
        stratified_holdout(np.array([0, 0, 1]), 0.2, 0, ["ant", "bee"])
    with pytest.raises(InputError, match="class 1"):
        stratified_holdout(np.array([0, 0, 1]), 0.2, 0)
    for share in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(InputError, match="--holdout"):
            stratified_holdout(np.array([0, 0]), share, 0)
