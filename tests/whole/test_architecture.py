import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pueprotect

ROOT = Path(pueprotect.__file__).parent
# A room imports from those before it; images and learning do not see each other.
ORDER = (
    "errors",
    "runtime",
    "images",
    "learning",
    "release",
    "protect",
    "audit",
    "certify",
    "check",
    "cli",
    "__main__",
)
STRANGERS = {"images", "learning"}
WITHOUT_TORCH = {"errors", "runtime", "images", "check"}
LONGEST = 60
TESTS = Path(__file__).parents[1]

FILES = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in ROOT.rglob("*.py")}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items() if name != "__init__"}


def top(module: str) -> str:
    return module.split(".")[0]


def imports(tree: ast.Module) -> Iterator[str]:
    """Absolute names of everything imported, at any depth; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(tree: ast.Module) -> set[str]:
    """Top-level modules of this package that are imported."""
    return {
        parts[1]
        for parts in (name.split(".") for name in imports(tree))
        if parts[0] == "pueprotect" and len(parts) > 1 and not parts[1].startswith("__")
    }


@pytest.mark.parametrize("module", sorted(TREES))
def test_a_room_imports_from_those_before_it(module: str) -> None:
    here = top(module)
    for imported in own_imports(TREES[module]):
        assert ORDER.index(imported) <= ORDER.index(here), f"{module} imports {imported}"
        assert imported == here or {imported, here} != STRANGERS, f"{module} imports {imported}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for types count as well."""
    graph = {
        module: {name for path in imports(tree) for name in (path, path.rpartition(".")[0])}
        for module, tree in ((f"pueprotect.{name}", tree) for name, tree in TREES.items())
    }
    TopologicalSorter({module: found & graph.keys() for module, found in graph.items()}).prepare()


def test_the_root_holds_the_rooms_and_nothing_else() -> None:
    assert {path.stem for path in ROOT.iterdir()} - {"__init__", "__pycache__", "py"} == set(ORDER)


@pytest.mark.parametrize("module", [name for name in sorted(TREES) if top(name) in WITHOUT_TORCH])
def test_pure_rooms_import_no_torch_when_they_load(module: str) -> None:
    loaded = (node for node in TREES[module].body if isinstance(node, ast.Import | ast.ImportFrom))
    assert not {top(name) for name in imports(ast.Module(list(loaded), []))} & {"torch", "torchvision"}


def test_only_the_command_line_knows_its_libraries() -> None:
    users = {top(name) for name, tree in TREES.items() if {top(x) for x in imports(tree)} & {"typer", "rich", "click"}}
    assert users == {"cli"}


def definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public functions and classes of a module, and the public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (inner for inner in node.body if isinstance(inner, ast.FunctionDef) and inner.name[0] != "_")


@pytest.mark.parametrize("module", sorted(TREES))
def test_public_names_have_docstrings(module: str) -> None:
    assert ast.get_docstring(TREES[module])
    assert [node.name for node in definitions(TREES[module]) if not ast.get_docstring(node)] == []


def length(node: ast.FunctionDef, *, signature: bool) -> int:
    """Lines of a function: from `def`, or from the body, to the end, without the docstring."""
    first, end = node.body[0], node.end_lineno or 0
    documented = ast.get_docstring(node) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    body = node.body[1:] if documented and len(node.body) > 1 else node.body
    return end - node.lineno + 1 - docstring if signature else end - body[0].lineno + 1


@pytest.mark.parametrize("module", sorted(TREES))
def test_no_function_is_long(module: str) -> None:
    """The signature counts, except that of a command, which lists its options."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef):
            assert length(node, signature=module != f"cli.{node.name}") <= LONGEST, f"{module}.{node.name}"


def test_lengths_are_counted_from_def_to_end_without_the_docstring() -> None:
    text = 'def f(\n    a: int,\n) -> int:\n    """One.\n\n    Two.\n    """\n    b = a\n\n    return b\n'
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef)
    assert (length(node, signature=True), length(node, signature=False)) == (6, 3)
    (bare,) = ast.parse("def g() -> int:\n    return 1\n").body
    assert isinstance(bare, ast.FunctionDef)
    assert (length(bare, signature=True), length(bare, signature=False)) == (2, 1)


@pytest.mark.parametrize("module", [name for name in sorted(TREES) if not name.split(".")[-1].startswith("__")])
def test_a_module_has_a_test_file_of_its_name_in_the_same_room(module: str) -> None:
    *room, name = module.split(".")
    assert TESTS.joinpath(*room, f"test_{name}.py").is_file()


HELP = """
import json, sys
import typer
from typer.testing import CliRunner
from pueprotect.cli import app

names = [name for name in typer.main.get_command(app).commands]
helps = {name: CliRunner().invoke(app, [name, "--help"]) for name in names}
print(json.dumps({
    "codes": {name: result.exit_code for name, result in helps.items()},
    "helps": {name: result.output for name, result in helps.items()},
    "loaded": sorted({"torch", "torchvision", "scipy", "PIL", "rich"} & set(sys.modules)),
}))
"""
OPTIONS = {
    "protect": "out vault method mode epsilon preset surrogate size sigma rounds seed key visibility holdout labels "
    "label-depth follow-symlinks format metadata overwrite skip-unsupported resume release-anyway device workers json",
    "certify": "vault test q sigma eta draws alpha joint surrogate-recipe baseline max-learnability resume device seed "
    "json",
    "audit": "vault test attack suite arch epochs clean-fraction eta max-accuracy max-recovered resume device seed "
    "seeds json",
    "check": "vault policy format report baseline attest sign workers",
    "report": "vault out policy with-originals images",
    "schema": "",
    "verify": "vault signature public-key policy json",
    "attacks": "json",
    "sample": "",
    "doctor": "json",
}


def test_every_help_names_its_options_and_loads_nothing_heavy() -> None:
    wide = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1", "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run([sys.executable, "-c", HELP], env=wide, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["loaded"] == []
    assert set(OPTIONS) <= set(found["helps"])
    assert set(found["codes"].values()) == {0}
    for command, options in OPTIONS.items():
        words = set(found["helps"][command].replace(",", " ").split())
        assert {f"--{option}" for option in options.split()} <= words, command


def test_the_default_of_every_dial_is_in_the_help() -> None:
    """The values that the contract states as defaults."""
    import typer

    from pueprotect.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    defaults = {name: {p.name: p.default for p in made.params} for name, made in commands.items()}
    assert defaults["protect"].items() >= {"epsilon": "8/255", "holdout": 0.2, "mode": "class-wise"}.items()
    assert defaults["protect"].items() >= {"file_format": "keep", "metadata": "minimal", "preset": "standard"}.items()
    assert defaults["certify"].items() >= {"q": 0.9, "draws": 1000, "alpha": 0.01, "recipe": "worst"}.items()
    assert defaults["audit"].items() >= {"suite": "quick", "clean_fraction": 0.2}.items()
