from typing import Any

import numpy as np
import pytest
import torch
from helpers import photo, random_images

from pueprotect.learning.device import HERE
from pueprotect.protect.methods.base import NoiseSettings, find
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


@pytest.mark.parametrize("method", ["hardened", "lsp"])
def test_the_default_settings_do_not_repeat_the_noise(method: str) -> None:
    """Whoever runs the tool on the same images finds other noise: a key is drawn each time."""
    images = np.stack([photo(32, 32, seed=number) for number in range(60)])
    labels, held, made = np.arange(60) % 10, np.zeros(60, dtype=np.bool_), find(method)
    assert isinstance(made, ClosedForm)
    noise = [made.noise(images, labels, held, NoiseSettings(method=method)).ravel() for _ in range(2)]
    assert abs(np.corrcoef(noise)[0, 1]) < 0.3
