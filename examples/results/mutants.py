"""Changes the package by one small fault at a time and counts how many of these mutants the tests notice.

    pip install '.[test,mutation]' && python examples/results/mutants.py > mutants.txt

mutmut makes the mutants and runs them in forked processes, as `[tool.mutmut]` in pyproject.toml says. This script draws
which of them are run, and it is a plug-in of pytest: a mutant is given only to the tests of its own module, quickest
first. A mutant is killed when one of them fails or takes far too long. It survives when all of them pass, or when none
of them calls its function. The working copies lie in `mutants/` at the root of the repository.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Exit codes of mutmut; any other one is a kill.
SURVIVED = {0: "survived", 5: "no test", 33: "no test", 2: "interrupted", None: "not run"}
COPIES = Path("mutants")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Leave the tests of the mutant's own module, quickest first."""
    module, _, function = os.environ.get("MUTANT_UNDER_TEST", "").rpartition(".")
    if "__mutmut_" not in function:
        return
    *folders, name = module.split(".")[1:]
    own = "/".join(["tests", *folders, f"test_{name}.py"])
    seconds = json.loads(Path("mutmut-stats.json").read_text(encoding="utf-8"))["duration_by_test"]
    kept = [item for item in items if item.nodeid.startswith(f"{own}::")]
    items[:] = sorted(kept, key=lambda item: seconds.get(item.nodeid, 0.0))


def drawn(path: Path, number: int, seed: int) -> list[str]:
    """The names of a random sample of a file's mutants; all of them where there are no more."""
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name

    found = mutate_file_contents(str(path), path.read_text(encoding="utf-8")).mutant_names
    names = [get_mutant_name(path, name) for name in found]
    return random.Random(f"{seed} {path}").sample(names, min(number, len(names)))


def run(names: list[str]) -> None:
    """Run mutants by name, one process at a time; what mutmut says goes to standard error."""
    COPIES.mkdir(exist_ok=True)  # a folder that is missing when Python starts is never searched
    place = os.pathsep.join([str(ROOT / COPIES), str(ROOT / "examples" / "results")])
    environment = os.environ | {"PYTHONPATH": place, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()", "run", "--max-children", "1", *names]
    subprocess.run(command, env=environment, stdout=sys.stderr, check=True)


def codes_of(path: Path) -> dict[str, int | None]:
    """The exit code of each mutant of a file; None where it was not run, nothing before the first run."""
    meta = COPIES / f"{path}.meta"
    return json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"] if meta.exists() else {}


def shown(path: Path, name: str) -> str:
    """Where a mutant is and what it changes."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    changed = [line for line in get_diff_for_mutant(name, path=path).splitlines()[2:] if line[0] in "+-"]
    removed = [line[1:].strip() for line in changed if line[0] == "-"]
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    function = re.sub(r"__mutmut_\d+$", "", name).rpartition(".")[2].removeprefix("x_").rpartition("\u01c1")[2]
    start = next((at for at, line in enumerate(lines) if line.startswith(f"def {function}(")), 0)
    place = next((at for at, line in enumerate(lines) if at >= start and removed[:1] == [line]), start)
    return "\n".join([f"{path}:{place + 1}  {name}", *changed])


def report(chosen: dict[Path, list[str]]) -> None:
    """Print a row for each file, and then what the tests did not notice."""
    print("| file | mutants | killed | of these too slow | survived | killed, % |\n|---|---|---|---|---|---|")
    alive = []
    for path, names in chosen.items():
        kept = codes_of(path)
        codes = {name: kept[name] for name in names}
        living = [name for name in names if codes[name] in SURVIVED]
        slow = sum(code in (24, 152, 255, -24, 36) for code in codes.values())
        killed = len(names) - len(living)
        print(f"| {path} | {len(names)} | {killed} | {slow} | {len(living)} | {100 * killed / len(names):.0f} |")
        alive += [f"{SURVIVED[codes[name]]}: {shown(path, name)}" for name in living]
    print("\n" + "\n\n".join(alive))


def main() -> None:
    import tomllib

    os.chdir(ROOT)
    known = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]["only_mutate"]
    paths = sorted(path for pattern in known for path in Path().glob(pattern) if path.name != "__init__.py")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, default=paths, help="files to mutate; by default all configured")
    parser.add_argument("--mutants", type=int, default=60, help="the most that are run of each file (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="decides which mutants are drawn (default: 0)")
    parser.add_argument("--resume", action="store_true", help="run only those that were not killed by an earlier run")
    options = parser.parse_args()
    chosen = {path: drawn(path, options.mutants, options.seed) for path in options.paths}
    dead = {name for path in chosen for name, code in codes_of(path).items() if code not in SURVIVED}
    left = [name for names in chosen.values() for name in names if not (options.resume and name in dead)]
    if left:
        run(left)
    print(f"seed {options.seed}, at most {options.mutants} mutants of each file\n")
    report(chosen)


if __name__ == "__main__":
    main()
