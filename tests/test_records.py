import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, Recorded, RecordedRelease, write_photos
from jsonschema import Draft202012Validator

from pueprotect.check.evidence import read_evidence
from pueprotect.check.policy import Policy
from pueprotect.check.schemas import ARTEFACTS
from pueprotect.errors import VaultError

POLICY = "version: 1\nimages: {max_linf: 8}\n"


def schema(command: Command, name: str) -> Draft202012Validator:
    found = command("schema", name)
    assert found.code == 0
    Draft202012Validator.check_schema(found.data)
    return Draft202012Validator(found.data)


def lines(path: Path) -> Any:
    return json.loads(path.read_text().splitlines()[0])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


SOURCES: dict[str, Callable[[Recorded, Command, Path], Any]] = {
    "protect": lambda r, c, p: r.release.outcome.data,
    "run": lambda r, c, p: read(r.release.vault / "run.json"),
    "manifest-row": lambda r, c, p: lines(r.release.vault / "manifest.jsonl"),
    "certificate": lambda r, c, p: r.certificate,
    "audit": lambda r, c, p: r.audit,
    "audit-record": lambda r, c, p: read(r.release.vault / "audit/pst-resnet8.json"),
    "check": lambda r, c, p: c("check", r.release.out, "--policy", p, "--format", "json").data,
    "verify": lambda r, c, p: c("verify", r.release.out, "--json").data,
}


def test_every_artefact_has_a_source_here() -> None:
    assert SOURCES.keys() == ARTEFACTS.keys()


@pytest.mark.parametrize("name", SOURCES)
def test_real_artefacts_fit_their_schema_and_broken_ones_do_not(
    name: str, recorded: Recorded, command: Command, tmp_path: Path
) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text(POLICY)
    data = SOURCES[name](recorded, command, policy)
    validator = schema(command, name)
    validator.validate(data)
    validator.validate(data | {"a key of a later version": 1})
    for key in validator.schema["required"]:
        assert not validator.is_valid({other: value for other, value in data.items() if other != key}), key
    assert not validator.is_valid(data | {validator.schema["required"][0]: [[]]})


def test_the_policys_schema_refuses_what_the_reader_refuses(command: Command) -> None:
    validator = schema(command, "policy")
    validator.validate({"version": 1, "certify": {"q": 0.9, "max_learnability": 0.25}, "waivers": []})
    assert not validator.is_valid({"version": 1, "image": {}})
    assert not validator.is_valid({"version": 1, "images": {"max_linf": 300}})
    assert command("schema").stdout.split() == ["policy", *ARTEFACTS]
    assert set(Policy.model_fields) == set(validator.schema["properties"])


def test_the_schema_command_names_what_it_knows(command: Command) -> None:
    done = command("schema", "certificat")
    assert done.code == 2
    assert "certificate" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("certificate.json", '{"schema_version": 1}', "certify"),
        ("certificate.json", "{", "not JSON"),
        ("certificate.json", '{"schema_version": 9}', "schema_version 9"),
        ("audit/pst-resnet8.json", '{"key": {}, "result": {}}', "key."),
    ],
)
def test_damaged_evidence_is_an_error_that_names_the_file(
    name: str, content: str, part: str, evidence: RecordedRelease
) -> None:
    (evidence.vault / name).write_text(content)
    with pytest.raises(VaultError) as caught:
        read_evidence(evidence.out)
    assert name in str(caught.value)
    if part != "certify":
        assert part in str(caught.value)


def test_evidence_without_chance_knows_no_recovered_share(evidence: RecordedRelease) -> None:
    evidence.edit("audit/pst-resnet8.json", lambda data: data.pop("chance"))
    found = {line.attack: line.recovered for line in read_evidence(evidence.out).lines}
    assert found["pst"] is None
    assert found["standard"] is not None


def test_a_folder_of_another_tool_is_held_against_its_evidence_as_it_is(
    photos: Path, tmp_path: Path, command: Command
) -> None:
    foreign, test = write_photos(tmp_path / "foreign", 6), write_photos(tmp_path / "test", per_class=5, seed=1)
    words = ("--test", test, "--attack", "standard", "--device", "cpu", "--epochs", 1, "--json")
    assert command("audit", foreign, *words).code == 0
    policy = tmp_path / "p.yaml"
    policy.write_text("version: 1\naudit: {max_accuracy: 1.0}\n")
    assert command("check", foreign, "--policy", policy).code == 0
    (foreign / "cat/000.png").write_bytes((foreign / "cat/001.png").read_bytes())
    stale = command("check", foreign, "--policy", policy)
    assert stale.code == 3
    assert "--test CLEAN_IMAGES" in stale.stdout
