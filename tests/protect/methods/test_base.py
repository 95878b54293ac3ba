import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from helpers import originals, random_images, write_photos

import pueprotect
from pueprotect.errors import InputError
from pueprotect.learning.device import HERE
from pueprotect.learning.models import build
from pueprotect.protect.methods import base
from pueprotect.protect.methods.base import Made, Method, NoiseSettings, find, method_names, register, scheme_of


@pytest.mark.parametrize(
    "wrong", [{"epsilon": 0}, {"epsilon": 256}, {"sigma": -0.1}, {"sigma": float("nan")}, {"rounds": 0}, {"draws": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        NoiseSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon": 0}, "--epsilon 0/255 is outside"),
        ({"epsilon": 256}, "--epsilon 256/255 is outside"),
        ({"sigma": -0.1}, r"--sigma -0\.1 is outside \[0, 10\]"),
        ({"sigma": 10.1}, r"--sigma 10\.1 is outside"),
        ({"rounds": 0}, "--rounds 0 is below 1"),
        ({"shuffled": -0.1}, r"share of -0\.1 shuffled rounds"),
        ({"shuffled": 1.1}, r"share of 1\.1 shuffled rounds"),
        ({"draws": 0}, "^draws, inner steps and step size must be positive"),
        ({"inner_steps": 0}, "^draws, inner steps and step size must be positive"),
        ({"step_size": 0}, "^draws, inner steps and step size must be positive"),
        ({"key": "abc"}, "key"),
    ],
)
def test_a_message_names_the_setting_and_its_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NoiseSettings(**wrong)


def test_the_ends_of_every_range_are_allowed() -> None:
    NoiseSettings(epsilon=1, sigma=0, rounds=1, shuffled=0, draws=1, inner_steps=1, step_size=0.01)
    NoiseSettings(epsilon=255, sigma=10, shuffled=1)


class Theirs(Method):
    name, about, source = "theirs", "does nothing", "a test"

    def make(self, *_: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What other packages offer, by name; `find` sees it instead of what is installed."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(base, "_REGISTERED", {})
    monkeypatch.setattr(base, "plugins", lambda group: {name: entry(name, group) for name in found})
    monkeypatch.setattr(base, "load_plugin", lambda plugin: found[plugin.name])
    return found


def entry(name: str, group: str) -> EntryPoint:
    assert group == "pueprotect.methods"
    return EntryPoint(name, "their_module:Theirs", group)


def test_a_method_is_found_by_its_entry_point_or_once_registered(offered: dict[str, Any]) -> None:
    assert method_names() == ["pue", "emn", "hardened", "lsp", "ops"]
    offered["theirs"] = Theirs
    assert isinstance(find("theirs"), Theirs)
    assert register(Theirs) is Theirs
    assert isinstance(find("theirs"), Theirs), "its own module may register it too"
    assert method_names() == ["pue", "emn", "hardened", "lsp", "ops", "theirs"]
    del offered["theirs"]
    assert isinstance(find("theirs"), Theirs)
    with pytest.raises(ValueError, match="a method named 'theirs' is registered already"):
        register(Theirs)


def test_two_methods_of_one_name_are_refused_with_their_package(offered: dict[str, Any]) -> None:
    register(Theirs)
    offered["theirs"] = type("Other", (Theirs,), {})
    with pytest.raises(InputError, match=r"'theirs' of the package their_module:Theirs .*'theirs' is registered"):
        find("theirs")
    offered["emn"] = Theirs
    with pytest.raises(InputError, match=r"'emn' of the package their_module:Theirs .*'emn' is registered already"):
        find("pue")


def test_a_method_needs_no_more_than_make() -> None:
    made, given = Made(None, None), originals(random_images(4))  # type: ignore[arg-type]
    plain = Theirs()
    assert plain.improve(made, given, NoiseSettings(), build("cnn", 3, 16, seed=0), 1, HERE) is None
    assert plain.advice(NoiseSettings()) == []
    assert plain.scheme({}) is None
    assert (plain.check(None, NoiseSettings()), plain.assist(None, HERE)) == (None, None)  # type: ignore


def test_the_scheme_of_a_release_is_that_of_its_method() -> None:
    assert scheme_of({}) is None, "a folder of another tool"
    assert scheme_of({"method": "pue"}) is None
    settings = {"epsilon": 8, "visibility": "subtle"}
    found = scheme_of({"method": "hardened", "classes": ["a", "b"], "seed": 0, "settings": settings})
    assert (len(found.codes), found.epsilon, found.visibility) == (2, 8, "subtle")


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


@pytest.mark.parametrize(("mode", "rounds", "shared"), [
    ("class-wise", 6, 6), ("sample-wise", 6, 4), ("sample-wise", 7, 5), ("sample-wise", 2, 1), ("sample-wise", 1, 0),
])  # fmt: skip
def test_sample_wise_the_last_third_of_the_rounds_is_each_images_own(mode: Any, rounds: int, shared: int) -> None:
    assert NoiseSettings(mode=mode, rounds=rounds).class_rounds == shared


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
