import gc
import io

import numpy as np
import pytest
from conftest import photo, put
from PIL import Image, _imaging

from pueprotect.encode import Encoder, lay
from pueprotect.memory import kept_blocks, shared
from pueprotect.pixels import decode


def test_shared_pixels_outlive_their_image_and_cannot_be_written() -> None:
    pixels = photo(50, 70)
    image = Image.fromarray(pixels)
    seen = shared(image)
    assert seen is not None
    del image
    gc.collect()
    Image.new("RGB", (70, 50))  # would take freed memory
    assert np.array_equal(seen[..., :3], pixels)
    with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
        seen[0] = 0


def test_what_does_not_lie_in_one_piece_is_not_shared() -> None:
    assert shared(Image.new("L", (4, 4))) is None
    assert shared(Image.new("RGBA", (4, 4))) is None
    assert shared(Image.new("RGB", (3000, 2500))) is None


@pytest.mark.parametrize("size", [(40, 60), (2500, 1900)])
def test_jpeg_bytes_are_those_of_the_array(tmp_path, size: tuple[int, int]) -> None:
    """In Pillow's own layout and, above 16 MiB, as an array."""
    source = put(tmp_path / "a.jpg", photo(*size), quality=90)
    noise = np.random.default_rng(0).integers(-8, 9, (16, 16, 3)).astype(np.int8)
    Encoder(epsilon=8, quality=90).protect(source, tmp_path / "b.jpg", noise)
    expected = io.BytesIO()
    Image.fromarray(lay(decode(source).pixels, noise, 8)).save(expected, "JPEG", quality=90, subsampling=0)
    assert (tmp_path / "b.jpg").read_bytes() == expected.getvalue()


def test_freed_memory_is_kept_inside_the_block_only() -> None:
    before = _imaging.get_blocks_max()
    with kept_blocks():
        assert _imaging.get_blocks_max() > before
    assert _imaging.get_blocks_max() == before
