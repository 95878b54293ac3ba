from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import noise_levels, originals, photo, put, random_images
from PIL import Image

from pueprotect.images.decode import working_copy
from pueprotect.images.overlay import lay
from pueprotect.protect.methods.laying import Laying


def seen_on_disk(place: Path, shape: tuple[int, ...], noise: np.ndarray, size: int) -> np.ndarray:
    """The noise in the working copy of a flat picture that was written with it and read back."""
    flat = np.full(shape, 128, np.uint8)
    written = lay(flat, noise, 100)
    copy = working_copy(put(place / "a.png", written[..., 0] if shape[2] == 1 else written), size).pixels
    return np.asarray(copy.astype(float) - 128)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [(16, 16), (8, 8), (5, 13), (12, 16), (20, 24), (33, 90), (128, 128), (700, 500)])
def test_the_matrices_show_noise_as_a_written_file_does(tmp_path: Path, side: tuple[int, int], channels: int) -> None:
    noise = noise_levels(16, 60, seed=4)
    if channels == 1:
        noise[...] = noise[..., :1]
    laying = Laying.of(np.array([channels == 1]), np.array([side]), 16, "cpu")
    seen = laying.seen(torch.from_numpy(noise[None]).float(), torch.tensor([0]))[0].numpy()
    found = seen_on_disk(tmp_path, (*side, channels), noise, 16)
    assert np.abs(seen - found).max() <= (2 if max(side) <= 128 else 8)
    assert np.corrcoef(seen.ravel(), found.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("side", [8, 12, 50])
def test_smaller_files_keep_the_strength_of_the_noise(side: int) -> None:
    noise = noise_levels(64, 8)
    written = lay(np.full((side, side, 3), 128, np.uint8), noise, 8).astype(float) - 128
    assert np.sqrt((written**2).mean()) == pytest.approx(np.sqrt((noise.astype(float) ** 2).mean()), rel=0.1)


def test_the_transpose_belongs_to_the_map() -> None:
    sides = np.array([(16, 16), (8, 30), (40, 16)])
    laying = Laying.of(np.zeros(3, dtype=np.bool_), sides, 16, "cpu")
    stream, index = torch.Generator().manual_seed(0), torch.tensor([2, 0, 1])
    x, g = (torch.randn((3, 16, 16, 3), generator=stream) for _ in range(2))
    there, back = laying.seen(x, index), laying.adjoint(g, index)
    torch.testing.assert_close((there * g).sum((1, 2, 3)), (x * back).sum((1, 2, 3)), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(there[1], x[1], rtol=0, atol=1e-6)


def test_whole_levels_are_shown_as_the_same_numbers_in_float() -> None:
    laying = Laying.of(np.zeros(2, dtype=np.bool_), np.array([(40, 8), (16, 16)]), 16, "cpu")
    levels, index = torch.from_numpy(np.stack([noise_levels(16, 8, seed=n) for n in (0, 1)])), torch.arange(2)
    assert levels.dtype == torch.int8
    assert torch.equal(laying.seen(levels, index), laying.seen(levels.float(), index))


def test_images_without_colours_take_the_sum_of_the_gradients() -> None:
    grey = np.array([True, False])
    laying = Laying.of(grey, np.full((2, 2), 16), 16, "cpu")
    assert laying.exact
    gradients = torch.arange(2 * 16 * 16 * 3.0).view(2, 16, 16, 3)
    back = laying.adjoint(gradients, torch.tensor([1, 0]))
    assert torch.equal(back[0], gradients[0]), "the second image has colours"
    assert torch.equal(back[1], gradients[1].sum(2, keepdim=True).expand(-1, -1, 3))
    part = laying.part(torch.tensor([False, True]))
    assert (part.grey.tolist(), part.some_grey) == ([False], False)


def test_a_class_with_both_kinds_has_a_pattern_for_each() -> None:
    data = random_images(6)
    for grey, rows, bare in (
        ([0, 0, 0, 0, 0, 0], [0, 1, 2, 0, 1, 2], [0, 0, 0]),
        ([1, 1, 1, 1, 1, 1], [0, 1, 2, 0, 1, 2], [1, 1, 1]),
        ([0, 1, 0, 1, 0, 1], [0, 4, 2, 3, 1, 5], [0, 0, 0, 1, 1, 1]),
    ):
        found, without = originals(data, grey=np.array(grey, dtype=np.bool_)).patterns()
        assert found.tolist() == rows
        assert without.int().tolist() == bare


def test_the_working_copy_knows_greyscale_and_upright_sides(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = put(tmp_path / "a.jpg", photo(40, 24), exif=exif)
    assert working_copy(turned, 8)[2:] == (False, (24, 40))
    large = put(tmp_path / "b.jpg", photo(80, 64)[..., 0], exif=exif)
    assert working_copy(large, 8)[2:] == (True, (64, 80)), "decoded at a fraction of its size"
    deep = tmp_path / "c.png"
    Image.fromarray(photo()[..., 0].astype(np.uint16) * 257).save(deep)
    assert working_copy(deep, 8)[2:] == (True, (20, 28))
