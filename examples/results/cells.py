"""Cells of the results: measured one at a time, stored at once, collected into a page's JSON, and printed as Markdown.

A cell is one measurement: a release, an attack or a certificate, a network, a length of training and a seed, with the
accuracies that were found. Each script in this folder says which cells its page needs; everything else is here.

- `run` measures the cells that STORE does not hold yet. Each is one JSON file, written when it is finished, so that
  runs can be stopped, repeated, and shared between processes.
- `collect` copies the cells of STORE into `cells/<page>.json`, which the repository keeps.
- `table` prints the tables of what STORE holds, `page` the whole page from the JSON.

torch is loaded only where something is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pueprotect.audit.attacks.base import Attack, AttackResult
    from pueprotect.release.opened import OpenedRelease

KEPT = Path(__file__).resolve().parent / "cells"
WIDTH = 112
RELEASES = {
    "hardened": ["--method", "hardened"],
    "hardened-subtle": ["--method", "hardened", "--visibility", "subtle"],
    "hardened-strong": ["--method", "hardened", "--visibility", "strong"],
    "hardened-12": ["--method", "hardened", "--epsilon", "12/255"],
    "hardened-12-strong": ["--method", "hardened", "--epsilon", "12/255", "--visibility", "strong"],
    "hardened-16": ["--method", "hardened", "--epsilon", "16/255"],
    "hardened-5": ["--method", "hardened", "--epsilon", "5/255"],
    "hardened-6": ["--method", "hardened", "--epsilon", "6/255"],
    "hybrid": ["--method", "pue", "--epsilon", "3/255"],
    "hybrid-6": ["--method", "pue", "--epsilon", "2/255"],
    "pue": ["--method", "pue"],
    "pue-sample": ["--method", "pue", "--mode", "sample-wise"],
    "emn": ["--method", "emn"],
    "lsp": ["--method", "lsp"],
    "ops": ["--method", "ops"],
}
MADE_FROM = {"hybrid": "hardened-5", "hybrid-6": "hardened-6"}  # the others are made from DATA/train
CLEAN = "clean"  # the originals of a release
FIGURES = (
    "accuracy", "best", "clean_behind_filter", "clean_share_alone", "test_images_as_they_are", "alarms"
)  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """Several runs of which only mean and range are known; `by_seed` holds the single runs that are known too."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    by_seed: dict[str, float] = field(default_factory=dict)


Figure = float | Spread


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measurement. What is None is unknown, or does not apply.

    Attributes:
        release: a key of `RELEASES`, or `clean`.
        attack: registered name of an attack; None for what is not an attack.
        arch: the attacker's network, or the surrogate of a certificate.
        epochs: passes of training.
        seeds: the owner's seeds (keys). A measured cell has one; one cell may stand for several runs whose mean and
            range alone are known.
        kind: `attack`, `certificate`, `notch`, `visibility`, `cost` or `audit`; `again` for an attack with fewer seeds
            than the cell that it will replace.
        setting: what else tells this cell from others, such as the radius of a certificate.
        accuracy: clean test accuracy at the end of training, in [0, 1].
        best: at the best pass.
        clean_behind_filter: of the same training on the clean originals behind the same filter.
        clean_share_alone: of training on the attacker's clean images alone.
        test_images_as_they_are: with test images that the attack's filter has not changed.
        alarms: of PST.
        points: further figures by name.
        draws: of a certificate.
        source: key of the page's `sources`, for figures that were transcribed.
        measured: for figures that were measured: options, command, commit, machine, torch, precision, test images and
            seconds.
    """

    release: str
    attack: str | None = None
    arch: str | None = "resnet8"
    epochs: float | None = 15
    seeds: tuple[int, ...] | None = None
    kind: str = "attack"
    setting: dict[str, Any] = field(default_factory=dict)
    accuracy: Figure | None = None
    best: Figure | None = None
    clean_behind_filter: Figure | None = None
    clean_share_alone: Figure | None = None
    test_images_as_they_are: Figure | None = None
    alarms: Figure | None = None
    points: dict[str, Figure] = field(default_factory=dict)
    draws: int | None = None
    source: str | None = None
    measured: dict[str, Any] | None = None

    @property
    def what(self) -> tuple[object, ...]:
        """What was measured, apart from the seed."""
        return (self.kind, self.release, self.attack, self.arch, self.epochs, *sorted(self.setting.items()))

    @property
    def runs(self) -> int:
        """How many runs stand behind the cell."""
        known = self.accuracy or next(iter(self.points.values()), None)
        return known.n or 1 if isinstance(known, Spread) else 1


def as_json(cell: Cell) -> dict[str, Any]:
    """Fields that hold something, and always those that a reader looks for."""
    always = ("release", "attack", "arch", "epochs", "seeds", "accuracy", "best")
    found = asdict(cell)
    for name in (*FIGURES, *found["points"]):
        place = found if name in FIGURES else found["points"]
        if isinstance(place[name], dict):
            place[name] = {key: value for key, value in place[name].items() if value != {}}
    if cell.kind == "attack":
        del found["kind"]
    return {name: value for name, value in found.items() if name in always or value not in (None, {}, [])}


def from_json(found: dict[str, Any]) -> Cell:
    """The cell that `as_json` wrote."""

    def figure(value: Any) -> Any:
        return Spread(**value) if isinstance(value, dict) else value

    known = {name.name for name in fields(Cell)}
    cell = Cell(**{name: value for name, value in found.items() if name in known})
    figures = {name: figure(getattr(cell, name)) for name in FIGURES}
    points = {name: figure(value) for name, value in cell.points.items()}
    return replace(cell, **figures, points=points, seeds=None if cell.seeds is None else tuple(cell.seeds))


# The JSON of a page, and the STORE of a run.


@dataclass(frozen=True)
class Book:
    """What one page rests on: where its figures come from, and its cells."""

    sources: dict[str, dict[str, Any]]
    cells: list[Cell]

    def pick(self, **wanted: Any) -> list[Cell]:
        """Cells whose fields have these values."""
        return [cell for cell in self.cells if all(getattr(cell, name) == value for name, value in wanted.items())]


def read_book(name: str) -> Book:
    """The cells that the repository keeps for a page."""
    found = json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8"))
    return Book(found["sources"], [from_json(cell) for cell in found["cells"]])


def write_book(name: str, book: Book) -> None:
    """One cell a line, so that differences can be read."""
    sources = json.dumps(book.sources, indent=1, ensure_ascii=False)
    lines = ",\n".join(json.dumps(as_json(cell), ensure_ascii=False) for cell in book.cells)
    (KEPT / f"{name}.json").write_text(f'{{"sources": {sources},\n"cells": [\n{lines}\n]}}\n', encoding="utf-8")


def folder_of(store: Path, name: str) -> Path:
    """Where STORE keeps the cells of a page."""
    return store / f"cells-{name}"


def place_of(folder: Path, cell: Cell) -> Path:
    """The file of a measured cell."""
    parts = [cell.kind, cell.release, cell.attack, cell.arch, cell.epochs and f"{cell.epochs:g}"]
    parts += [f"{name}-{value}" for name, value in sorted(cell.setting.items())]
    parts += [str(seed) for seed in cell.seeds or ()]
    return folder / ("_".join(str(part) for part in parts if part is not None) + ".json")


def stored(store: Path, name: str) -> list[Cell]:
    """Every cell of a page that STORE holds."""
    return [from_json(json.loads(path.read_text())) for path in sorted(folder_of(store, name).glob("*.json"))]


def collect(store: Path, name: str) -> list[str]:
    """Put the cells of STORE into a page's JSON, and return those that had to wait.

    A transcribed cell is replaced once as many seeds have been measured as it was made from. Until then the measured
    cells are kept as the kind `again`, so that figures of two kinds are never mixed.
    """
    book, fresh, waiting = read_book(name), stored(store, name), []
    kept = {(cell.what, cell.seeds): cell for cell in book.cells}
    for what in dict.fromkeys(cell.what for cell in fresh):
        new = [cell for cell in fresh if cell.what == what]
        old = [key for key, cell in kept.items() if cell.what == what and cell.measured is None]
        needed = sum(kept[key].runs for key in old)
        if len(new) < needed:
            waiting.append(f"{' '.join(str(part) for part in what)}: {len(new)} of {needed} seeds")
            again = [replace(cell, kind="again") for cell in new]
            kept |= {(cell.what, cell.seeds): cell for cell in again}
            continue
        for key in old:
            del kept[key]
        kept |= {(cell.what, cell.seeds): cell for cell in new}
        kept = {key: cell for key, cell in kept.items() if cell.kind != "again" or cell.what[1:] != what[1:]}
    write_book(name, Book(book.sources, list(kept.values())))
    return waiting


# Measuring.


@dataclass(frozen=True)
class Place:
    """Where images come from and results go, and on which test images figures are counted."""

    data: Path
    store: Path
    page: str
    second_half: bool = False  # of DATA/test: every second image
    originals: str = "hardened"  # the release whose originals are the clean images: the fastest to make


def key_of(seed: int) -> str:
    """The key of the release of a seed. It is public, so that figures repeat; a release for use draws its own."""
    return hashlib.sha256(f"results {seed}".encode()).hexdigest()[:32]


def protected(store: Path, source: Path, name: str, seed: int) -> Path:
    """The release folder of one method and seed under STORE, made on first use."""
    out = store / f"{name}-{seed}"
    if not (out.with_name(out.name + ".vault") / "run.json").exists():
        if name in MADE_FROM:
            first = protected(store, source, MADE_FROM[name], seed)
            source = store / "sources" / f"{name}-{seed}"  # away from the vault, by which `protect` knows a release
            shutil.copytree(first, source, dirs_exist_ok=True)
        command = [sys.executable, "-m", "pueprotect", "protect", str(source), "--out", str(out)]
        command += ["--format", "png", "--seed", str(seed), "--key", key_of(seed), "--release-anyway", "--json"]
        command += RELEASES[name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        (store / f"protect-{name}-{seed}.json").write_text(done.stdout)
    return out


def on_disk(release: Path, test: Path, *, second_half: bool) -> OpenedRelease:
    """A released folder, measured on clean images, or on the half of them that no choice was made on."""
    from pueprotect.learning.device import this_machine
    from pueprotect.release.opened import open_release

    found = open_release(release, test=test, machine=this_machine())
    if second_half:
        found.test = found.test.subset(slice(1, None, 2))
    return found


def opened(place: Place, name: str, seed: int) -> OpenedRelease:
    """The release of a method and seed, made on first use; `clean` opens the one whose originals are taken."""
    out = protected(place.store, place.data / "train", place.originals if name == CLEAN else name, seed)
    return on_disk(out, place.data / "test", second_half=place.second_half)


def attacked(
    found: OpenedRelease, attack: Attack, *, arch: str, epochs: float, seed: int, share_seed: int = 0,
    augment: bool = True, clean: bool = False, source: OpenedRelease | None = None,
) -> AttackResult:  # fmt: skip
    """Run one attack. This is the only place where a `Target` is made.

    Args:
        found: the release; its test images measure.
        attack: a registered attack, or one like it.
        arch: the attacker's network.
        epochs: passes of training.
        seed: the attacker's. It should not be the owner's: their networks must not start from the same weights.
        share_seed: chooses the fifth of the clean images that some attacks hold.
        augment: whether training crops and flips.
        clean: train on the clean originals instead of the released files.
        source: the release whose originals are the clean ones, where `found` was made from other than clean images.
    """
    from pueprotect.audit.attacks import Target
    from pueprotect.audit.attacks.base import CLEAN_SHARE, clean_share
    from pueprotect.learning.training import Schedule
    from pueprotect.protect.methods.base import scheme_of

    originals = (source or found).originals
    assert originals is not None, "the originals of the release are no longer in their place"
    share = clean_share(originals, 0.2, share_seed) if attack.needs == CLEAN_SHARE else None
    target = Target(
        originals if clean else found.released, arch, Schedule(epochs=epochs, augment=augment), seed, share,
        (0.5, 1.0, 2.0), originals=None if clean else originals, scheme=None if clean else scheme_of(found.run),
    )  # fmt: skip
    return attack.run(target, found.test)


def measure(place: Place, cell: Cell) -> Cell:
    """One cell with its figures: an attack, or a certificate."""
    (seed,) = cell.seeds or (0,)
    found = opened(place, cell.release, seed)
    if cell.kind == "certificate":
        return _certified(found, cell, seed)
    from pueprotect.audit.attacks import find
    from pueprotect.release.audits import AS_THEY_ARE, CLEAN_BEHIND_IT, CLEAN_SHARE_ALONE

    assert cell.attack is not None
    assert cell.arch is not None
    assert cell.epochs is not None
    source = opened(place, MADE_FROM[cell.release], seed) if cell.release in MADE_FROM else None
    result = attacked(
        found, find(cell.attack), arch=cell.arch, epochs=cell.epochs, seed=seed + 100, share_seed=seed,
        augment=cell.setting.get("augment", True), clean=cell.release == CLEAN, source=source,
    )  # fmt: skip
    points = dict(result.details.get("points", {}))
    filtered, alone, plain = (points.pop(name, None) for name in (CLEAN_BEHIND_IT, CLEAN_SHARE_ALONE, AS_THEY_ARE))
    return replace(
        cell, accuracy=result.accuracy, best=result.best_accuracy, clean_behind_filter=filtered, points=points,
        clean_share_alone=alone, test_images_as_they_are=plain, alarms=result.details.get("alarms"),
    )  # fmt: skip


def _certified(found: OpenedRelease, cell: Cell, seed: int) -> Cell:
    """A certificate around one surrogate, trained with another seed than the owner's: median of the draws, bounds."""
    from pueprotect.certify.certificate import CertificateSettings, certify
    from pueprotect.certify.surrogates import train_surrogates
    from pueprotect.learning.training import Schedule

    images = found.originals if cell.release == CLEAN else found.released
    assert images is not None
    recipe = cell.setting["recipe"]
    settings = CertificateSettings(sigma=0.05, draws=cell.draws or 1000, seed=cell.setting.get("seed", seed))
    model = found.online_surrogate() if recipe == "online" and cell.release != CLEAN else None
    if model is None:
        schedule = Schedule(epochs=cell.epochs or 15)
        trained = train_surrogates(
            recipe, found.default_arch, images, found.test, settings.sigma, schedule, seed=settings.seed + 100
        )
        model = trained[recipe]
    made = certify(model, recipe, images, found.test, settings)
    bounds = {f"eta {point.eta:g}": point.certified_learnability for point in made.curve}
    points: dict[str, Figure] = {name: bound for name, bound in bounds.items() if bound is not None}
    return replace(
        cell, accuracy=made.noisy_accuracy.median, points=points | {"own accuracy": made.surrogate_clean_accuracy}
    )


def commit() -> str | None:
    """Of this repository, with a mark where files have changed since; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=KEPT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def provenance(place: Place, cell: Cell, seconds: float) -> dict[str, Any]:
    """What a reader needs in order to repeat or to doubt a measured cell."""
    import torch

    from pueprotect.learning.device import choose_device, device_name, native_bf16

    device = choose_device().name
    places = {str(place.store): "STORE", str(place.data): "DATA"}
    words = ["python", f"examples/results/{Path(sys.argv[0]).name}", *(places.get(word, word) for word in sys.argv[1:])]
    test = len(list((place.data / "test").glob("*/*")))
    return {
        "options": RELEASES.get(cell.release), "command": " ".join(words), "commit": commit(),
        "machine": f"{device_name(device)}, {os.cpu_count()} cores, {platform.system()}",
        "torch": str(torch.__version__), "precision": "bf16" if native_bf16(device) else "fp32",
        "threads": torch.get_num_threads(), "test_images": test // 2 if place.second_half else test,
        "seconds": round(seconds, 1),
    }  # fmt: skip


def run(place: Place, plan: Iterable[Cell], how: Callable[[Place, Cell], Cell] = measure) -> None:
    """Measure the cells of a plan that STORE does not hold yet, and store each as it is finished."""
    folder = folder_of(place.store, place.page)
    folder.mkdir(parents=True, exist_ok=True)
    for cell in plan:
        path = place_of(folder, cell)
        if path.exists():
            continue
        began = time.perf_counter()
        done = how(place, cell)
        keep(place, path, done, time.perf_counter() - began)
        shown = "" if not isinstance(done.accuracy, float) else f"{done.accuracy:.4f}"
        print(f"{path.stem} | {shown}", flush=True)


def keep(place: Place, path: Path, cell: Cell, seconds: float) -> None:
    """Write a finished cell; a killed run leaves no half of one."""
    cell = replace(cell, measured=provenance(place, cell, seconds) | (cell.measured or {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(as_json(cell), indent=1))
    unfinished.replace(path)


# Printing.


def figure_of(cell: Cell, name: str) -> Figure | None:
    """A field of a cell, or one of its points."""
    found: Figure | None = getattr(cell, name) if name in FIGURES else cell.points.get(name)
    return found


def pooled(cells: Sequence[Cell], name: str) -> Spread | None:
    """Mean and range over all runs of some cells; None where nothing is known."""
    figures = [figure_of(cell, name) for cell in cells]
    spreads = [
        figure if isinstance(figure, Spread) else Spread(figure, n=1) for figure in figures if figure is not None
    ]
    if not spreads:
        return None
    runs = [spread.n or 1 for spread in spreads]
    mean = sum(spread.mean * n for spread, n in zip(spreads, runs, strict=True)) / sum(runs)
    lows = [spread.mean if spread.low is None else spread.low for spread in spreads]
    highs = [spread.mean if spread.high is None else spread.high for spread in spreads]
    return Spread(mean, min(lows), max(highs), sum(runs))


def of_seed(cells: Sequence[Cell], name: str, seed: int) -> float | None:
    """A figure of one seed, where it is known."""
    for cell in cells:
        figure = figure_of(cell, name)
        if isinstance(figure, Spread):
            if str(seed) in figure.by_seed:
                return figure.by_seed[str(seed)]
        elif figure is not None and cell.seeds == (seed,):
            return float(figure)
    return None


def percent(spread: Spread | None, digits: int | None = 0) -> str:
    """The mean, and the range of several runs: `17 (16-19)`; without `digits` one where it is not 0."""

    def shown(value: float) -> str:
        return f"{round(100 * value, 1):g}" if digits is None else f"{100 * value:.{digits}f}"

    if spread is None:
        return ""
    if (spread.n or 1) < 2 or spread.low is None or spread.high is None:
        return shown(spread.mean)
    return f"{shown(spread.mean)} ({shown(spread.low)}-{shown(spread.high)})"


def entry(cells: Sequence[Cell], digits: int | None = 0) -> str:
    """End of training / best pass [clean images behind the same filter, or the attacker's clean images alone]."""
    shown = percent(pooled(cells, "accuracy"), digits)
    if best := percent(pooled(cells, "best"), digits):
        shown += f" / {best}"
    bracket = pooled(cells, "clean_behind_filter") or pooled(cells, "clean_share_alone")
    return f"{shown} [{percent(bracket, digits)}]" if bracket else shown


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def wrapped(text: str, first: str = "", rest: str = "") -> str:
    """Lines of a page; a number and its unit stay together, and so does code that is not too long."""
    kept = re.sub(r"(?<=\d) (?=%|dB\b)", "\0", text)
    kept = re.sub(r"`[^`]{,100}`", lambda code: code[0].replace(" ", "\0"), kept)
    lines = textwrap.fill(
        kept, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return lines.replace("\0", " ")


def prose(text: str) -> str:
    """Paragraphs, wrapped; lists, tables and headings stay as they are."""
    parts = [part.strip() for part in text.strip().split("\n\n")]
    return "\n\n".join(part if part.startswith(("- ", "|", "#", "```")) else wrapped(part) for part in parts)


def described(source: dict[str, Any]) -> str:
    """One source of a page: what it covers, where it comes from, and what is known of how it was measured."""
    told = {"machine": "machine", "torch": "torch", "precision": "precision", "seeds": "seeds", "spread": "spread"}
    parts = [f"{name}: {source.get(key) or 'not recorded'}" for key, name in told.items()]
    command = f"`{source['command']}`" if source.get("command") else "not recorded"
    lines = [f"**{source['covers']}** {source['from']}. {'; '.join(parts)}; command: {command}."]
    if source.get("note"):
        lines.append(source["note"])
    return wrapped(" ".join(lines), "- ", "  ")


def measured_sources(cells: Iterable[Cell]) -> list[str]:
    """One item for each way in which cells of a page were measured."""
    keys = ("machine", "torch", "precision", "commit", "command")
    found = Counter(tuple(str(cell.measured.get(key)) for key in keys) for cell in cells if cell.measured)
    lines = []
    for values, count in found.items():
        told = "; ".join(f"{key}: {value}" for key, value in zip(keys, values, strict=True))
        lines.append(wrapped(f"**Measured cells: {count}.** {told}.", "- ", "  "))
    return lines


def head(title: str, name: str, book: Book) -> str:
    """The top of a page: how it was printed, and where each figure comes from."""
    used = {cell.source for cell in book.cells}
    sources = [described(source) for key, source in book.sources.items() if key in used]
    printed = f"<!-- Printed by: python examples/results/{name}.py page. Change the script or cells/{name}.json. -->"
    told = (
        f"This page is printed by `python examples/results/{name}.py page` from [its cells](cells/{name}.json).\n"
        "[How to read a cell](README.md). Where the figures come from:"
    )
    return "\n\n".join([printed, f"# {title}", told, "\n".join(sources + measured_sources(book.cells))])


# The command line of a page.


def parser_of(
    doc: str | None, places: Sequence[str] = ("DATA", "STORE"), **more: str
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The commands that every page has: run, collect, table and page; and `more`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    about = {
        "run": "measure what STORE does not hold yet", "collect": "copy the cells of STORE into the page's JSON",
        "table": "print the tables of what STORE holds", "page": "print the page from its JSON",
    }  # fmt: skip
    about |= more
    made = {name: commands.add_parser(name, help=text) for name, text in about.items()}
    *data, store = places
    for name in data:
        made["run"].add_argument("data", type=Path, metavar=name, help="train/<class>/* and test/<class>/*")
    for name in ("run", "collect", "table"):
        made[name].add_argument("store", type=Path, metavar=store)
    made["run"].add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="the owner's (keys)")
    made["run"].add_argument("--threads", type=int, default=1)
    return parser, made


def use_threads(count: int) -> None:
    """For this process and those that it starts."""
    import torch

    torch.set_num_threads(count)
    os.environ["OMP_NUM_THREADS"] = str(count)


def serve(
    wanted: argparse.Namespace, name: str, plan: Callable[[argparse.Namespace], Iterable[Cell]],
    tables: Callable[[Book], str], page: Callable[[Book], str], *,
    how: Callable[[Place, Cell], Cell] = measure, **choices: Any,
) -> None:  # fmt: skip
    """Do what the command line of a page asks for; `choices` are fields of `Place`."""
    if wanted.command == "run":
        use_threads(wanted.threads)
        store = wanted.store
        run(Place(getattr(wanted, "data", store), store, name, **choices), plan(wanted), how)
    elif wanted.command == "collect":
        for line in collect(wanted.store, name):
            print(f"next to the older cell until there are more seeds: {line}")
    elif wanted.command == "table":
        print(tables(Book({}, stored(wanted.store, name))))
    else:
        print(page(read_book(name)))
