from typing import Any

import numpy as np
from helpers import originals, random_images

from pueprotect.learning.device import HERE
from pueprotect.learning.models import build
from pueprotect.protect.methods.base import NoiseSettings
from pueprotect.protect.methods.closed_form import ClosedForm


class Marked(ClosedForm):
    """A few levels of noise in the row of each image's class."""

    name = "marked"
    about = "marks a row"
    source = "a test"

    def noise(self, pixels: Any, labels: Any, held: Any, settings: NoiseSettings) -> Any:
        self.seen = pixels, labels, held
        noise = np.zeros(pixels.shape, dtype=np.int8)
        noise[np.arange(len(labels)), labels] = (1, 2, 3)
        self.drawn = noise.copy()
        return noise


def test_a_method_gets_all_images_and_greyscale_takes_its_first_channel() -> None:
    data, method = random_images(), Marked()
    grey = np.arange(len(data)) % 3 == 1
    given = originals(data, grey=grey)
    made = method.make(given, NoiseSettings(method="marked"), HERE)
    pixels, labels, mask = method.seen
    assert np.array_equal(pixels, data.images.permute(0, 2, 3, 1).numpy())
    assert np.array_equal(labels, data.labels.numpy())
    assert np.array_equal(mask, given.held.numpy())
    assert made.noise.shape == pixels.shape
    assert made.rows.tolist() == list(range(len(data)))
    assert (made.network, made.rounds) == (None, 0)
    assert np.array_equal(made.noise[~grey], method.drawn[~grey])
    assert np.array_equal(made.noise[grey], method.drawn[grey][..., :1].repeat(3, axis=3))
    assert method.improve(made, given, NoiseSettings(), build("cnn", 3, 16, seed=0), 1, HERE) is None
