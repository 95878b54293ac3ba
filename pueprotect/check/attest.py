"""Writes the result of a check as an in-toto Statement v1, signs it and verifies it.

The statement's subject is the digest of the released data; its predicate is in-toto's test result v0.1. The package
`model-signing` signs the statement's file. Verifying checks the signature, then the released files against the
subject, then policy and evidence against the digests in the statement, so that a change of one byte in any of them, and
a piece of evidence that was removed or added, is found.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pueprotect.check.evidence import Evidence, evidence_files
from pueprotect.check.formats import CheckReport
from pueprotect.errors import ExitCode, InputError, PlatformError, StaleDataError
from pueprotect.release.digests import data_digest, digest_files, first_of, released_files, sha256_of

STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
SUFFIX = ".sig"
LONGEST = 120  # characters of a foreign library's message


def statement(report: CheckReport, evidence: Evidence) -> dict[str, Any]:
    """Make the statement: PASSED; WARNED if a rule passed by a waiver or baseline; else FAILED (inconclusive too)."""
    mild = [v.rule for v in report.verdicts if v.waived or v.known]
    passed = report.code == ExitCode.PASS
    names = evidence_files(evidence.vault)
    recorded = [{"name": name, "digest": {"sha256": sha256_of(evidence.vault / name)}} for name in names]
    policy = {"name": report.file.path.name, "digest": {"sha256": report.file.sha256}}
    data = {"name": evidence.out.resolve().name, "digest": {"sha256": evidence.digest.removeprefix("sha256:")}}
    return {
        "_type": STATEMENT,
        "subject": [data],
        "predicateType": TEST_RESULT,
        "predicate": {
            "result": ("WARNED" if mild else "PASSED") if passed else "FAILED",
            "configuration": [policy, *recorded],
            "passedTests": [v.rule for v in report.verdicts if v.passed and v.rule not in mild],
            "warnedTests": mild,
            "failedTests": [v.rule for v in report.verdicts if not v.passed],
        },
    }


def _signing() -> Any:
    try:
        import model_signing
    except ImportError as error:
        raise PlatformError("Signatures need the optional extra: pip install 'pueprotect[signing]'.") from error
    return model_signing


def sign_statement(path: Path, key: Path) -> Path:
    """Sign the statement at `path` with an elliptic-curve private key (PEM) and return the signature's path.

    Raises:
        PlatformError: model-signing is not installed.
        InputError: the key cannot be used.
    """
    signing = _signing()
    place = path.with_name(path.name + SUFFIX)
    try:
        signing.signing.Config().use_elliptic_key_signer(private_key=key).sign(path, place)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--sign {key} cannot sign ({_line(error)}); give the PEM file of an EC private key."
        ) from error
    return place


@dataclass(frozen=True)
class Signed:
    """A signed statement that fits the files, and what it was compared with.

    Attributes:
        statement: the whole statement.
        with_evidence: whether there is a vault, so that the evidence was compared too.
    """

    statement: dict[str, Any]
    with_evidence: bool

    @property
    def result(self) -> str:
        """`PASSED`, `WARNED` or `FAILED`."""
        return str(self.statement["predicate"]["result"])

    @property
    def passed(self) -> bool:
        """Whether the signed check passed, by waivers too."""
        return self.result in ("PASSED", "WARNED")


def verify_statement(out: Path, vault: Path, signature: Path, key: Path, policy: Path | None = None) -> Signed:
    """Check signature, released files, evidence and policy against a statement.

    Args:
        out: the released folder.
        vault: the evidence, which must be exactly the signed one; a receiver of the release has no such folder.
        signature: as written by `sign_statement`, in the folder of its statement.
        key: the public key (PEM).
        policy: the policy that the check must have used; None compares none.

    Raises:
        PlatformError: model-signing is not installed.
        InputError: a file cannot be used.
        StaleDataError: a file differs from what was signed, is missing, or was added.
    """
    path = signature.with_name(signature.name.removesuffix(SUFFIX))
    if not signature.is_file() or not path.is_file() or path == signature:
        raise InputError(f"--signature {signature} must be a signature (*{SUFFIX}) in the folder of its statement.")
    if not key.is_file():
        raise InputError(f"--public-key {key} is not a file; give the PEM file of the public key.")
    found = _signed(path, signature, key)
    try:
        subject, (rules, *recorded) = found["subject"][0]["digest"]["sha256"], found["predicate"]["configuration"]
        used = rules["digest"]["sha256"]
        digests = {item["name"]: item["digest"]["sha256"] for item in recorded}
        signed = Signed(found, vault.is_dir())
        result = signed.result
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is signed but is no statement of check --attest; name one with --signature."
        ) from error
    here = data_digest(digest_files(out, sorted(released_files(out))))
    if here != f"sha256:{subject}":
        raise StaleDataError(f"The files in {out} ({here}) are not those of {path}; restore them.")
    if policy is not None and sha256_of(policy) != used:
        raise StaleDataError(f"{policy} is not the policy of {path}, whose result is {result}; run check with it.")
    if signed.with_evidence:
        _compare_evidence(path, vault, digests)
    return signed


def _signed(path: Path, signature: Path, key: Path) -> dict[str, Any]:
    """The statement at `path`, which must have been signed by `key`."""
    try:
        _signing().verifying.Config().use_elliptic_key_verifier(public_key=key).verify(path, signature)
    except PlatformError:
        raise
    except Exception as error:  # the library raises many kinds on forged or damaged signatures; all mean the same
        raise StaleDataError(
            f"{signature} is not a signature of {path} by {key} ({_line(error)}); get the right files from the signer."
        ) from error
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is signed but is no JSON; name a statement of check --attest.") from error
    return found


def _compare_evidence(path: Path, vault: Path, digests: dict[str, str]) -> None:
    """Refuse evidence that was changed, removed or added since it was signed."""
    here = evidence_files(vault)
    kinds = {
        "changed": [name for name in here if name in digests and sha256_of(vault / name) != digests[name]],
        "removed": [name for name in digests if name not in here],
        "added": [name for name in here if name not in digests],
    }
    parts = [f"{kind}: {first_of(names)}" for kind, names in kinds.items() if names]
    if parts:
        raise StaleDataError(
            f"The evidence in {vault} is not that of {path} ({'; '.join(parts)}); restore it, or run check again."
        )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
