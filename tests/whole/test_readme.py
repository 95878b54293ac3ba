"""README and the pages below examples/ agree with the code, with each other and with the figures that were measured."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import pueprotect
from pueprotect.audit.flags import FLAGS
from pueprotect.certify.flags import FLAGS as CERTIFICATE_FLAGS
from pueprotect.check.policyfile import read_policy
from pueprotect.cli import COMMANDS, app

PACKAGE = Path(pueprotect.__file__).parent  # the installed one, perhaps outside the repository
ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "examples").rglob("*.md"))]
WRITTEN = [README, ROOT / "examples/README.md", *sorted((ROOT / "examples/guide").glob("*.md"))]
CODE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MEASURED_PAGE = re.compile(r"\]\((examples/(?:results|benchmarks)/[^)#\s]*)")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(text: str) -> set[str]:
    """What GitHub makes of the titles of a page."""
    titles = re.findall(r"^#+ (.*)$", CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_readme_is_short_and_narrow() -> None:
    lines = read(README).splitlines()
    assert len(lines) <= 250
    assert [number for number, line in enumerate(lines, 1) if len(line) > 120] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_into_the_repository_lead_somewhere(page: Path) -> None:
    lost = []
    for link in LINK.findall(CODE.sub("", read(page))):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        there = (page.parent / target).resolve() if target else page
        if not there.exists() or (anchor and anchor not in anchors(read(there))):
            lost.append(link)
    assert lost == []


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "examples/README.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(read(index)) if "://" not in link}
    assert {page for page in PAGES if page not in (README, index)} <= linked


def options(text: str) -> dict[str, set[str]]:
    """The options of each command in the reference."""
    parts = re.split(r"^\$ pueprotect (\w+) --help$", text, flags=re.MULTILINE)
    return {name: set(re.findall(r"--[a-z-]+", help)) for name, help in zip(parts[1::2], parts[2::2], strict=True)}


def test_the_command_reference_is_the_live_help() -> None:
    script = ROOT / "examples/reference/print.py"
    live = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    written = read(ROOT / "examples/reference/cli.md")
    if written.splitlines()[0] == live.splitlines()[0]:
        assert written == live, "renew it: python examples/reference/print.py examples/reference/cli.md"
    assert options(written) == options(live), "another Typer may lay the help out in another way, no more"
    assert set(options(written)) == set(COMMANDS)


def commands_on(page: Path) -> Iterator[tuple[str, set[str]]]:
    """Every command of the tool in code, with its options."""
    text = read(page).replace("\\\n", " ")
    code = [body for language, body in CODE.findall(text) if language in ("sh", "console", "")]
    code += re.findall(r"`([^`\n]+)`", CODE.sub("", text))
    for piece in code:
        for found in re.finditer(r"(?:^|\$ |&& |-m )pueprotect ([a-z]+)([^&\n#]*)", piece, re.MULTILINE):
            yield found[1], set(re.findall(r"(?<!\S)--[a-z-]+", found[2]))


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_commands_on_the_pages_are_commands(page: Path) -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for command, used in commands_on(page):
        assert command in known, command
        assert used <= {option for made in known[command].params for option in made.opts}, command


def test_readme_names_the_commands_of_a_release() -> None:
    named = {command for command, _ in commands_on(README)}
    assert {"sample", "protect", "certify", "audit", "check", "report"} <= named


def test_options_in_readme_are_options() -> None:
    known = set().union(*options(read(ROOT / "examples/reference/cli.md")).values())
    assert set(re.findall(r"`(--[a-z-]+)", read(README))) <= known


def test_the_policy_in_readme_is_a_policy(tmp_path: Path) -> None:
    (policy,) = (body for language, body in CODE.findall(read(README)) if language == "yaml")
    (tmp_path / "pueprotect.yaml").write_text(policy, encoding="utf-8")
    read_policy(tmp_path / "pueprotect.yaml")


@pytest.mark.parametrize(("page", "flags"), [("audit", FLAGS), ("certificate", CERTIFICATE_FLAGS)])
def test_the_guide_explains_every_flag(page: str, flags: dict[str, object]) -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", read(ROOT / f"examples/guide/{page}.md").partition("## Flags")[2], re.M)
    assert sorted(rows) == sorted(flags)


def test_readme_names_every_room_and_files_that_are_there() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    rows = dict(re.findall(r"^\| `(\w+)/` \| [^|]* \|([^|]*)\|$", read(README), re.MULTILINE))
    assert set(rows) == rooms
    for room, files in rows.items():
        for file in re.findall(r"`([^`]+)`", files):
            assert (PACKAGE / room / file).exists(), f"{room}/{file}"


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_files_of_the_package_named_on_the_pages_are_there(page: Path) -> None:
    for path in re.findall(r"`(pueprotect/[\w./]+)`", read(page)):
        assert (ROOT / path).exists(), path


UNIT = r"(?:%|dB|MiB|GB|seconds?|minutes?|hours?|times)"
FIGURE = re.compile(rf"(?<![\w./-])(\d+(?:[.,]\d+)*) ?{UNIT}(?!\w)")
IN_PERCENT = re.compile(r"\bin percent\b", re.IGNORECASE)
CELL = re.compile(r"(?<=\| )(\d+(?:\.\d+)?)(?=[ ,])")
SPREAD = re.compile(r"\((\d+)-(\d+)\)")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Paragraphs, items of lists, tables and blocks of code, each with the paragraph that introduces it."""
    introduction = ""
    for part in re.split(r"\n[> ]*\n", re.sub(r"\n(?=(?:> )?- )", "\n\n", text)):
        yield part, introduction
        if not part.startswith(("|", "- ", "> - ")):
            introduction = part


def figures(block: str, introduction: str) -> set[str]:
    """Numbers with a unit; in a table that is said to be in percent, cells that begin with a number, too."""
    found = set(FIGURE.findall(block))
    if block.startswith("|") and IN_PERCENT.search(introduction):
        found |= set(CELL.findall(block))
    return found | {end for pair in SPREAD.findall(block) for end in pair}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It fell to 10.1 %.", {"10.1"}),
        ("It takes 21 minutes and 5 GB, with `--holdout 0.2` and 8/255.", {"21", "5"}),
        ("Test accuracy in percent.\n\n| a | plain |\n|---|---|\n| b | 59, `pst` |", {"59"}),
        ("Exit codes.\n\n| code | means |\n|---|---|\n| 0 | pass |", set()),
        ("> Box.\n>\n> - 33 % (12-47)", {"33", "12", "47"}),
    ],
)
def test_figures_are_found(text: str, expected: set[str]) -> None:
    assert set().union(*(figures(block, introduction) for block, introduction in blocks(text))) == expected


@pytest.mark.parametrize("linked", [True, False])
def test_figures_without_a_source_are_found(linked: bool) -> None:
    introduction = "In percent" + (" ([page](examples/results/cifar10.md))." if linked else ".")
    found = [source for _, source in sourced(f"{introduction}\n\n| a | b |\n|---|---|\n| x | 59 |")]
    assert found == [{"examples/results/cifar10.md"} if linked else set()]


def sourced(text: str) -> Iterator[tuple[set[str], set[str]]]:
    """The figures of each block that has any, with the pages of measurements that it or its introduction links to."""
    for block, introduction in blocks(text):
        if found := figures(block, introduction):
            yield found, set(MEASURED_PAGE.findall(block)) or set(MEASURED_PAGE.findall(introduction))


def test_every_figure_in_readme_is_linked_to_its_page() -> None:
    assert [found for found, pages in sourced(read(README)) if not pages] == []


def test_every_figure_in_readme_stands_on_its_page() -> None:
    for found, pages in sourced(read(README)):
        there = {number for page in pages for number in re.findall(r"\d+(?:[.,]\d+)*", read(ROOT / page))}
        assert found <= there, f"{sorted(found - there)} not on {sorted(pages)}"
