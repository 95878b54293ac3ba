import numpy as np

from pueprotect.learning.data import image_set


def test_an_image_set_keeps_pixels_and_labels() -> None:
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    made = image_set(pixels, np.array([1, 0]), 2, "cpu")
    assert made.images.shape == (2, 3, 4, 4)
    assert np.array_equal(made.images.permute(0, 2, 3, 1).numpy(), pixels)
    assert made.labels.tolist() == [1, 0]
