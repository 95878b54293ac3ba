"""One-pixel shortcuts: a peers' method, to compare with. Written from the paper's description.

Source: Wu et al., "One-Pixel Shortcut: On the Learning Preference of Deep Neural Networks", ICLR 2023. One pixel of
each class gets one colour at a corner of the colour cube, so its change is not bounded by a small budget.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from pueprotect.protect.methods.base import ClosedForm, Noise, NoiseSettings

CORNERS = np.array(list(itertools.product((0, 255), repeat=3)), dtype=np.int16)


class OPS(ClosedForm):
    """One pixel of one colour for each class."""

    name = "ops"
    about = "sets one pixel of each class to one colour; a peers' method, to compare with"
    source = "Wu et al., One-Pixel Shortcut, ICLR 2023"
    budget = 255
    baseline = True

    def noise(
        self,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        held: npt.NDArray[np.bool_],
        settings: NoiseSettings,
    ) -> Noise:
        """Place and colour are those from which the class's images are farthest for their spread, none used twice."""
        size, taken = pixels.shape[1], set[int]()
        noise = np.zeros(pixels.shape, dtype=np.int16)
        for label in range(int(labels.max()) + 1):
            shown = pixels[(labels == label) & ~held].astype(np.float32) / 255
            away = np.abs(shown[:, None] - CORNERS[None, :, None, None] / 255).mean(-1)  # (n, 8, S, S)
            spread = away.std(0, ddof=1) if len(shown) > 1 else np.zeros(away.shape[1:])
            score = (away.mean(0) / np.maximum(spread, 1e-6)).ravel()
            place = next(int(index) for index in np.argsort(-score, kind="stable") if int(index) not in taken)
            taken.add(place)
            corner, rest = divmod(place, size * size)
            row, column = divmod(rest, size)
            members = labels == label
            noise[members, row, column] = CORNERS[corner] - pixels[members, row, column].astype(np.int16)
        return noise
