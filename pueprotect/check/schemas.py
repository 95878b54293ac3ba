"""Lists every JSON output as a model (`RECORDS`); the JSON Schemas are made from these models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from pueprotect.check.verdicts import Verdict
from pueprotect.release.audits import Audit, AuditRecord
from pueprotect.release.certificates import Certificate
from pueprotect.release.records import Digest, ManifestRow, Protect, Record, RunRecord


class Check(Record):
    """Output of `pueprotect check --format json`, and what `--baseline` reads."""

    schema_version: Literal[1]
    passed: bool
    outcome: Literal["pass", "fail", "inconclusive"]
    data_digest: Digest
    policy_sha256: str
    verdicts: list[Verdict]


class Verify(Record):
    """Output of `pueprotect verify --json`."""

    schema_version: Literal[1]
    ok: bool
    files: int
    missing: list[str]
    extra: list[str]
    changed: list[str]


RECORDS: dict[str, type[BaseModel]] = {
    "protect": Protect,
    "run": RunRecord,
    "manifest-row": ManifestRow,
    "certificate": Certificate,
    "audit": Audit,
    "audit-record": AuditRecord,
    "check": Check,
    "verify": Verify,
}
