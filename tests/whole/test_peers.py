"""Peers' methods: class means betray both."""

import pytest
from helpers import lsp, noise, one_pixel_shortcut

from pueprotect.audit.attacks.linear import WholeClassMean, class_means


@pytest.mark.parametrize("protect", [lsp, one_pixel_shortcut])
def test_subtracting_whole_class_means_takes_both_codes_out(protect: object) -> None:
    coded = protect(noise(400, 32, classes=4))  # type: ignore[operator]
    left = class_means(WholeClassMean().cleaned(coded, 0))
    before = class_means(coded)
    assert float((before - before.mean(0)).abs().amax((1, 2, 3)).min()) > 5
    assert float((left - left.mean(0)).abs().max()) < 1
