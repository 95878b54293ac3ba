"""Protects, certifies and audits sample data from Python: about five minutes on two CPU cores.

    python examples/quickstart.py [FOLDER]

The smallest form, for a look at the calls alone: python examples/quickstart.py --tiny
"""

import argparse
from pathlib import Path
from tempfile import mkdtemp

from pueprotect import audit, certify, protect
from pueprotect.images.sample import write_sample

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path, nargs="?", help="where to write; a temporary folder if left out")
parser.add_argument("--tiny", action="store_true", help="few images and one pass: shows the calls, proves nothing")
chosen = parser.parse_args()
folder = chosen.folder or Path(mkdtemp())
effort = {"preset": "quick", "rounds": 1, "size": 16, "release_anyway": True} if chosen.tiny else {}

write_sample(folder / "photos", per_class=10 if chosen.tiny else 150)
report = protect(folder / "photos", folder / "shared", **effort)
print(f"a fresh network learns {report.result.self_check.accuracy:.1%} from the protected pixels")
found = certify(folder / "shared", draws=50 if chosen.tiny else 200, etas=(0.0, 0.01))
for point in found.curve:
    print(f"certified learnability at eta {point.eta:g}: {point.certified_learnability}")
attacks = ("standard",) if chosen.tiny else ("standard", "class-mean", "pst")
worst = audit(folder / "shared", attacks=attacks, epochs=1 if chosen.tiny else None).worst
print(f"worst of the audit: {worst.attack} reaches {worst.accuracy:.1%}")
