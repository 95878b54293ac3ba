"""An attack of your own: every 2 x 2 pixels become one, in training and test images. Then it is run on a release.

    python examples/own_attack.py OUT [--epochs N]

In a package of its own, one line of pyproject.toml makes it known to `pueprotect audit --attack mosaic`:

    [project.entry-points."pueprotect.attacks"]
    mosaic = "your_package.mosaic:Mosaic"
"""

import argparse
from pathlib import Path

from torch import Tensor

from pueprotect import audit
from pueprotect.audit.attacks.base import Filter, Target, register
from pueprotect.audit.attacks.standard import Plain


@register
class Mosaic(Plain):
    """Plain training on coarse images; the base class measures it."""

    name = "mosaic"
    about = "shows every 2 x 2 pixels as one"
    source = "an example of this project"

    def filter(self, target: Target) -> Filter:
        """(N, 3, H, W) uint8 -> the same, H and W even."""

        def coarse(images: Tensor) -> Tensor:
            return images[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2)

        return coarse


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a released folder with its vault next to it")
    parser.add_argument("--epochs", type=float, help="passes of each training; by default chosen by size")
    chosen = parser.parse_args()
    for row in audit(chosen.out, attacks=("standard", "mosaic"), epochs=chosen.epochs).results:
        print(f"{row.attack} reaches {row.accuracy:.1%}")
