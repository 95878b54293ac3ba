from pathlib import Path

from helpers import Release, protected, write_photos

from pueprotect.protect.report import recorded_result
from pueprotect.release.vault import Vault


def test_the_recorded_result_is_the_printed_one(release: Release) -> None:
    run = Vault(release.vault).run()
    assert recorded_result(run).as_json() == release.outcome.data
    assert {"settings", "seed", "source", "key"} <= run.keys(), "a run can be repeated"
    assert not {"settings", "source", "key"} & recorded_result(run).as_json().keys(), "these stay in the vault"


def test_a_warning_for_each_thing_that_the_user_should_know(tmp_path: Path) -> None:
    src = write_photos(tmp_path / "src", 6, suffix=".jpg")
    (src / "cat" / "notes.txt").write_text("x")
    found = protected(src, tmp_path / "out", epsilon=8, release_anyway=True)
    assert any("cat/notes.txt" in warning for warning in found.warnings)
    assert found.result.realised is not None
    rounding = [warning for warning in found.warnings if "JPEG rounding" in warning]
    assert len(rounding) == (found.result.realised.linf_max > 8)
    assert all(warning.endswith(".") for warning in found.warnings)
