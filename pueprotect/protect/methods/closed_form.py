"""Methods that compute noise without optimisation."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import Machine
from pueprotect.protect.methods.base import Labels, Made, Mask, Method, Noise, NoiseSettings, Pixels
from pueprotect.protect.methods.self_check import checked
from pueprotect.protect.presets import Preset


class ClosedForm(Method):
    """A method that computes noise without optimisation; the network of the self-check takes the surrogate's place.

    Attributes:
        checks: multiplies the passes of the preset's self-check.
    """

    modes = ("sample-wise",)
    checks: int = 1

    @abstractmethod
    def noise(self, pixels: Pixels, labels: Labels, held: Mask, settings: NoiseSettings) -> Noise:
        """The noise of all images.

        Args:
            pixels: (N, S, S, 3) uint8 working copies.
            labels: (N,) int64.
            held: (N,) bool, true for the images that nothing may be fitted to.
            settings: see `NoiseSettings`.

        Returns:
            (N, S, S, 3) signed integer levels.
        """

    def make(self, images: ImageSet, held: Tensor, settings: NoiseSettings, preset: Preset, machine: Machine) -> Made:
        """Compute the noise, then train a fresh network on it."""
        machine.group.dismiss()
        machine.progress.start("compute noise", 1)
        pixels = images.images.permute(0, 2, 3, 1).cpu().numpy()
        noise = self.noise(pixels, images.labels.cpu().numpy(), held.cpu().numpy(), settings)
        machine.progress.advance()
        machine.progress.finish()
        return checked(noise, images, held, settings, self.checks * preset.check_epochs, machine)
