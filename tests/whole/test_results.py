"""Pages of results are what their scripts print; every script answers --help and runs in its smallest form."""

import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from helpers import Release, write_photos
from PIL import Image

import pueprotect
from pueprotect.images.folders import scan

ROOT = Path(pueprotect.__file__).parents[1]
EXAMPLES = Path(__file__).parents[2] / "examples"
RESULTS = EXAMPLES / "results"
BY_HAND = {"README.md", "what_did_not_work.md", "sample.md", "trials.md", "mutants.md"}
PAGES = sorted(path.stem for path in RESULTS.glob("*.md") if path.name not in BY_HAND)
# The command reference has a test of its own, which holds it against the live help.
SCRIPTS = sorted(
    path.relative_to(EXAMPLES).as_posix()
    for path in EXAMPLES.rglob("*.py")
    if "__main__" in path.read_text(encoding="utf-8") and path.name != "reference.py"
)


def call(*words: object, place: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script of the examples."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True)


def printed(*words: object) -> list[str]:
    done = call(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def cells() -> ModuleType:
    """examples/results/cells.py"""
    spec = importlib.util.spec_from_file_location("cells_of_results", RESULTS / "cells.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def store(release: Release, tmp_path: Path) -> tuple[Path, Path]:
    """DATA with test images, and a STORE that holds a release under the names that scripts look for."""
    data, store = tmp_path / "data", tmp_path / "store"
    data.mkdir()
    write_photos(data / "test", seed=9)
    for name in ("pue-0", "hardened-0"):
        shutil.copytree(release.out, store / name)
        shutil.copytree(release.vault, store / f"{name}.vault")
    return data, store


def test_there_is_a_page_for_each_question() -> None:
    assert PAGES == ["cifar10", "kinds", "many_classes", "methods", "photographs"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_its_script_prints(name: str) -> None:
    """So no figure of a table can be typed."""
    script = RESULTS / f"{name}.py"
    done = call(script, "page")
    assert done.returncode == 0, done.stderr
    written = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    assert written == done.stdout, f"renew it: python examples/results/{name}.py page > examples/results/{name}.md"


@pytest.mark.parametrize("name", PAGES)
def test_every_cell_says_where_it_comes_from(name: str) -> None:
    kept = json.loads((RESULTS / "cells" / f"{name}.json").read_text(encoding="utf-8"))
    for source in kept["sources"].values():
        assert {"covers", "from", "machine", "torch", "precision", "seeds", "spread", "commit", "command"} <= set(
            source
        )
    for cell in kept["cells"]:
        assert (cell.get("source") in kept["sources"]) != ("measured" in cell), cell
        assert {"release", "attack", "arch", "epochs", "seeds", "accuracy", "best"} <= set(cell)


@pytest.mark.parametrize(
    "page", sorted([*RESULTS.glob("*.md"), *EXAMPLES.glob("benchmarks/*.md")]), ids=lambda path: path.name
)
def test_lines_of_a_page_are_short(page: Path) -> None:
    """Rows of tables cannot be."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


@pytest.mark.parametrize("script", [name for name in SCRIPTS if not name.startswith("benchmarks/")])
def test_every_script_explains_itself(script: str, tmp_path: Path) -> None:
    done = call(EXAMPLES / script, "--help", place=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name.startswith("benchmarks/")])
def test_every_benchmark_explains_itself(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, where torch is loaded already."""
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")
    assert list(tmp_path.iterdir()) == []


def test_a_mutant_meets_the_tests_of_its_own_module_quickest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = "tests/certify/test_bounds.py::test_", "tests/certify/test_draws.py::test_"
    seconds = {f"{own}slow": 2.0, f"{own}quick": 0.1, f"{other}quick": 0.1}
    (tmp_path / "mutmut-stats.json").write_text(json.dumps({"duration_by_test": seconds}))
    monkeypatch.chdir(tmp_path)
    choose = runpy.run_path(str(RESULTS / "mutants.py"))["pytest_collection_modifyitems"]
    for mutant, kept in (
        ("pueprotect.certify.bounds.x_check__mutmut_3", [f"{own}new", f"{own}quick", f"{own}slow"]),
        ("stats", [*seconds, f"{own}new"]),
    ):
        monkeypatch.setenv("MUTANT_UNDER_TEST", mutant)
        items = [SimpleNamespace(nodeid=name) for name in (*seconds, f"{own}new")]
        choose(items)
        assert [item.nodeid for item in items] == kept


def kept_cells(folder: Path, *cells: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    for number, cell in enumerate(cells):
        (folder / f"{number}.json").write_text(json.dumps({"arch": "resnet8", "epochs": 15} | cell))


def test_the_table_of_methods_by_attacks(tmp_path: Path) -> None:
    """Mean and spread over seeds, end and best pass, clean images behind the same filter, and the worst attack."""
    notch = {"release": "hardened", "attack": "notch", "accuracy": 0.2, "best": 0.3, "clean_behind_filter": 0.5}
    kept_cells(
        tmp_path / "cells-methods",
        notch | {"seeds": [0]},
        notch | {"seeds": [1], "accuracy": 0.3},
        {"release": "hardened", "attack": "at-8", "seeds": [0], "accuracy": 0.4, "best": 0.4},
        {"release": "hardened", "attack": "colour", "seeds": [0], "accuracy": 0.24, "best": 0.4},
        {"release": "pue", "attack": "standard", "seeds": [0], "accuracy": 0.101, "best": 0.28},
    )
    assert printed(RESULTS / "methods.py", "table", tmp_path)[-7:] == [
        "| attack | hardened | pue |",
        "|---|---|---|",
        "| standard |  | 10 / 28 |",
        "| colour | 24 / 40 |  |",
        "| at-8 | 40 / 40 |  |",
        "| notch | 25 (20-30) / 30 (30-30) [50 (50-50)] |  |",
        "| worst, at-4, at-8, recovery, known-code aside | 25 notch | 10 standard |",
    ]


def test_ranges_stand_only_where_there_are_several_seeds(cells: ModuleType) -> None:
    one, two = (cells.Cell(release="pue", attack="standard", seeds=(seed,), accuracy=value)
                for seed, value in ((0, 0.2), (1, 0.4)))  # fmt: skip
    assert cells.entry([one]) == "20"
    assert cells.entry([one, two], 1) == "30.0 (20.0-40.0)"
    several = replace(one, seeds=(0, 1, 2), accuracy=cells.Spread(0.3, 0.1, 0.4, 3, {"1": 0.1}))
    assert cells.entry([several]) == "30 (10-40)"
    assert cells.of_seed([several], "accuracy", 1) == 0.1
    assert cells.of_seed([several], "accuracy", 0) is None


def test_a_cell_survives_its_json(cells: ModuleType) -> None:
    cell = cells.Cell(
        kind="notch", release="hardened", attack="wide-notch", seeds=(0, 2), setting={"indices": 5, "attackers": "0"},
        accuracy=cells.Spread(0.3, 0.1, 0.4, 3, {"1": 0.1}), best=0.5, points={"eta 1": cells.Spread(0.2)}, alarms=1,
        measured={"machine": "this one"},
    )  # fmt: skip
    assert cells.from_json(json.loads(json.dumps(cells.as_json(cell)))) == cell


def test_a_transcribed_cell_gives_way_to_as_many_measured_ones(
    cells: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "KEPT", tmp_path)
    old = cells.Cell(release="pue", attack="pst", seeds=(0, 1), accuracy=cells.Spread(0.5, 0.4, 0.6, 2), source="old")
    other = replace(old, attack="colour")
    cells.write_book("methods", cells.Book({"old": {}}, [old, other]))
    new = [replace(old, seeds=(seed,), accuracy=0.3, source=None, measured={"machine": "this"}) for seed in (0, 1)]
    kept_cells(tmp_path / "cells-methods", cells.as_json(new[0]))
    assert cells.collect(tmp_path, "methods") == ["attack pue pst resnet8 15: 1 of 2 seeds"]
    assert cells.read_book("methods").cells == [old, other, replace(new[0], kind="again")]
    shutil.rmtree(tmp_path / "cells-methods")
    kept_cells(tmp_path / "cells-methods", *map(cells.as_json, new))
    assert cells.collect(tmp_path, "methods") == []
    assert cells.read_book("methods").cells == [other, *new]


def test_measured_cells_are_named_on_their_page(cells: ModuleType) -> None:
    known = {"machine": "a processor", "torch": "2.0", "precision": "fp32", "commit": "abc", "command": "python x.py"}
    book = cells.Book({}, [cells.Cell(release="pue", seeds=(seed,), measured=known) for seed in (0, 1)])
    top = cells.head("Title", "methods", book)
    assert "**Measured cells: 2.** machine: a processor; torch: 2.0; precision: fp32; commit: abc;" in top


def test_a_cell_is_measured_once_with_its_provenance(store: tuple[Path, Path]) -> None:
    data, kept = store
    words = ["run", data, kept, "--methods", "pue", "--attacks", "standard", "--archs", "cnn", "--seeds", 0]
    words += ["--epochs", 1]
    (line,) = printed(RESULTS / "methods.py", *words)
    assert line.startswith("attack_pue_standard_cnn_1_0 | 0.")
    assert printed(RESULTS / "methods.py", *words) == [], "it is there already"
    (path,) = (kept / "cells-methods").iterdir()
    measured = json.loads(path.read_text())["measured"]
    assert measured["options"] == ["--method", "pue"]
    assert measured["test_images"] == 30, "every second one"
    assert measured["command"].startswith("python examples/results/methods.py run ")
    assert all(measured[name] for name in ("machine", "torch", "precision", "threads", "seconds"))


def test_attacks_and_certificates_of_cifar10(store: tuple[Path, Path]) -> None:
    """One row of each kind; the clean line trains on the originals."""
    data, kept = store
    words = ["run", data, kept, "--seeds", 0, "--only", "clean, cnn, 15 epochs", "PUE class-wise: recovery"]
    assert len(printed(RESULTS / "cifar10.py", *words)) == 2
    rows = [line.split("|")[1].strip() for line in printed(RESULTS / "cifar10.py", "table", kept) if "%" in line]
    assert rows[:2] == ["clean, cnn, 15 epochs", "PUE class-wise: recovery"]
    assert rows[-1] == "- clean share alone"


def test_a_certificate_is_a_cell(store: tuple[Path, Path]) -> None:
    data, kept = store
    words = ["run", data, kept, "--certificates", "--methods", "clean", "--seeds", 0]
    assert len(printed(RESULTS / "methods.py", *words)) == 1
    (path,) = (kept / "cells-methods").iterdir()
    found = json.loads(path.read_text())
    assert found["draws"] == 200
    assert 0 <= found["points"]["eta 0.03"] <= 1


def test_notches_from_none_to_all(release: Release, tmp_path: Path) -> None:
    """A row for each number of indices, each next to clean images; more than there are is refused."""
    command = [RESULTS / "notches.py", release.out, "--test", write_photos(tmp_path / "test", seed=9)]
    command += ["--epochs", "1", "--arch", "cnn", "--indices"]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed(*command, "0", "63")[-2:]]
    assert [row[0] for row in rows] == ["0", "63"]
    assert all(0 <= int(cell) <= 100 for row in rows for cell in row[1:])
    last = printed(*command, "5", "--seeds", "0", "1")[-1]
    assert all("-" in cell for cell in last.split("|")[2:-1]), "the spread over two attackers"
    done = call(*command, "64")
    assert done.returncode == 2
    assert "invalid choice: 64" in done.stderr


def test_notches_are_kept_as_cells_of_methods(store: tuple[Path, Path]) -> None:
    data, kept = store
    words = [RESULTS / "notches.py", kept / "pue-0", "--test", data / "test", "--epochs", 1, "--arch", "cnn"]
    words += ["--indices", 5, "--store", kept]
    first = printed(*words)
    (path,) = (kept / "cells-methods").iterdir()
    cell = json.loads(path.read_text())
    assert (cell["kind"], cell["release"], cell["seeds"]) == ("notch", "pue", [0])
    path.write_text(json.dumps(cell | {"best": 1.0}))
    again = printed(*words)
    assert first[:-1] == again[:-1]
    assert again[-1].split("|")[3] == " 100 ", "taken up from STORE"


def test_visibility_prints_a_row_for_each_and_draws_a_sheet(photos: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "test", seed=9)
    words = [tmp_path, tmp_path / "sheet.png", "--size", 16, "--store", tmp_path / "store"]
    rows = [line.split("|")[1:3] for line in printed(RESULTS / "visibility.py", *words)[-5:]]
    assert rows[0] == [" subtle ", " 8/255 "]
    assert rows[-1] == [" standard ", " 16/255 "]
    assert (tmp_path / "sheet.png").stat().st_size > 0
    assert len(list((tmp_path / "store/cells-methods").iterdir())) == 5


def test_photographs_are_attacked_at_full_size(store: tuple[Path, Path]) -> None:
    _, place = store
    (place / "photos").mkdir()  # both are there: nothing is drawn or protected
    words = ["run", place, "--epochs", 1, "--archs", "cnn", "--attacks", "jpeg-10"]
    assert len(printed(RESULTS / "photographs.py", *words)) == 2
    row = printed(RESULTS / "photographs.py", "table", place)[-1]
    assert row.startswith("| cnn | jpeg-10 | 1 |")
    assert len([cell for cell in row.split("|") if "/" in cell]) == 2, "clean originals and released files"


def test_photographs_are_protected_on_first_use(release: Release, tmp_path: Path) -> None:
    shutil.copytree(release.src, tmp_path / "photos")  # nothing is drawn
    words = ["run", tmp_path, "--method", "lsp", "--epochs", 1, "--archs", "cnn", "--images", "released"]
    first, cell = printed(RESULTS / "photographs.py", *words)
    assert re.fullmatch(r"protected in \d+ s; self-check .*%, limit .*%, realised {'linf_max': .*}", first)
    assert cell.startswith("attack_lsp_plain_cnn_1_0 | 0.")


@pytest.mark.parametrize(
    ("kind", "modes", "sides"),
    [
        ("grey-16-bit", {"I;16"}, {32}), ("mixed-32", {"L", "RGB"}, {32}), ("mixed-sizes", {"RGB"}, {24, 64}),
        ("alpha-32", {"RGBA"}, {32}), ("grey-jpeg-75", {"L"}, {32}), ("colour-50", {"RGB"}, {50}),
    ],
)  # fmt: skip
def test_pictures_are_turned_into_each_kind(kind: str, modes: set[str], sides: set[int], tmp_path: Path) -> None:
    data, place = tmp_path / "data", tmp_path / "made"
    write_photos(data / "train", 2)
    code = f"import sys; sys.path.insert(0, {str(RESULTS)!r}); from pathlib import Path; import kinds; "
    call("-c", f"{code}kinds.make({kind!r}, Path({str(place)!r}), Path({str(data)!r}), None)").check_returncode()
    found = []
    for path in place.rglob("*.*"):
        with Image.open(path) as picture:
            found.append((picture.mode, picture.size, picture.format))
    assert len(found) == 6
    assert {mode for mode, _, _ in found} == modes
    assert {side for _, size, _ in found for side in size} == sides
    assert {form for _, _, form in found} == {"JPEG" if "jpeg" in kind else "PNG"}


def test_a_set_of_many_classes_is_drawn(tmp_path: Path) -> None:
    """As many classes as asked for, two images of test for five of training, none twice."""
    printed(RESULTS / "many_classes.py", "draw", tmp_path, "--classes", 3, "--per-class", 5)
    folders = {part: scan(tmp_path / part) for part in ("train", "test")}
    assert [(len(found.classes), len(found.entries)) for found in folders.values()] == [(3, 15), (3, 6)]
    assert len({path.read_bytes() for path in tmp_path.rglob("*.jpg")}) == 21


def test_many_classes_are_measured(store: tuple[Path, Path]) -> None:
    data, kept = store
    words = ["run", data, kept, "--own-colours", 0.4, "--seeds", 0, "--attacks", "standard", "--arch", "cnn"]
    printed(RESULTS / "many_classes.py", *words, "--epochs", 1)
    row = printed(RESULTS / "many_classes.py", "table", kept)[-1]
    assert row.startswith("| 0.4 | standard |")
    assert len([cell for cell in row.split("|") if "/" in cell]) == 2


def test_the_picture_is_drawn(release: Release, tmp_path: Path) -> None:
    (script,) = EXAMPLES.rglob("picture.py")
    printed(script, release.out, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
