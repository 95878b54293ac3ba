import base64
import json
import shutil
from pathlib import Path

import pytest
from helpers import Command, RecordedRelease

GOOD = "version: 1\naudit: {suite: quick, max_accuracy: 0.5}\nwaivers: []\n"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "pueprotect.yaml"
    path.write_text(GOOD)
    return path


def test_the_statement_follows_in_toto_and_names_the_released_files(
    evidence: RecordedRelease, policy: Path, tmp_path: Path, command: Command
) -> None:
    target = tmp_path / "statement.json"
    assert command("check", evidence.out, "--policy", policy, "--attest", target).code == 0
    found = json.loads(target.read_text())
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    digest = evidence.release.outcome.data["data_digest"]
    assert f"sha256:{found['subject'][0]['digest']['sha256']}" == digest
    predicate = found["predicate"]
    assert predicate["result"] == "PASSED"
    assert "audit.pst.max_accuracy" in predicate["passedTests"]
    assert (predicate["warnedTests"], predicate["failedTests"]) == ([], [])
    named = {item["name"] for item in predicate["configuration"]}
    assert {"pueprotect.yaml", "manifest.jsonl", "certificate.json", "audit/pst-resnet8.json"} <= named


@pytest.mark.parametrize(("change", "result"), [
    (("0.5", "0.1"), "FAILED"), (("suite: quick", "min_epochs: 999"), "FAILED"),
    (("waivers: []", "waivers: [{rule: audit, reason: x, expires: 9999-12-31}]"), "PASSED"),
    (("0.5}\nwaivers: []", "0.1}\nwaivers: [{rule: audit, reason: x, expires: 9999-12-31}]"), "WARNED"),
])  # fmt: skip
def test_the_result_is_passed_only_for_a_pass(
    change: tuple[str, str], result: str, evidence: RecordedRelease, policy: Path, tmp_path: Path, command: Command
) -> None:
    policy.write_text(GOOD.replace(*change))
    command("check", evidence.out, "--policy", policy, "--attest", tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text())["predicate"]["result"] == result


def test_sign_needs_attest(evidence: RecordedRelease, policy: Path, tmp_path: Path, command: Command) -> None:
    done = command("check", evidence.out, "--policy", policy, "--sign", tmp_path / "key.pem")
    assert done.code == 2
    assert "--attest" in done.stderr


def keys(place: Path) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = place / "key.pem", place / "key.pub"
    private.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def test_a_signature_covers_files_statement_and_evidence(
    evidence: RecordedRelease, policy: Path, tmp_path: Path, command: Command
) -> None:
    pytest.importorskip("model_signing", reason="the optional extra signing is not installed")
    private, public = keys(tmp_path)
    statement = tmp_path / "s.json"
    signed = command("check", evidence.out, "--policy", policy, "--attest", statement, "--sign", private)
    assert signed.code == 0, signed.stderr
    signature = tmp_path / "s.json.sig"
    verify = ("verify", evidence.out, "--signature", signature, "--public-key", public)
    assert command(*verify).code == 0
    for path in (evidence.out / "cat/000.png", statement, evidence.vault / "certificate.json",
                 evidence.vault / "audit/pst-resnet8.json", evidence.vault / "manifest.jsonl"):  # fmt: skip
        kept = path.read_bytes()
        flip(path, len(kept) // 2)
        changed = command(*verify)
        assert changed.code == 3, path
        assert changed.stderr.count("\n") == 1
        path.write_bytes(kept)
    envelope = json.loads(signature.read_text())
    raw = bytearray(base64.b64decode(envelope["dsseEnvelope"]["signatures"][0]["sig"]))
    raw[-1] ^= 1
    kept = signature.read_bytes()
    envelope["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(bytes(raw)).decode()
    signature.write_text(json.dumps(envelope))
    assert command(*verify).code == 3
    signature.write_bytes(kept)
    other = tmp_path / "other"
    other.mkdir()
    assert command(*verify[:-1], keys(other)[1]).code == 3, "another key"
    shutil.rmtree(evidence.vault)
    assert command(*verify).code == 0, "a receiver has no vault"


def test_a_missing_extra_is_reported_with_its_install_command(
    evidence: RecordedRelease, policy: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "model_signing", None)
    done = command("check", evidence.out, "--policy", policy, "--attest", tmp_path / "s.json", "--sign", tmp_path / "k")
    assert done.code == 2
    assert "pueprotect[signing]" in done.stderr
    done = command("verify", evidence.out, "--signature", tmp_path / "s.json.sig")
    assert done.code == 2
    assert "--public-key" in done.stderr
