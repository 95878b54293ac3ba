import json
from pathlib import Path

import pytest
from helpers import GOOD, Command, RecordedRelease, write_photos, write_policy

WAIVER = "waivers: [{rule: audit.pst, reason: accepted for the preview, expires: %s}]\n"
# (name, policy, exit code, parts of one line of the output)
TEN = [
    ("good", GOOD, 0, ["passes", "rules hold"]),
    ("bound", GOOD.replace("learnability: 0.5", "learnability: 0.4"), 1,
     ["FAIL", "certify.max_learnability", "at eta 0.003 is 42.0%, the limit 40.0%"]),
    ("attack", GOOD.replace("max_accuracy: 0.46", "max_accuracy: 0.44"), 1,
     ["FAIL", "audit.pst.max_accuracy", "accuracy of pst (resnet8) is 45.0%, the limit 44.0%"]),
    ("recovered", GOOD.replace("max_recovered: 0.5", "max_recovered: 0.2"), 1,
     ["FAIL", "audit.pst.max_recovered", "share recovered by pst (resnet8) is 25.0%, the limit 20.0%"]),
    ("pixels", GOOD.replace("max_linf: 8", "max_linf: 1"), 1, ["FAIL", "images.max_linf", "levels, the limit 1"]),
    ("draws", GOOD.replace("min_draws: 1000", "min_draws: 2000"), 3,
     ["?", "certify.min_draws", "draws behind the bound: 1000, at least 2000", "--draws 2000 --baseline"]),
    ("unmeasured", GOOD.replace("{pst: {max", "{jpeg-30: {max"), 3,
     ["?", "audit.jpeg-30", "not recorded", "run: pueprotect audit", "--attack jpeg-30"]),
    ("unknown key", GOOD.replace("max_linf", "linf_max"), 2, ["line 4", "unknown key images.linf_max", "allowed here"]),
    ("wrong type", GOOD.replace("max_linf: 8", "max_linf: few"), 2, ["line 4", "images.max_linf is 'few'", "0 to 255"]),
    ("expired waiver", GOOD + WAIVER % "2026-01-31", 1,
     ["FAIL", "waivers.audit.pst", "expired on 2026-01-31: renew or remove it"]),
    ("valid waiver", GOOD.replace("max_accuracy: 0.46", "max_accuracy: 0.1") + WAIVER % "9999-12-31", 0,
     ["pass", "audit.pst.max_accuracy", "waived: accepted for the preview (until 9999-12-31)"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "parts"), [case[1:] for case in TEN], ids=[case[0] for case in TEN])
def test_each_policy_gives_its_exit_code_and_message(
    text: str, code: int, parts: list[str], evidence: RecordedRelease, tmp_path: Path, command: Command
) -> None:
    done = command("check", evidence.out, "--policy", write_policy(tmp_path, text))
    said = done.stderr if code == 2 else done.stdout
    assert done.code == code, said
    assert any(all(part in line for part in parts) for line in said.splitlines()), said
    if code == 2:
        assert done.stdout == ""
        assert said.count("\n") == 1
    for output in ("json", "junit", "sarif", "github"):
        assert command("check", evidence.out, "--policy", tmp_path / "policy.yaml", "--format", output).code == code


def test_the_json_has_the_documented_keys(evidence: RecordedRelease, tmp_path: Path, command: Command) -> None:
    done = command("check", evidence.out, "--policy", write_policy(tmp_path, GOOD), "--format", "json")
    assert (done.data["schema_version"], done.data["passed"], done.data["outcome"]) == (1, True, "pass")
    for verdict in done.data["verdicts"]:
        assert set(verdict) >= {"rule", "passed", "observed", "limit", "reason"}
    rules = {verdict["rule"] for verdict in done.data["verdicts"]}
    assert {"data.digest", "certify.max_learnability", "audit.suite", "audit.pst.max_accuracy"} <= rules
    assert all(
        verdict["limit"] != 0.5 for verdict in done.data["verdicts"] if verdict["rule"].startswith("audit.pst.max_a")
    )


@pytest.mark.parametrize("spoil", ["change", "remove", "add"])
def test_files_that_changed_make_everything_inconclusive(
    spoil: str, evidence: RecordedRelease, tmp_path: Path, command: Command
) -> None:
    path = evidence.out / "cat/000.png"
    if spoil == "change":
        path.write_bytes(path.read_bytes() + b"x")
    elif spoil == "remove":
        path.unlink()
    else:
        (evidence.out / "cat/note.txt").write_text("hello")
    text = GOOD.replace("min_coverage: 1.0, ", "")
    done = command("check", evidence.out, "--policy", write_policy(tmp_path, text))
    assert done.code == 3
    assert "files are not as released" in done.stdout
    assert f"run: pueprotect verify {evidence.out}" in done.stdout
    covered = command("check", evidence.out, "--policy", write_policy(tmp_path, GOOD))
    assert covered.code == 1, "an unprotected file in the folder is a failure where coverage is a rule"


def test_reports_are_written_next_to_the_output(evidence: RecordedRelease, tmp_path: Path, command: Command) -> None:
    names = ("text", "json", "junit", "sarif", "github")
    wanted = [word for name in names for word in ("--report", f"{name}={tmp_path / name}")]
    done = command("check", evidence.out, "--policy", write_policy(tmp_path, GOOD), *wanted)
    assert done.code == 0
    assert (tmp_path / "text").read_text() == done.stdout
    assert json.loads((tmp_path / "json").read_text())["passed"] is True
    assert (tmp_path / "junit").read_text().startswith("<?xml")


def test_a_negative_number_of_threads_is_refused(evidence: RecordedRelease, tmp_path: Path, command: Command) -> None:
    done = command("check", evidence.out, "--policy", write_policy(tmp_path, GOOD), "--workers", "-1")
    assert done.code == 2
    assert "--workers -1" in done.stderr


@pytest.mark.parametrize("target", ["pdf=x", "json", "json=", "json=/nowhere/at/all.json"])
def test_bad_reports_are_refused(target: str, evidence: RecordedRelease, tmp_path: Path, command: Command) -> None:
    done = command("check", evidence.out, "--policy", write_policy(tmp_path, GOOD), "--report", target)
    assert done.code == 2
    assert done.stderr.count("\n") == 1


def test_a_baseline_lets_only_regressions_fail(evidence: RecordedRelease, tmp_path: Path, command: Command) -> None:
    strict = write_policy(tmp_path, GOOD.replace("max_accuracy: 0.46", "max_accuracy: 0.1"))
    first = command("check", evidence.out, "--policy", strict, "--report", f"json={tmp_path / 'before.json'}")
    assert first.code == 1
    again = ("check", evidence.out, "--policy", strict, "--baseline", tmp_path / "before.json")
    done = command(*again)
    assert done.code == 0
    assert "failed before and is no worse" in done.stdout
    evidence.attack("pst", accuracy=0.46)
    assert command(*again).code == 1
    (tmp_path / "before.json").write_text("{}")
    refused = command(*again)
    assert refused.code == 2
    assert "--baseline" in refused.stderr


def test_a_missing_policy_file_or_vault_is_reported_with_the_option(
    evidence: RecordedRelease, tmp_path: Path, command: Command
) -> None:
    done = command("check", evidence.out, "--policy", tmp_path / "none.yaml")
    assert done.code == 2
    assert "--policy" in done.stderr
    (tmp_path / "bare").mkdir()
    done = command("check", tmp_path / "bare", "--policy", write_policy(tmp_path, GOOD))
    assert done.code == 2
    assert "--vault" in done.stderr


def test_a_folder_of_another_tool_is_checked_against_evidence_for_its_files(
    photos: Path, tmp_path: Path, command: Command
) -> None:
    foreign, test = write_photos(tmp_path / "foreign", 6), write_photos(tmp_path / "test", per_class=5, seed=1)
    words = ("--test", test, "--attack", "standard", "--device", "cpu", "--epochs", 1, "--json")
    assert command("audit", foreign, *words).code == 0
    policy = tmp_path / "p.yaml"
    accepted = ("min_epochs", "flags.no-clean-line", "flags.small-test", "flags.under-trained.standard")
    waivers = "".join(f"- {{rule: audit.{rule}, reason: a test, expires: 9999-12-31}}\n" for rule in accepted)
    limits = "version: 1\naudit: {max_accuracy: 1.0}\n"
    policy.write_text(limits)
    bare = command("check", foreign, "--policy", policy)
    assert bare.code == 3, "nothing shows that clean images would have taught more"
    assert "audit.flags.no-clean-line" in bare.stdout
    policy.write_text(f"{limits}waivers:\n{waivers}")
    passing = command("check", foreign, "--policy", policy)
    assert passing.code == 0, passing.stdout
    (foreign / "cat/000.png").write_bytes((foreign / "cat/001.png").read_bytes())
    stale = command("check", foreign, "--policy", policy)
    assert stale.code == 3
    assert "--test CLEAN_IMAGES" in stale.stdout
