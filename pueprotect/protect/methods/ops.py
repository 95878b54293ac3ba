"""Implements one-pixel shortcuts (OPS) from the paper's description, for comparison.

Source: Wu et al., "One-Pixel Shortcut: On the Learning Preference of Deep Neural Networks", ICLR 2023. One pixel of
each class gets one colour at a corner of the colour cube, so a small budget does not bound its change.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from pueprotect.protect.methods.base import Labels, Mask, Noise, NoiseSettings, Pixels
from pueprotect.protect.methods.closed_form import ClosedForm

CORNERS = np.array(list(itertools.product((0, 255), repeat=3)), dtype=np.int16)


class OPS(ClosedForm):
    """One pixel of one colour for each class."""

    name = "ops"
    about = "sets one pixel of each class to one colour (for comparison)"
    source = "Wu et al., One-Pixel Shortcut, ICLR 2023"
    budget = 255
    baseline = True

    def noise(self, pixels: Pixels, labels: Labels, held: Mask, settings: NoiseSettings) -> Noise:
        """The pixel and colour that are farthest from the class's images, relative to their spread; none used twice."""
        noise, taken = np.zeros(pixels.shape, dtype=np.int16), set[int]()
        for label in range(int(labels.max()) + 1):
            members = labels == label
            shown = pixels[members & ~held].astype(np.float32) / 255
            score = np.stack([_score(np.abs(shown - corner / 255).mean(-1)) for corner in CORNERS])  # (8, S, S)
            best = np.argsort(-score, axis=None, kind="stable")
            place = next(int(index) for index in best if int(index) not in taken)
            taken.add(place)
            corner, row, column = np.unravel_index(place, score.shape)
            noise[members, row, column] = CORNERS[corner] - pixels[members, row, column].astype(np.int16)
        return noise

    def advice(self, settings: NoiseSettings) -> list[str]:
        """The budget does not apply."""
        return ["ops ignores --epsilon: it changes one pixel of each image by up to 255 levels."]


def _score(away: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean distance of the images from a colour at each pixel over its spread: (n, S, S) -> (S, S)."""
    spread = away.std(0, ddof=1) if len(away) > 1 else np.zeros(away.shape[1:])
    return np.asarray(away.mean(0) / np.maximum(spread, 1e-6))
