import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Command, RecordedRelease, refused

from pueprotect.check.attest import sign_statement

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


def second_seed(evidence: RecordedRelease, accuracy: float = 0.34) -> Path:
    """Record the attack pst with another seed."""
    place = evidence.vault / "audit/seed-1/pst-resnet8.json"
    place.parent.mkdir()
    data = json.loads((evidence.vault / "audit/pst-resnet8.json").read_text())
    data["key"]["seed"] = 1
    data["result"]["accuracy"] = accuracy
    place.write_text(json.dumps(data))
    return place


def test_the_statement_names_all_seeds_and_what_lies_behind_the_bound(
    evidence: RecordedRelease, policy: Path, tmp_path: Path, command: Command
) -> None:
    second = second_seed(evidence)
    target = tmp_path / "statement.json"
    assert command("check", evidence.out, "--policy", policy, "--attest", target).code == 0
    listed = json.loads(target.read_text())["predicate"]["configuration"]
    named = {item["name"]: item["digest"]["sha256"] for item in listed}
    assert named["audit/seed-1/pst-resnet8.json"] == hashlib.sha256(second.read_bytes()).hexdigest()
    kept = {path.relative_to(evidence.vault).as_posix() for path in (evidence.vault / "certify").iterdir()}
    assert {name for name in kept if name.endswith((".json", ".draws"))} <= named.keys()
    assert not {name for name in named if name.endswith(".safetensors")}
    assert len(named) == len(listed)


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
    """A private and a public key; the test is skipped where nothing can be signed with them."""
    pytest.importorskip("model_signing", reason="the optional extra signing is not installed")
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
    received = command(*verify)
    assert received.code == 0, "a receiver has no vault"
    assert f"Only its files were compared, as there is no vault {evidence.vault}" in received.stderr
    assert command(*verify, "--json").data["evidence_compared"] is False
    refused(command(*verify, "--vault", tmp_path / "none"), 2, "--vault", "is not a folder")


@pytest.fixture
def signed(
    evidence: RecordedRelease, policy: Path, tmp_path: Path, command: Command
) -> Callable[[], tuple[object, ...]]:
    """Call it to sign a check of the release by the policy, and for the command line that verifies it."""
    private, public = keys(tmp_path)

    def sign() -> tuple[object, ...]:
        statement = tmp_path / "s.json"
        command("check", evidence.out, "--policy", policy, "--attest", statement, "--sign", private)
        return ("verify", evidence.out, "--signature", tmp_path / "s.json.sig", "--public-key", public)

    return sign


def test_a_signed_failure_is_a_failure(
    signed: Callable[[], tuple[object, ...]], policy: Path, command: Command
) -> None:
    policy.write_text(GOOD.replace("0.5", "0.1"))
    verify = signed()
    done = command(*verify)
    assert done.code == 1
    assert "The signed check failed" in done.stderr
    told = command(*verify, "--json")
    assert (told.code, told.data["ok"]) == (1, False)
    policy.write_text(GOOD)
    passed = command(*signed())
    assert passed.code == 0
    assert "The result of its check was PASSED." in passed.stderr
    assert command(*verify, "--json").data["ok"] is True


def test_a_failure_that_was_waived_is_not_one(
    signed: Callable[[], tuple[object, ...]], policy: Path, command: Command
) -> None:
    policy.write_text(
        GOOD.replace("0.5}\nwaivers: []", "0.1}\nwaivers: [{rule: audit, reason: x, expires: 9999-12-31}]")
    )
    assert command(*signed()).code == 0


@pytest.mark.parametrize("name", ["audit/pst-resnet8.json", "audit/seed-1/pst-resnet8.json", "certificate.json"])
def test_evidence_that_was_removed_changed_or_added_is_named(
    name: str, signed: Callable[[], tuple[object, ...]], evidence: RecordedRelease, command: Command
) -> None:
    second_seed(evidence)
    verify = signed()
    assert command(*verify).code == 0
    kept = (evidence.vault / name).read_bytes()
    (evidence.vault / name).unlink()
    refused(command(*verify), 3, f"(removed: {name})", "restore it")
    (evidence.vault / name).write_bytes(kept + b" ")
    refused(command(*verify), 3, f"(changed: {name})")
    (evidence.vault / name).write_bytes(kept)
    (evidence.vault / "audit/at-8-resnet8.json").write_bytes(b"{}")
    refused(command(*verify), 3, "(added: audit/at-8-resnet8.json)")


def test_an_empty_vault_lacks_all_evidence(
    signed: Callable[[], tuple[object, ...]], evidence: RecordedRelease, command: Command
) -> None:
    verify = signed()
    shutil.rmtree(evidence.vault)
    evidence.vault.mkdir()
    refused(command(*verify), 3, "removed: run.json, manifest.jsonl")


def test_the_policy_must_be_the_signed_one(
    signed: Callable[[], tuple[object, ...]], policy: Path, tmp_path: Path, command: Command
) -> None:
    verify = signed()
    assert command(*verify, "--policy", policy).code == 0
    policy.write_text(GOOD + "# a comment\n")
    refused(command(*verify, "--policy", policy), 3, f"{policy} is not the policy of", "whose result is PASSED")
    refused(command(*verify, "--policy", tmp_path / "none.yaml"), 2, "none.yaml cannot be read")
    refused(command("verify", verify[1], "--policy", policy), 2, "--signature")


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"subject": []}', b'{"subject": [{}], "predicate": {}}'])
def test_a_signed_file_that_is_no_statement_is_refused(
    content: bytes, tmp_path: Path, evidence: RecordedRelease, command: Command
) -> None:
    private, public = keys(tmp_path)
    other = tmp_path / "other.json"
    other.write_bytes(content)
    signature = sign_statement(other, private)
    done = command("verify", evidence.out, "--signature", signature, "--public-key", public)
    refused(done, 2, f"{other} is signed but is no")


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
