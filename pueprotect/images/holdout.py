"""Chooses the held-out images, which no training may see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pueprotect.errors import InputError
from pueprotect.runtime import child_seed


def stratified_holdout(
    labels: npt.NDArray[np.int64], share: float, seed: int, classes: Sequence[str] = ()
) -> npt.NDArray[np.bool_]:
    """Mark `share` of each class as held out: at least one image, and two stay if the class has three.

    The choice within a class depends on (`seed`, class index, class size) alone. `labels` are (N,) int64 class
    indices; `classes` gives names for error messages.

    Returns:
        (N,) bool, true where held out.

    Raises:
        InputError: `share` is not in (0, 1) or a class has fewer than two images.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"--holdout {share:g} is not between 0 and 1, both excluded.")
    held = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            name = repr(classes[label]) if label < len(classes) else str(label)
            raise InputError(f"class {name} has only one image and needs at least two; add some or remove it.")
        count = min(max(1, int(share * len(members) + 0.5)), max(1, len(members) - 2))
        stream = np.random.default_rng(child_seed(seed, "holdout", int(label)))
        held[stream.permutation(members)[:count]] = True
    return held
