"""What an attacker's notch recovers against what it costs the picture: one row for each number of indices taken out.

    python examples/notches.py RELEASE [RELEASE ...] --test DIR [--indices 0 5 10 20 30 45] [--seeds 0] [--arch resnet8]

The attacker of `notch` takes out the indices of the block DCT that tell the released classes apart more than natural
images do. Here go as many as asked for, the most telling first, and blue is blurred; with 30 it is `wide-notch`.
Beside each figure stands the same training on the clean originals behind the same filter. Figures are counted on every
second image of DIR, as by hardened.py; several releases (keys), or seeds of the attacker, give mean and spread.
"""

from __future__ import annotations

import argparse
import os
from itertools import product
from pathlib import Path

import torch
from hardened import figure, held_out

from pueprotect.audit.attacks import Target
from pueprotect.audit.attacks.base import CLEAN_BEHIND_IT, AttackResult
from pueprotect.audit.attacks.notch import WideNotch
from pueprotect.learning.device import device_name
from pueprotect.learning.training import Schedule


def main() -> None:
    """Read the command line and print one row for each number of indices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", type=Path, nargs="+", metavar="RELEASE")
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument(
        "--indices", type=int, nargs="+", default=[0, 5, 10, 20, 30, 45], choices=range(64), metavar="N"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="the attacker's, for each release")
    parser.add_argument("--arch", default="resnet8")
    parser.add_argument("--epochs", type=float, default=15)
    wanted = parser.parse_args()
    opened = [held_out(release, wanted.test) for release in wanted.releases]
    print(f"torch {torch.__version__}, {device_name('cpu')}, {os.cpu_count()} cores, {wanted.arch}\n")
    print("| indices taken out | released: end | best pass | clean behind the same filter |\n|---|---|---|---|")
    for indices in wanted.indices:
        results: list[AttackResult] = []
        for (number, evidence), seed in product(enumerate(opened), wanted.seeds):
            schedule = Schedule(epochs=wanted.epochs)
            attacker = number + 100 * (1 + seed)  # not the owner's seed, as in hardened.py
            target = Target(evidence.released, wanted.arch, schedule, attacker, originals=evidence.originals)
            results.append(WideNotch(indices).run(target, evidence.test))
        clean = [result.details["points"][CLEAN_BEHIND_IT] for result in results]
        ends, bests = [result.accuracy for result in results], [result.best_accuracy for result in results]
        print(f"| {indices} | {figure(ends)} | {figure(bests)} | {figure(clean)} |", flush=True)


if __name__ == "__main__":
    main()
