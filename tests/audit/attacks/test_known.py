from pathlib import Path

import pytest
from helpers import Release, run_command, stripes, target

from pueprotect.audit.attacks import find
from pueprotect.audit.pipeline import AuditSettings, audit
from pueprotect.errors import InputError
from pueprotect.protect.methods.base import scheme_of
from pueprotect.protect.methods.texture import code_book
from pueprotect.release.opened import open_release


def test_known_code_needs_a_code_book() -> None:
    with pytest.raises(InputError, match="--method hardened"):
        find("known-code").run(target(), stripes(8))


QUICKLY = {"suite": None, "archs": ("resnet8",), "epochs": 1.0}


def test_known_code_runs_on_hardened_releases_only(release: Release, tmp_path: Path) -> None:
    names = ("standard", "known-code")
    own = open_release(release.copy(tmp_path).out)
    with pytest.raises(InputError, match="known-code needs a code book"):
        audit(own, AuditSettings(attacks=names, **QUICKLY))  # type: ignore[arg-type]
    report = audit(own, AuditSettings(attacks=names, **(QUICKLY | {"suite": "standard-v2"})))  # type: ignore[arg-type]
    assert [row.attack for row in report.results] == ["standard"]
    assert report.complete, "this release has no code book"
    wanted = ("--method", "hardened", "--size", "16", "--preset", "quick", "--release-anyway")
    assert run_command("protect", release.src, "--out", tmp_path / "hard", *wanted).code == 0
    hard = open_release(tmp_path / "hard")
    found = scheme_of(hard.run)
    assert found is not None
    assert found.codes == code_book(3, hard.run["settings"]["key"])
    assert found.codes != code_book(3, 0)
    old = {name: value for name, value in hard.run["settings"].items() if name != "key"}
    before = scheme_of(hard.run | {"settings": old, "seed": 7})
    assert before is not None
    assert before.codes == code_book(3, 7), "the seed was the key before there were keys"
    assert found.epsilon == 8
    report = audit(hard, AuditSettings(attacks=("known-code", "half-size"), **QUICKLY))  # type: ignore[arg-type]
    rows = {row.attack: row.as_json() for row in report.results}
    assert rows["known-code"]["clean_accuracy_same_filter"] is None
    assert 0 <= rows["half-size"]["clean_accuracy_same_filter"] <= 1
