"""Two protections by other hands, under the name by which `examples/hardened.py` imports them."""

from helpers import lsp, one_pixel_shortcut

__all__ = ["lsp", "one_pixel_shortcut"]
