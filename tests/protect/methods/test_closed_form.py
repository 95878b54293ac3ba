from typing import Any

import numpy as np
import pytest
from helpers import originals, photo, random_images

from pueprotect.learning.device import HERE, Machine
from pueprotect.learning.models import build
from pueprotect.protect.methods.base import NoiseSettings, find
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


def test_progress_is_one_step() -> None:
    said: list[Any] = []

    class Shown:
        def start(self, label: str, total: int) -> None:
            said.append((label, total))

        def advance(self, parts: int = 1, note: str = "") -> None:
            said.append(parts)

        def finish(self, note: str = "") -> None:
            said.append("finished")

    Marked().make(originals(random_images(6)), NoiseSettings(method="marked"), Machine(progress=Shown()))
    assert said == [("compute noise", 1), 1, "finished"]


@pytest.mark.parametrize("method", ["hardened", "lsp"])
def test_the_default_settings_do_not_repeat_the_noise(method: str) -> None:
    """Whoever runs the tool on the same images finds other noise: a key is drawn each time."""
    images = np.stack([photo(32, 32, seed=number) for number in range(60)])
    labels, held, made = np.arange(60) % 10, np.zeros(60, dtype=np.bool_), find(method)
    assert isinstance(made, ClosedForm)
    noise = [made.noise(images, labels, held, NoiseSettings(method=method)).ravel() for _ in range(2)]
    assert abs(np.corrcoef(noise)[0, 1]) < 0.3
