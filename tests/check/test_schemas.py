import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Command, Recorded
from jsonschema import Draft202012Validator

from pueprotect.check.policy import Policy
from pueprotect.check.schemas import RECORDS

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


def test_every_artefact_is_tested_here() -> None:
    assert SOURCES.keys() == RECORDS.keys()


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
    assert not validator.is_valid({"version": 1})
    assert not validator.is_valid({"version": 1, "waivers": []})
    assert not validator.is_valid({"version": 1, "images": {"max_linf": 300}})
    assert command("schema").stdout.split() == ["policy", *RECORDS]
    assert set(Policy.model_fields) == set(validator.schema["properties"])
