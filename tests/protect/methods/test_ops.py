import numpy as np
import torch
from helpers import Command, noise, one_pixel_shortcut, write_photos

from pueprotect.protect.methods.base import NoiseSettings
from pueprotect.protect.methods.ops import CORNERS, OPS


def test_one_pixel_shortcut_is_one_pixel_of_one_colour_for_each_class() -> None:
    clean = noise(80, 16, classes=4)
    coded = one_pixel_shortcut(clean)
    changed = (coded.images != clean.images).any(1)
    assert int(changed.flatten(1).sum(1).max()) == 1
    places = set()
    for label in range(4):
        mine = changed[clean.labels == label]
        (place,) = torch.nonzero(mine.any(0)).tolist()
        colours = coded.images[clean.labels == label][:, :, place[0], place[1]].unique(dim=0)
        assert len(colours) == 1
        assert set(colours.flatten().tolist()) <= {0, 255}
        places.add((*place, *colours.flatten().tolist()))
    assert len(places) == 4


def slow(pixels: np.ndarray, labels: np.ndarray, held: np.ndarray) -> list[tuple[int, int, int]]:
    """Row, column and corner of each class, by trying all of them."""
    taken: list[tuple[int, int, int]] = []
    for label in range(int(labels.max()) + 1):
        shown = pixels[(labels == label) & ~held].astype(float) / 255
        scores = {}
        for corner in range(8):
            for row in range(pixels.shape[1]):
                for column in range(pixels.shape[2]):
                    away = [float(np.abs(image[row, column] - CORNERS[corner] / 255).mean()) for image in shown]
                    spread = float(np.std(away, ddof=1)) if len(away) > 1 else 0.0
                    scores[row, column, corner] = np.mean(away) / max(spread, 1e-6)
        taken.append(max((place for place in scores if place not in taken), key=lambda place: scores[place]))
    return taken


def test_place_and_colour_are_those_of_a_plain_search_and_ignore_held_out_images() -> None:
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 256, (24, 6, 6, 3)).astype(np.uint8)
    labels, held = np.arange(24) % 3, np.arange(24) >= 18
    found = OPS().noise(pixels, labels, held, NoiseSettings(method="ops", epsilon=255))
    for label, (row, column, corner) in enumerate(slow(pixels, labels, held)):
        changed = pixels[labels == label] + found[labels == label]
        assert (changed[:, row, column] == CORNERS[corner]).all(), "held-out images get the pixel as well"
        found[labels == label, row, column] = 0
    assert not found.any()


def test_a_class_of_one_or_two_images_has_a_pixel_too() -> None:
    """The spread is that of a sample: of two images it counts, of one it is taken as zero."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    labels, held = np.array([0, 1, 1, 2, 2]), np.zeros(5, dtype=np.bool_)
    found = OPS().noise(pixels, labels, held, NoiseSettings(method="ops", epsilon=255))
    for label, (row, column, corner) in enumerate(slow(pixels, labels, held)):
        changed = pixels[labels == label] + found[labels == label]
        assert (changed[:, row, column] == CORNERS[corner]).all()


def test_no_two_classes_share_pixel_and_colour_and_equal_scores_take_the_first() -> None:
    pixels, labels = np.full((6, 3, 3, 3), 255, dtype=np.uint8), np.arange(6) % 3
    found = OPS().noise(pixels, labels, np.zeros(6, dtype=np.bool_), NoiseSettings(method="ops", epsilon=255))
    for label in range(3):
        assert found[label, label // 3, label % 3].tolist() == [-255, -255, -255], "black is farthest from white"
        assert int((found[label] != 0).sum()) == 3


def test_white_and_black_are_equally_far_from_each_other() -> None:
    """A white pixel and a black one never change: black on white comes first in the order of colours."""
    pixels = np.random.default_rng(2).integers(60, 200, (8, 3, 3, 3)).astype(np.uint8)
    pixels[:, 0, 0], pixels[:, 2, 2] = 0, 255
    found = OPS().noise(pixels, np.zeros(8, np.int64), np.zeros(8, np.bool_), NoiseSettings(method="ops", epsilon=255))
    assert (found[:, 2, 2] == -255).all()
    assert int((found != 0).sum()) == 8 * 3


def test_a_budget_that_does_not_apply_is_named() -> None:
    (advice,) = OPS().advice(NoiseSettings(method="ops"))
    assert advice == "ops ignores --epsilon: it changes one pixel of each image by up to 255 levels."


def test_protect_takes_the_whole_range_whatever_the_budget(command: Command, tmp_path: object) -> None:
    src = write_photos(tmp_path / "src", 6)  # type: ignore[operator]
    words = ("--method", "ops", "--size", "16", "--preset", "quick", "--release-anyway", "--format", "png", "--json")
    done = command("protect", src, "--out", tmp_path / "out", *words)  # type: ignore[operator]
    assert done.code == 0, done.stderr
    assert done.data["epsilon"] == 1.0
    assert done.data["realised"]["linf_max"] > 100
    assert command("verify", tmp_path / "out").code == 0  # type: ignore[operator]
