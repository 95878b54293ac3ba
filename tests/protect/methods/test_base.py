import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import write_photos

import pueprotect
from pueprotect.errors import InputError
from pueprotect.protect.methods.base import NoiseSettings, find, register


@pytest.mark.parametrize(
    "wrong", [{"epsilon": 0}, {"epsilon": 256}, {"sigma": -0.1}, {"sigma": float("nan")}, {"rounds": 0}, {"draws": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        NoiseSettings(**wrong)  # type: ignore[arg-type]


def plugin(place: Path, group: str, name: str, code: str) -> dict[str, str]:
    """An environment with an installed third-party package that offers one plug-in."""
    (place / "theirs.py").write_text(code)
    info = place / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = theirs:Theirs\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join((str(place), str(Path(pueprotect.__file__).parents[1])))}


def run(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pueprotect", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


METHOD = """
import numpy as np
from pueprotect.protect.methods.closed_form import ClosedForm

class Theirs(ClosedForm):
    name, about, source = "theirs", "adds two levels of red to every other class", "a test"

    def noise(self, pixels, labels, held, settings):
        noise = np.zeros(pixels.shape, dtype=np.int8)
        noise[labels % 2 == 0, ..., 0] = 2
        return noise
"""
ATTACK = """
from pueprotect.audit.attacks.base import register
from pueprotect.audit.attacks.standard import Plain

@register
class Theirs(Plain):
    name, about, source = "theirs", "trains plainly", "a test"
"""


REGISTERED = METHOD.replace("\nclass", "\nfrom pueprotect.protect.methods.base import register\n\n@register\nclass")


@pytest.mark.parametrize("code", [METHOD, REGISTERED], ids=["named by its entry point", "registered by its module too"])
def test_a_method_of_another_package_protects(code: str, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    environment = plugin(tmp_path / "site", "pueprotect.methods", "theirs", code)
    src = write_photos(tmp_path / "src", 4)
    words = ("--method", "theirs", "--preset", "quick", "--size", "16", "--release-anyway", "--json", "--device", "cpu")
    done = run(environment, "protect", src, "--out", tmp_path / "out", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["realised"]["linf_max"] == 2


def test_an_attack_of_another_package_is_listed(tmp_path: Path) -> None:
    environment = plugin(tmp_path, "pueprotect.attacks", "theirs", ATTACK)
    done = run(environment, "attacks", "--json")
    assert done.returncode == 0, done.stderr
    assert "theirs" in {attack["name"] for attack in json.loads(done.stdout)["attacks"]}


@pytest.mark.parametrize(
    ("group", "name", "code", "words", "why"),
    [
        (
            "pueprotect.methods",
            "theirs",
            "import missing_module",
            ("protect", "src", "--method", "theirs"),
            "missing_module",
        ),
        ("pueprotect.methods", "pue", METHOD, ("protect", "src"), "'pue' is registered already"),
        ("pueprotect.attacks", "theirs", "import absent", ("attacks",), "absent"),
        ("pueprotect.attacks", "x", ATTACK.replace('"theirs"', '"pst"'), ("attacks",), "'pst' is registered already"),
    ],
)
def test_a_plug_in_that_cannot_be_used_gets_one_sentence_with_its_package(
    group: str, name: str, code: str, words: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    write_photos(tmp_path / "src", 4)
    environment = plugin(tmp_path / "site", group, name, code)
    named = [tmp_path / "src" if word == "src" else word for word in words]
    done = run(environment, *named, *(("--out", tmp_path / "out") if words[0] == "protect" else ()))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "their-package" in done.stderr
    assert why in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_method_offers_near_names_and_a_taken_name_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean hardened"):
        find("hardned")
    with pytest.raises(ValueError, match="pue"):
        register(type("Again", (find("pue").__class__,), {}))


def test_names_are_listed_without_torch() -> None:
    code = "import sys; from pueprotect.protect.methods.base import method_names as names; "
    code += "print(names(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pue', 'emn', 'hardened', 'lsp', 'ops'] False"


@pytest.mark.parametrize("name", ["pue", "emn", "hardened", "lsp", "ops"])
def test_every_method_describes_itself(name: str) -> None:
    method = find(name)
    assert method.name == name
    assert method.about.split()[0].endswith("s"), "continues a sentence that starts with the name"
    assert method.source
    assert method.baseline == (name in ("lsp", "ops"))
    assert (method.scheme({"classes": ["a", "b"], "seed": 0, "settings": {"epsilon": 8, "visibility": "standard"}})
            is not None) == (name == "hardened")  # fmt: skip
