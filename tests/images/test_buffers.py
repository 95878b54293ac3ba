import gc
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from helpers import photo
from PIL import Image, _imaging

from pueprotect.images.buffers import kept_blocks, scratch, shared
from pueprotect.images.decode import decode


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


def test_other_modes_and_images_in_several_blocks_are_not_shared() -> None:
    assert shared(Image.new("L", (4, 4))) is None
    assert shared(Image.new("RGBA", (4, 4))) is None
    assert shared(Image.new("RGB", (3000, 2500))) is None


def test_freed_memory_is_kept_inside_the_block_only() -> None:
    before = _imaging.get_blocks_max()
    with kept_blocks():
        assert _imaging.get_blocks_max() > before
    assert _imaging.get_blocks_max() == before


@pytest.mark.parametrize("container", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "HEIF"])
def test_fillers_of_decoded_pictures_are_equal(tmp_path, container: str) -> None:
    """Deviations include the fillers."""
    if container == "HEIF":
        pytest.importorskip("pillow_heif")
    for name, image in (("rgb", Image.fromarray(photo())), ("palette", Image.fromarray(photo()).quantize(16))):
        path = tmp_path / name
        (image if container in ("PNG", "TIFF") else image.convert("RGB")).save(path, container)
        seen = shared(decode(path).content)  # type: ignore[arg-type]
        assert seen is not None
        assert (seen[..., 3] == 255).all()


def test_every_thread_writes_to_its_own_scratch() -> None:
    both = Barrier(2)

    def fill(level: int) -> int:
        mine = scratch((40, 50, 4))
        mine[:] = level
        both.wait(10)
        again = scratch((10, 20, 4))
        assert np.shares_memory(mine, again)
        return int(again.max())

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(fill, (1, 2))) == [1, 2]
