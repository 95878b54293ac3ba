import json
from pathlib import Path

import pytest
from helpers import RecordedRelease

from pueprotect.check.evidence import evidence_files, read_evidence
from pueprotect.errors import VaultError
from pueprotect.release.audits import AuditRow


def rows(out: Path) -> dict[str, AuditRow]:
    """The recorded attacks on these files, of the first network."""
    return {name: found[0] for name, found in read_evidence(out).rows_by_attack.items()}


def test_recovered_lies_between_chance_and_the_clean_line(evidence: RecordedRelease) -> None:
    by_name = rows(evidence.out)
    assert by_name["pst"].recovered == pytest.approx((0.45 - 0.3) / (0.9 - 0.3))
    evidence.attack("pst", accuracy=0.2)
    evidence.attack("standard", accuracy=0.95)
    by_name = rows(evidence.out)
    assert (by_name["pst"].recovered, by_name["standard"].recovered) == (0.0, 1.0)
    evidence.edit("audit/clean-line-resnet8.json", lambda data: data["key"].update(test_digest="sha256:" + "0" * 64))
    assert all(row.recovered is None for row in rows(evidence.out).values()), "measured on other images"


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


def test_all_seeds_are_read_in_order(evidence: RecordedRelease) -> None:
    first = (evidence.vault / "audit/pst-resnet8.json").read_text()
    for number, accuracy in ((10, 0.6), (2, 0.5), (1, 0.4)):
        data = json.loads(first)
        data["key"]["seed"], data["result"]["accuracy"] = number, accuracy
        (evidence.vault / f"audit/seed-{number}").mkdir()
        (evidence.vault / f"audit/seed-{number}/pst-resnet8.json").write_text(json.dumps(data))
    (evidence.vault / "audit/seed-old").mkdir()
    (evidence.vault / "audit/seed-old/pst-resnet8.json").write_text("no record")
    found = read_evidence(evidence.out)
    assert [record.key.seed for record in found.runs["pst", "resnet8"]] == [0, 1, 2, 10]
    assert [row.accuracy for row in found.rows_by_attack["pst"]] == [0.45, 0.4, 0.5, 0.6]
    assert len(found.runs["standard", "resnet8"]) == 1
    (evidence.vault / "looks.jsonl").write_text("{}\n")
    names = evidence_files(evidence.vault)
    assert names[:4] == ["run.json", "manifest.jsonl", "certificate.json", "looks.jsonl"]
    assert [name for name in names if "/seed-" in name] == [f"audit/seed-{n}/pst-resnet8.json" for n in (1, 2, 10)]


def test_evidence_without_chance_has_no_recovered_share(evidence: RecordedRelease) -> None:
    evidence.edit("audit/pst-resnet8.json", lambda data: data.pop("chance"))
    found = {name: row.recovered for name, row in rows(evidence.out).items()}
    assert found["pst"] is None
    assert found["standard"] is not None
