from typing import Any

import pytest
from helpers import Recorded, RecordedRelease, noise_images

from pueprotect.certify.certificate import CertificateSettings, certify
from pueprotect.check.consistency import certificate_fault, record_fault
from pueprotect.learning.models import build
from pueprotect.release.audits import AuditRecord
from pueprotect.release.certificates import Certificate

NAME = "audit/pst-cnn.json"


def audited(name: str = "pst", **result: Any) -> AuditRecord:
    digest = "sha256:" + "0" * 64
    key = {"attack": name, "arch": "cnn", "epochs": 15, "seed": 0, "data_digest": digest, "test_digest": digest}
    found = {"attack": name, "arch": "cnn", "accuracy": 0.5, "best_accuracy": 0.5, "epochs": 15, "seconds": 1.0,
             "details": {}}  # fmt: skip
    return AuditRecord.model_validate({"key": key, "result": found | result})


def test_what_the_commands_write_is_possible(recorded: Recorded, evidence: RecordedRelease) -> None:
    assert certificate_fault(Certificate.model_validate(recorded.certificate)) is None
    for path in (evidence.vault / "audit").glob("*.json"):
        assert record_fault(path.name, AuditRecord.model_validate_json(path.read_bytes())) is None


@pytest.mark.parametrize(
    "wanted",
    [{"q": 0.5, "alpha": 0.4, "draws": 2, "etas": (0.0, 0.05)}, {"q": 0.99, "draws": 3, "etas": (0.0, 1.0)},
     {"q": 0.1, "sigma": 0.001, "alpha": 0.49, "draws": 1, "etas": (0.0, 0.001, 0.5)}, {"draws": 40, "joint": True}],
)  # fmt: skip
def test_unusual_settings_are_possible(wanted: dict[str, Any], recorded: Recorded) -> None:
    settings = CertificateSettings(**wanted)
    data = noise_images(30)
    found = certify(build("cnn", 3, 16, seed=0), "plain", data, data, settings)
    about = {"q": settings.q, "sigma": settings.sigma, "alpha": settings.alpha, "baseline": None}
    usual = recorded.certificate | about | found.as_json() | {"recipes": {"plain": found.as_json()}}
    assert certificate_fault(Certificate.model_validate(usual)) is None


@pytest.mark.parametrize(
    ("name", "made", "part"),
    [
        (NAME, audited(), None),
        ("audit/seed-3/pst-cnn.json", audited(), None),
        ("audit/clean-line-cnn.json", audited("clean-line", attack="standard"), None),
        ("audit/holdout-clean-line-cnn.json", audited("clean-line", attack="standard"), None),
        ("audit/holdout-pst-cnn.json", audited(), "it holds the result of pst (cnn)"),
        ("audit/pst-resnet8.json", audited(), "it holds the result of pst (cnn)"),
        (NAME, audited(arch="resnet8"), "its result of pst (resnet8)"),
        (NAME, audited(attack="standard"), "its result of standard (cnn)"),
        (NAME, audited(epochs=0), "0 epochs are impossible"),
    ],
)
def test_a_record_belongs_to_its_file(name: str, made: AuditRecord, part: str | None) -> None:
    found = record_fault(name, made)
    assert found is None if part is None else part in str(found)
