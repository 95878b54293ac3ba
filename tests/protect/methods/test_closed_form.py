from typing import Any

import numpy as np
import torch
from helpers import random_images

from pueprotect.learning.device import HERE
from pueprotect.protect.methods.base import NoiseSettings
from pueprotect.protect.methods.closed_form import ClosedForm
from pueprotect.protect.presets import Preset


class Marked(ClosedForm):
    """One level of noise in the row of each image's class."""

    name = "marked"
    about = "marks a row"
    source = "a test"
    checks = 3

    def noise(self, pixels: Any, labels: Any, held: Any, settings: NoiseSettings) -> Any:
        self.seen = pixels, labels, held
        noise = np.zeros(pixels.shape, dtype=np.int8)
        noise[np.arange(len(labels)), labels] = 1
        return noise


def test_a_method_gets_all_images_and_its_noise_is_checked_on_those_not_held_out() -> None:
    data, method = random_images(), Marked()
    held = torch.arange(len(data)) % 4 == 0
    made = method.make(data, held, NoiseSettings(method="marked"), Preset(1, 1, 2, 1), HERE)
    pixels, labels, mask = method.seen
    assert np.array_equal(pixels, data.images.permute(0, 2, 3, 1).numpy())
    assert np.array_equal(labels, data.labels.numpy())
    assert np.array_equal(mask, held.numpy())
    assert made.noise.shape == pixels.shape
    assert int(made.noise.sum()) == len(data) * data.size * 3
    assert made.facts.rounds == 0
    assert made.facts.self_check.epochs == 3 * 2, "three times the passes of the preset"
    assert made.facts.surrogate.parameters == sum(p.numel() for p in made.network.parameters())
