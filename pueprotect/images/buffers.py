"""Saves copies of pixels: views Pillow's memory as an array, and keeps freed memory for the next picture. No torch.

Fresh memory is slow for photographs, because the system hands out its pages and takes them back each time (see
`examples/results/trials.md`).
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image, _imaging

KEPT_BLOCKS = 16  # of at most 16 MiB each; a worker has three images at once


class _ArrowArray(ctypes.Structure):
    """`struct ArrowArray` of the Arrow C data interface."""


_ArrowArray._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    *((name, ctypes.c_void_p) for name in ("dictionary", "release", "private_data")),
]

_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class _Memory:
    """Foreign memory for numpy; it keeps the capsule alive, which keeps the image alive."""

    def __init__(self, capsule: object, address: int, shape: tuple[int, int, int]) -> None:
        self.capsule = capsule
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": shape, "data": (address, True)}


def shared(image: Image.Image) -> npt.NDArray[np.uint8] | None:
    """View the pixels of a decoded RGB image in Pillow's own memory, through its Arrow interface.

    The image must not change while the array is in use.

    Returns:
        (H, W, 4) uint8, read-only, the last channel a filler; None for other modes, and for images that Pillow keeps
        in several blocks (above 4 megapixels).
    """
    if image.mode != "RGB":
        return None
    try:
        _, capsule = image.__arrow_c_array__()
    except ValueError:
        return None
    array = ctypes.cast(_pointer(capsule, b"arrow_array"), ctypes.POINTER(_ArrowArray)).contents
    shape = image.height, image.width, 4
    if array.n_children != 1 or (channels := array.children[0].contents).length != math.prod(shape):
        return None  # another layout than that of Pillow 11.2 to 13
    return np.asarray(_Memory(capsule, channels.buffers[1], shape))


@contextmanager
def kept_blocks() -> Iterator[None]:
    """Inside the block, Pillow keeps the memory of freed images for the next ones (`PILLOW_BLOCKS_MAX`)."""
    before = _imaging.get_blocks_max()
    _imaging.set_blocks_max(max(before, KEPT_BLOCKS))
    try:
        yield
    finally:
        _imaging.set_blocks_max(before)


class _Scratch(threading.local):
    held = np.empty(0, dtype=np.uint8)


_scratch = _Scratch()


def scratch(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """An array to write to, valid until this thread asks again; its memory is kept as long as the thread."""
    count = math.prod(shape)
    if _scratch.held.size < count:
        _scratch.held = np.empty(count, dtype=np.uint8)
    return _scratch.held[:count].reshape(shape)
