"""Methods that compute noise without optimisation."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from pueprotect.learning.device import Machine
from pueprotect.protect.methods.base import Labels, Made, Mask, Method, Noise, NoiseSettings, Pixels
from pueprotect.protect.methods.laying import Originals


class ClosedForm(Method):
    """A method that computes noise without optimisation; the network of the self-check takes the surrogate's place."""

    modes = ("sample-wise",)

    @abstractmethod
    def noise(self, pixels: Pixels, labels: Labels, held: Mask, settings: NoiseSettings) -> Noise:
        """The noise of all images.

        Args:
            pixels: (N, S, S, 3) uint8 working copies.
            labels: (N,) int64.
            held: (N,) bool, true for the images that nothing may be fitted to.
            settings: see `NoiseSettings`.

        Returns:
            (N, S, S, 3) signed integer levels; of images without colours the first channel is used.
        """

    def make(self, originals: Originals, settings: NoiseSettings, machine: Machine) -> Made:
        """Compute the noise of all images."""
        machine.progress.start("compute noise", 1)
        images, grey = originals.images, originals.laying.grey.cpu().numpy()
        pixels = images.images.permute(0, 2, 3, 1).cpu().numpy()
        noise = self.noise(pixels, images.labels.cpu().numpy(), originals.held.cpu().numpy(), settings)
        noise[grey] = noise[grey][..., :1]
        machine.progress.advance()
        machine.progress.finish()
        return Made(noise, np.arange(len(noise)))
