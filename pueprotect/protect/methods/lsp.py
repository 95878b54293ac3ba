"""Implements linearly separable perturbations (LSP) from the paper's description, for comparison.

Source: Yu et al., "Availability Attacks Create Shortcuts", KDD 2022. The noise is constant within patches and linearly
separable: each patch of each class has one random sign in each channel, plus a little noise for each image.
"""

from __future__ import annotations

import numpy as np
import torch

from pueprotect.protect.methods.base import Labels, Mask, Noise, NoiseSettings, Pixels
from pueprotect.protect.methods.closed_form import ClosedForm
from pueprotect.runtime import secret_stream

PATCH = 8  # pixels
SAMPLE_WISE = 0.1  # deviation of each image's own noise, relative to the class's
SHARE = 0.75  # root mean square of the noise, relative to the budget: 6 of 8 levels


class LSP(ClosedForm):
    """Random signs of patches of 8 x 8 pixels for each class."""

    name = "lsp"
    about = "adds linearly separable noise in patches (for comparison)"
    source = "Yu et al., Availability Attacks Create Shortcuts, KDD 2022"
    baseline = True

    def noise(self, pixels: Pixels, labels: Labels, held: Mask, settings: NoiseSettings) -> Noise:
        """Noise of the same L2 norm for every image, clipped to the budget."""
        size, stream = pixels.shape[1], secret_stream(settings.key, "lsp")
        grid = -(-size // PATCH)
        centres = np.sign(stream.standard_normal((int(labels.max()) + 1, 3, grid, grid), np.float32))
        own = stream.standard_normal((len(labels), 3, grid, grid), np.float32)
        points = torch.from_numpy(centres[labels] + SAMPLE_WISE * own)
        levels = SHARE * settings.epsilon
        points *= levels * points[0].numel() ** 0.5 / points.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        points = points.round().clamp(-settings.epsilon, settings.epsilon).to(torch.int8)
        blocks = points.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)[:, :, :size, :size]
        return np.ascontiguousarray(blocks.permute(0, 2, 3, 1).numpy())
