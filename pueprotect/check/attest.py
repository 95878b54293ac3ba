"""Writes the result of a check as an in-toto Statement v1, signs it and verifies it.

The statement's subject is the digest of the released data; its predicate is in-toto's test result v0.1. The package
`model-signing` signs the statement's file. Verifying checks the signature, then the released files against the
subject, then the evidence against the digests in the statement, so that a change of one byte in any of them is found.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pueprotect.check.evidence import Evidence
from pueprotect.check.formats import CheckReport
from pueprotect.errors import ExitCode, InputError, PlatformError, StaleDataError
from pueprotect.release.digests import data_digest, digest_files, released_files, sha256_of
from pueprotect.release.vault import CERTIFICATE, MANIFEST, RUN

STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
SUFFIX = ".sig"
LONGEST = 120  # characters of a foreign library's message


def statement(report: CheckReport, evidence: Evidence) -> dict[str, Any]:
    """Make the statement: PASSED; WARNED if a rule passed by a waiver or baseline; else FAILED (inconclusive too)."""
    mild = [v.rule for v in report.verdicts if v.waived or v.known]
    passed = report.code == ExitCode.PASS
    names = [name for name in (RUN, MANIFEST, CERTIFICATE) if (evidence.vault / name).is_file()]
    names += sorted(path.relative_to(evidence.vault).as_posix() for path in (evidence.vault / "audit").glob("*.json"))
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


def verify_statement(out: Path, vault: Path, signature: Path, key: Path) -> dict[str, Any]:
    """Check signature, released files and evidence, and return the statement.

    Args:
        out: the released folder.
        vault: the evidence; files that are absent are not checked, as a receiver of the release has none.
        signature: as written by `sign_statement`, in the folder of its statement.
        key: the public key (PEM).

    Raises:
        PlatformError: model-signing is not installed.
        InputError: a file cannot be used.
        StaleDataError: a file differs from what was signed.
    """
    signing = _signing()
    path = signature.with_name(signature.name.removesuffix(SUFFIX))
    if not signature.is_file() or not path.is_file() or path == signature:
        raise InputError(f"--signature {signature} must be a signature (*{SUFFIX}) in the folder of its statement.")
    if not key.is_file():
        raise InputError(f"--public-key {key} is not a file; give the PEM file of the public key.")
    try:
        signing.verifying.Config().use_elliptic_key_verifier(public_key=key).verify(path, signature)
    except Exception as error:  # the library raises many kinds on forged or damaged signatures; all mean the same
        raise StaleDataError(
            f"{signature} is not a signature of {path} by {key} ({_line(error)}); get the right files from the signer."
        ) from error
    found: dict[str, Any] = json.loads(path.read_bytes())
    here = data_digest(digest_files(out, sorted(released_files(out))))
    if here != f"sha256:{found['subject'][0]['digest']['sha256']}":
        raise StaleDataError(f"The files in {out} ({here}) are not those of {path}; restore them.")
    for item in found["predicate"]["configuration"][1:]:
        place = vault / item["name"]
        if place.is_file() and sha256_of(place) != item["digest"]["sha256"]:
            raise StaleDataError(f"{place} is not the evidence of {path}; restore it, or run check again.")
    return found


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
