import numpy as np
import pytest
from PIL import Image

from pueprotect.images.sample.canvas import Scene
from pueprotect.images.sample.motifs import CLASSES


def drawn(name: str, seed: int, side: int = 96) -> np.ndarray:
    scene = Scene(np.random.default_rng(seed), side)
    CLASSES[name](scene)
    return np.asarray(scene.image)


@pytest.mark.parametrize("name", CLASSES)
def test_a_motif_paints_the_whole_canvas(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it left bare would show the colour that the canvas started with."""
    pairs = []
    for colour in ("magenta", "lime"):
        with monkeypatch.context() as patch:
            patch.setattr(Image, "new", lambda mode, size, fill=0, new=Image.new, colour=colour: new(
                mode, size, colour if mode == "RGB" else fill
            ))  # fmt: skip
            pairs.append([drawn(name, seed) for seed in range(4)])
    for one, other in zip(*pairs, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("name", CLASSES)
def test_a_motif_is_a_function_of_its_random_stream(name: str) -> None:
    first = drawn(name, 0)
    assert np.array_equal(drawn(name, 0), first)
    for seed in (1, 2, 3):
        assert np.abs(drawn(name, seed).astype(int) - first).mean() > 5, "another scene, not the same with other grain"


@pytest.mark.parametrize("name", CLASSES)
def test_a_motif_has_shapes_and_not_one_colour(name: str) -> None:
    for seed in range(3):
        pixels = drawn(name, seed).astype(float).mean(axis=2)
        assert pixels.std() > 8
        assert np.abs(np.diff(pixels, axis=1)).max() > 20
