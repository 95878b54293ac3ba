"""Times `pueprotect check` against `sha256sum` on the same files, alternating in one run, and prints the medians.

    python examples/benchmarks/check.py [--files 10000] [--bytes 3000] [--repeats 5]

The files are random bytes named as images: `check` hashes them and never decodes. Their vault holds a certificate and
the attacks of the suite `quick`, and the policy asks for all of them. sha256sum runs once in one process and once in
as many as there are cores (xargs -P); the ratio is to the faster of the two. The time of `check` is that of the whole
command, from the start of Python to its exit. Processor time depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pueprotect.audit.suites import SUITES
from pueprotect.release.digests import data_digest
from pueprotect.release.records import ManifestRow
from pueprotect.release.vault import Vault, default_vault

POLICY = """version: 1
certify: {q: 0.9, eta: 0.06, max_learnability: 0.25, min_draws: 1000, min_baseline: 0.5}
audit: {suite: quick, max_accuracy: 0.4, max_recovered: 0.5}
images: {min_coverage: 1.0, max_linf: 8}
"""


def make(out: Path, files: int, size: int) -> None:
    """A folder of `files` files and a vault that records them."""
    rows = []
    for number in range(files):
        path = out / f"class{number % 10}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = os.urandom(size)
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        name = path.relative_to(out).as_posix()
        rows.append(ManifestRow(path=name, class_name=path.parent.name, split="train", source_path=name,
                                source_sha256=digest, released_sha256=digest, linf=8, psnr=33.0))  # fmt: skip
    vault = Vault.create(default_vault(out))
    vault.write_manifest(rows)
    digest = data_digest({row.path: row.released_sha256 for row in rows})
    vault.seal({"data_digest": digest})
    record_evidence(vault, digest)


def record_evidence(vault: Vault, digest: str) -> None:
    """A certificate and a suite of attacks with figures that pass."""

    def bounds(figure: float) -> dict[str, Any]:
        normal = statistics.NormalDist()
        shares = [(eta / 100, normal.cdf(normal.inv_cdf(0.9) + eta / 5)) for eta in range(1, 7)]
        curve = [{"eta": eta, "q_shifted": share, "rank": 1000, "certified_learnability": figure,
                  "draws_needed": None} for eta, share in shares]  # fmt: skip
        noisy = {"mean": figure, "median": figure, "max": figure}
        return {
            "recipe": "plain",
            "draws": 1000,
            "surrogate_clean_accuracy": figure,
            "noisy_accuracy": noisy,
            "curve": curve,
        }

    vault.write_json("certificate.json", bounds(0.1) | {
        "schema_version": 1, "q": 0.9, "sigma": 0.05, "draws": 1000, "alpha": 0.01, "joint": False, "flags": [],
        "holdout_images": 1000, "classes": 10, "chance": 0.1, "max_eta": 0.06, "recipes": {"plain": bounds(0.1)},
        "baseline": bounds(0.6), "seconds": 1.0, "data_digest": digest,
        "surrogate_recipe": "worst", "epochs": 15.0, "looks": 1,
    })  # fmt: skip
    for attack in ("clean-line", *SUITES["quick"]):
        accuracy = 0.6 if attack == "clean-line" else 0.2
        key = {"data_digest": digest, "test_digest": digest, "attack": attack, "arch": "resnet8", "epochs": 15.0}
        result = {"attack": attack, "arch": "resnet8", "accuracy": accuracy, "best_accuracy": accuracy, "epochs": 15.0,
                  "seconds": 1.0, "flags": [], "details": {}}  # fmt: skip
        about = {"chance": 0.1, "test_images": 1000}
        vault.write_json(f"audit/{attack}-resnet8.json", {"key": key | {"seed": 0}, "result": result, **about})


def timed(command: str, folder: Path) -> tuple[float, float]:
    """Wall and processor seconds of one command."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["bash", "-c", command], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    wanted = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    each = -(-wanted.files // cores)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make(root / "out", wanted.files, wanted.bytes)
        (root / "pueprotect.yaml").write_text(POLICY)
        commands = {
            "pueprotect check": f"{sys.executable} -m pueprotect check out",
            "pueprotect --help": f"{sys.executable} -m pueprotect --help",
            "sha256sum, 1 process": "find out -type f -print0 | xargs -0 -n 1000000 sha256sum",
            f"sha256sum, {cores} processes": f"find out -type f -print0 | xargs -0 -P {cores} -n {each} sha256sum",
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(wanted.repeats):
            for name, command in commands.items():
                seconds[name].append(timed(command, root))
    print(f"{wanted.files} files of {wanted.bytes} bytes, {cores} cores, median (lowest - highest) of {wanted.repeats}")
    for number, kind in enumerate(("wall", "processor")):
        print(kind)
        medians = {}
        for name, pairs in seconds.items():
            values = [pair[number] for pair in pairs]
            medians[name] = statistics.median(values)
            print(f"  {name:24} {medians[name]:6.2f} s  ({min(values):.2f} - {max(values):.2f})")
        best = min(value for name, value in medians.items() if name.startswith("sha256sum"))
        print(f"  check / sha256sum        {medians['pueprotect check'] / best:6.2f}")


if __name__ == "__main__":
    main()
