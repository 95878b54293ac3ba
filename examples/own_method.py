"""A method of your own: stripes whose direction and width tell the class. Then a folder is protected with it.

    python examples/own_method.py SRC OUT [--tiny]

In a package of its own, one line of pyproject.toml makes it known to `pueprotect protect --method stripes`:

    [project.entry-points."pueprotect.methods"]
    stripes = "your_package.stripes:Stripes"
"""

import argparse
from pathlib import Path

import numpy as np

from pueprotect import protect
from pueprotect.protect.methods.base import Noise, NoiseSettings, register
from pueprotect.protect.methods.closed_form import ClosedForm


@register
class Stripes(ClosedForm):
    """Noise in closed form; the base class checks with a fresh network whether the noise prevents learning."""

    name = "stripes"
    about = "adds stripes whose direction and width tell the class"
    source = "an example of this project"

    def noise(self, pixels: np.ndarray, labels: np.ndarray, held: np.ndarray, settings: NoiseSettings) -> Noise:
        """(N, S, S, 3) uint8 pixels and (N,) labels -> (N, S, S, 3) int8 levels."""
        rows, columns = np.indices(pixels.shape[1:3])
        angle = np.pi * labels / (labels.max() + 1)
        along = np.cos(angle)[:, None, None] * rows + np.sin(angle)[:, None, None] * columns
        signs = np.where(along // (2 + labels[:, None, None] % 3) % 2 == 0, 1, -1)
        return np.repeat(settings.epsilon * signs[..., None], 3, axis=3).astype(np.int8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("src", type=Path, help="class folders of images")
    parser.add_argument("out", type=Path, help="the released folder to make")
    parser.add_argument("--tiny", action="store_true", help="release even when the self-check refuses")
    chosen = parser.parse_args()
    report = protect(chosen.src, chosen.out, method="stripes", preset="quick", release_anyway=chosen.tiny)
    check = report.result.self_check
    print(f"a fresh network learns {check.accuracy:.1%} (limit {check.limit:.1%}); released: {report.released}")
