"""Measures every method of protection against the attacks of standard-v2, on a CIFAR-10 subset.

    python examples/results/methods.py run DATA STORE [--methods hardened pue ...] [--attacks notch ...] [--seeds 0 1 2]
    python examples/results/methods.py collect STORE
    python examples/results/methods.py table STORE [--arch resnet8]
    python examples/results/methods.py page > examples/results/methods.md

DATA holds train/<class>/*.jpg and test/<class>/*.jpg, as for cifar10.py. Accuracy is measured on every second test
image: choices were made on the other half. `clean` is the clean upper line. `--no-augment` trains without crops and
flips. `--certificates` measures certificates instead of attacks. notches.py and visibility.py measure two further
tables of this page.

`hybrid` and `hybrid-6` share the budget: PUE noise of 3/255 or 2/255, optimised on images that carry a texture code
of 5/255 or 6/255.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial

import notches
import visibility
from cells import CLEAN, RELEASES, Book, Cell, entry, head, markdown, of_seed, parser_of, percent, pooled, prose, serve

from pueprotect.audit.suites import ONLY_ON, SUITES

NAME = "methods"
METHODS = (CLEAN, *RELEASES)
ATTACKS = SUITES["standard-v2"]
ASIDE = ("at-4", "at-8", "recovery", "known-code")  # nothing stops the first two; the others know more
LABELS = {
    CLEAN: "clean", "emn": "EMN", "pue": "PUE class-wise", "pue-sample": "PUE sample-wise", "lsp": "LSP", "ops": "OPS",
    "hardened": "hardened, 8/255", "hardened-12": "hardened, 12/255", "hardened-16": "hardened, 16/255",
    "hardened-12-strong": "hardened, 12/255, `--visibility strong`",
}  # fmt: skip
OTHERS = ("emn", "pue", "pue-sample", "lsp", "ops")
BUDGETS = ("hardened", "hardened-12", "hardened-16")
SEEN = {
    "hardened-subtle": "hardly seen",
    "hardened": "patches of colour in sky and walls",
    "hardened-strong": "clear patches of colour",
    "hardened-12": "clear patches and ripples; at the normal size seen where a picture is flat",
    "hardened-16": "seen at a glance",
}
RECIPE = "weight-noise-early"
DRAWS = 200


def plan(wanted: argparse.Namespace) -> Iterator[Cell]:
    """Every cell that was asked for, the first seed of all cells first."""
    for seed in wanted.seeds:
        if wanted.certificates:
            for name in wanted.methods:
                setting = {"recipe": RECIPE, "seed": 0}
                yield Cell(kind="certificate", release=name, epochs=None, seeds=(seed,), draws=DRAWS, setting=setting)
            continue
        for arch in wanted.archs:
            for attack in wanted.attacks:
                for name in wanted.methods:
                    if attack in ONLY_ON and ONLY_ON[attack] not in RELEASES.get(name, ()):
                        continue
                    setting = {"augment": False} if wanted.no_augment else {}
                    yield Cell(
                        release=name, attack=attack, arch=arch, epochs=wanted.epochs, seeds=(seed,), setting=setting
                    )


def cells_of(book: Book, release: str, attack: str, arch: str = "resnet8") -> list[Cell]:
    """The attack as the tables mean it: 15 passes, with crops and flips."""
    return book.pick(kind="attack", release=release, attack=attack, arch=arch, setting={}, epochs=15)


def grid(book: Book, columns: Sequence[str], arch: str, labels: dict[str, str], last: str) -> str:
    """Attacks by releases, and under each release the attack that ends highest."""
    rows = [[attack, *(entry(cells_of(book, name, attack, arch)) for name in columns)] for attack in ATTACKS]
    rows = [row for row in rows if any(row[1:])]
    rows.append([last, *(worst(book, name, arch) for name in columns)])
    return markdown(["attack", *(labels.get(name, name) for name in columns)], rows)


def worst(book: Book, release: str, arch: str) -> str:
    """The attack that ends highest, by the mean over seeds, and where."""
    found = {name: pooled(cells_of(book, release, name, arch), "accuracy") for name in ATTACKS if name not in ASIDE}
    ends = {name: spread.mean for name, spread in found.items() if spread}
    if not ends:
        return ""
    name = max(ends, key=ends.__getitem__)
    return f"{100 * ends[name]:.0f} {name}"


def tables(book: Book, arch: str = "resnet8") -> str:
    """Methods by attacks."""
    shown = [name for name in METHODS if any(cells_of(book, name, attack, arch) for attack in ATTACKS)]
    told = f"Percent, end / best pass [clean images behind the same filter; clean share alone]; network {arch}"
    last = f"worst, {', '.join(ASIDE)} aside"
    return f"{told}\n\n{grid(book, shown, arch, {}, last)}"


def against_all(book: Book) -> str:
    """Every method; only attacks that were run on other methods than the hardened one."""
    columns = (CLEAN, *OTHERS, "hardened", "hardened-12")
    shown = [cell for cell in book.cells if any(cells_of(book, name, str(cell.attack)) for name in OTHERS)]
    kept = {cell.attack for cell in shown} | {"mid-notch"}
    fewer = Book(book.sources, [cell for cell in book.cells if cell.attack in kept])
    return grid(fewer, columns, "resnet8", LABELS, "worst, those set aside not counted")


def corrected(book: Book) -> str:
    """Cells that will replace older ones, next to these."""
    rows = []
    for cell in book.pick(kind="again"):
        before = cells_of(book, cell.release, str(cell.attack))
        keys = ", ".join(map(str, cell.seeds or ()))
        rows.append([LABELS.get(cell.release, cell.release), str(cell.attack), entry(before), entry([cell]), keys])
    return markdown(["release", "attack", "before", "now", "key"], rows)


def budgets(book: Book) -> str:
    """The hardened method at three budgets."""
    return grid(book, (CLEAN, *BUDGETS), "resnet8", LABELS, "worst, those set aside not counted")


def networks(book: Book) -> str:
    """Other networks against the hardened method."""
    rows = []
    for arch, label in (("resnet18", "ResNet-18"), ("cnn", "cnn")):
        for attack in ATTACKS:
            entries = [entry(cells_of(book, name, attack, arch)) for name in (CLEAN, *BUDGETS)]
            if any(entries):
                rows.append([label, attack, *entries])
    return markdown(["network", "attack", *(LABELS[name] for name in (CLEAN, *BUDGETS))], rows)


def wide_notches(book: Book) -> str:
    """How far a notch gets, by the number of indices that it takes out."""
    found = [cell for cell in book.pick(kind="notch") if cell.setting["attackers"] == "0"]
    heads, rows = ["indices taken out"], []
    for name in ("hardened", "hardened-12"):
        heads += [LABELS[name], "clean behind it"]
    for indices in sorted({cell.setting["indices"] for cell in found}):
        row = [str(indices)]
        for name in ("hardened", "hardened-12"):
            cells = [cell for cell in found if cell.release == name and cell.setting["indices"] == indices]
            _, end, best, clean = notches.row(indices, cells)
            row += [f"{end} / {best}", clean]
        rows.append(row)
    return markdown(heads, rows)


def repeated_notches(book: Book) -> str:
    """The same attack on the same release, with other seeds of the attacker."""
    rows = []
    for name in ("hardened-12", "hardened-16"):
        for key in range(3):
            again = [cell for cell in book.pick(kind="notch", release=name, seeds=(key,)) if
                     cell.setting["indices"] == 30 and cell.setting["attackers"] != "0"]  # fmt: skip
            first = of_seed(cells_of(book, name, "wide-notch"), "accuracy", key)
            shown = "" if first is None else f"{100 * first:.0f}"
            rows.append([LABELS[name], str(key), shown, percent(pooled(again, "accuracy"))])
    return markdown(["release", "key", "first run", "three further runs"], rows)


def seen(book: Book) -> str:
    """Visibility next to what attacks get, key 0."""
    attacks = ("standard", "jpeg-10", "pst-colour", "notch")
    rows = []
    for cell in book.pick(kind="visibility"):
        ends = [of_seed(cells_of(book, cell.release, attack), "accuracy", 0) for attack in attacks]
        shown = ["" if end is None else f"{100 * end:.0f}" for end in ends]
        rows.append([*visibility.row(cell), SEEN[cell.release], *shown])
    return markdown([*visibility.HEADS, "at three times the size", *attacks], rows)


def certificates(book: Book) -> str:
    """The bound at eta 0.03 for each release, key and seed of `certify`."""
    rows = []
    for cell in book.pick(kind="certificate"):
        if cell.setting.get("code"):
            continue
        keys = "" if cell.seeds is None else " ".join(map(str, cell.seeds))
        rows.append([LABELS[cell.release], keys, str(cell.setting["seed"]), percent(pooled([cell], "eta 0.03"), 1)])
    return markdown(["images", "key", "`certify --seed`", "bound at eta 0.03, percent"], rows)


def without_crops(book: Book) -> str:
    """LSP and OPS, which crops and flips weaken."""
    found = [cell for cell in book.pick(kind="attack", attack="standard") if "augment" in cell.setting]
    rows = [
        [LABELS[cell.release], str(cell.arch), f"{cell.epochs:g}", "yes" if cell.setting["augment"] else "no",
         percent(pooled([cell], "accuracy"), 0 if cell.setting["augment"] else 1)] for cell in found
    ]  # fmt: skip
    return markdown(["release", "network", "passes", "crops and flips", "plain training, percent"], rows)


def as_methods(book: Book) -> str:
    """LSP and OPS as `--method lsp` and `--method ops` release them."""
    cells = {(cell.attack, cell.release): cell for cell in book.pick(kind="attack") if "package" in cell.setting}
    attacks = [attack for attack in SUITES["standard-v2"] if (attack, "lsp") in cells]
    rows = [[attack, *(entry([cells[attack, name]], 1) for name in ("lsp", "ops"))] for attack in attacks]
    return markdown(["attack", "`--method lsp`", "`--method ops`"], rows)


def hybrids(book: Book) -> str:
    """The budget shared with optimised noise, on an earlier code."""
    shown = {"hybrid": "PUE 3/255 on a code of 5/255", "hybrid-6": "PUE 2/255 on a code of 6/255"}
    rows = [[label, str(cell.attack), entry([cell])] for name, label in shown.items()
            for cell in book.pick(kind="attack", release=name)]  # fmt: skip
    return markdown(["release", "attack", "key 0, percent"], rows)


def page(book: Book) -> str:
    """The whole page."""
    return "\n\n".join([
        head("Every method against the same attacks", NAME, book), prose(MEASURED),
        prose(METHODS_BY_ATTACKS), against_all(book), prose(AFTER_METHODS), prose(CORRECTED), corrected(book),
        prose(HARDENED), budgets(book), prose(TAKE),
        prose(NOTCHES), wide_notches(book), prose(AGAIN), repeated_notches(book),
        prose(NETWORKS), networks(book), prose(OTHER_LIMITS),
        prose(VISIBLE), seen(book), prose(CERTIFICATES), certificates(book), prose(AFTER_CERTIFICATES),
        prose(CROPS), without_crops(book), prose(AS_METHODS), as_methods(book), prose(HYBRIDS), hybrids(book),
    ])  # fmt: skip


MEASURED = """
The same 5,000 CIFAR-10 photographs as [EMN and PUE on CIFAR-10](cifar10.md), 15 passes of resnet8 unless said,
chance 10 %. Accuracy is measured on the 500 test images that no choice was made on. A cell shows percent of clean
test images: end of training / best pass. Brackets hold what clean images give behind the same filter; for
`recovery` it is what the attacker's fifth of the clean images gives alone. `clean` trains on the originals in the
same way. A range in round brackets is over keys 0 to 2 (the owner's seeds); a single figure is key 0.
"""
METHODS_BY_ATTACKS = """
## Methods by attacks

Compare by the last row, the worst attack. It leaves out `at-4`, `at-8`, `recovery` and `known-code`: adversarial
training gets past every method here, and the other two attackers know more than the released files.
"""
AFTER_METHODS = """
EMN, PUE, LSP and OPS each lose everything to an attack that costs one or two plain trainings. On all of CIFAR-10
with ResNet-18, measured by others, it is no different: EMN 94 %, REM 92 % and LSP 93 % (UEraser), OPS 79 % (JPEG);
clean is about 95 % ([APBench](https://github.com/lafeat/apbench)'s leaderboard). This project has not measured that
size, which needs a GPU.
"""
CORRECTED = """
## Weight noise and recovery, measured again

`weight-noise`, `weight-noise-short` and `recovery` took BatchNorm statistics from images in the order of classes; some
classes counted too much or not at all. The attacks were corrected and are measured again, key 0 first. Cells of the
other tables are replaced where they were one run. Those of several keys are below, next to what is measured now.
"""
HARDENED = """
## The hardened method at three budgets

`--method hardened`, standard visibility. `at-8` and `at-4` are adversarial training; `wide-notch` takes out 30
indices of the block DCT.
"""
TAKE = """
**Take 12/255** if the pictures can look noisier. At 12/255 no attack of `standard-v1` on resnet8 ended above 28 %
with any key (31 % at the best pass), and no filter made against the code ended above 33 % (42 %), where clean
images behind it have 48 to 61 %. There are four exceptions: adversarial training; `recovery`, whose attacker holds
a fifth of the clean images and could have trained to 49 % on these alone; an attacker who knows the code book
(`known-code`); and `wide-notch`.

At 8/255 the highest figure of `standard-v1` is 29 % (35 %) on average over the keys, and 41 % (42 %) with the worst
key. More filters get past it, and `protect` says so. 16/255 buys little more than 12/255: against the wide notch 26
% on average instead of 33 %, and not with every key.
"""
NOTCHES = """
## The method does not stop a notch that is wide enough

This attacker removes the indices that tell the released classes apart most, and chooses how many. Removing 30 indices
erases the code and keeps the picture. Printed by `notches.py`.
"""
AGAIN = """
Results vary between runs, and an attacker can repeat a run until one succeeds. The wide notch (30 indices) at the
end of training, percent; the further runs have the attacker's seeds 2 to 4 (`--indices 30 --seeds 2 3 4`, one key
at a time):
"""
NETWORKS = """
## The method does not hold on every network

At 8/255 PST with colour jitter got past it on ResNet-18. The cnn has no BatchNorm and learns the code late: at
12/255 it still reaches 40 % on average with `pst-colour`, and passes that early in training. Ranges are over keys 0
to 2, single figures are key 0.
"""
OTHER_LIMITS = """
## Other limits of the hardened method

- **It does not stop an attacker who knows the code book.** `known-code` subtracts what fits the book. A secret key
  (`--seed`) does not help: the code can be read off the energies of the released classes.
- **It does little against adversarial training.** `at-8` gets the same at 8/255 and 12/255 as on clean images, and
  39 % at 16/255. `at-4` gets 48 % at 8/255 (clean 49 %), and 46, 33 and 32 % at 12/255 with keys 0 to 2.
- **At 8/255 filters made against it still get through**, with some keys or with all: `notch` 23 to 45 %, `mid-notch` 41
  to 48 %, `equalise` 20 to 46 %.
- **A single run may get past it where the mean does not.** At 8/255 PST ended at 41, 15 and 21 % with keys 0 to 2, and
  at 18, 18 and 23 % at 12/255. An attacker can repeat a run that failed.
- **It holds less on larger photographs** ([photographs](photographs.md)), and it fails on many classes that colours
  alone tell apart ([many classes](many_classes.md)).
- **Its self-check passes by little.** After ten passes a fresh network has 16 to 20 % at 8/255 and 14 to 19 % at 12/255
  (keys 0 to 2, limit 20.8 %). `protect` will therefore refuse some keys.
"""
VISIBLE = """
## Visibility

PSNR and SSIM are over 1,000 CIFAR-10 test photographs, and the judgement of the sheet is by eye (printed and drawn
by `visibility.py`). On the right: what attacks get at the end of training, percent, key 0. `subtle` stops plain
training; JPEG, PST and the notch get past it.
"""
CERTIFICATES = """
## Certificates

`pueprotect certify --baseline --draws 200`, sigma 0.05, 1,000 test images, bfloat16. The most learnable surrogate was
always `weight-noise-early`; the four others have noisy medians of 10 to 19 %. The bound:
"""
AFTER_CERTIFICATES = """
The bound lay 15 to 24 points below the clean baseline at 12/255, and 0 to 17 points below it at 8/255. At 8/255 it
depends on the training how much has been learnt by the time it stops early. The code is learnt late: a network that
is stopped early has not yet learnt it and still knows the images, which weakens the certificate. An earlier code of
finer gratings had a bound of 26.3 % next to a baseline of 47.6 % (8/255, key 0, float32).
"""
CROPS = """
## LSP and OPS without crops and flips

The authors of LSP train without random crops and flips by default (`--no-augment`). Both methods keep their codes in
places, and so small a network averages over places when it sees crops and flips. 500 test images, seed 0. These runs
are older than the table of methods by attacks and were made on another machine in float32, so their figures with crops
and flips differ from that table:
"""
AS_METHODS = """
## LSP and OPS as methods of the package

The released files of `--method lsp` and `--method ops` at their defaults, resnet8, one key (0): end of training / best
pass, percent. The self-check refuses both releases, so they were made with `--release-anyway`.
"""
HYBRIDS = """
## The budget shared with optimised noise

PUE noise on top of a texture code gained nothing. It was tried with an earlier code of finer gratings, in float32.
What PUE takes away from PST, if anything, it gives to JPEG.
"""


def main() -> None:
    """Read the command line."""
    parser, commands = parser_of(__doc__)
    measure = commands["run"]
    measure.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    measure.add_argument("--attacks", nargs="+", default=list(ATTACKS), metavar="ATTACK")
    measure.add_argument("--archs", nargs="+", default=["resnet8", "cnn"], metavar="ARCH")
    measure.add_argument("--epochs", type=float, default=15)
    measure.add_argument("--no-augment", action="store_true")
    measure.add_argument("--certificates", action="store_true", help="instead of attacks")
    commands["table"].add_argument("--arch", default="resnet8")
    wanted = parser.parse_args()
    shown = partial(tables, arch=wanted.arch) if wanted.command == "table" else tables
    serve(wanted, NAME, plan, shown, page, second_half=True)


if __name__ == "__main__":
    main()
