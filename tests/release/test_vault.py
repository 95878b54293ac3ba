import json
import os
import stat

import numpy as np
import pytest
from helpers import row, unix
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pueprotect.errors import InputError, VaultError
from pueprotect.release import vault as vault_module
from pueprotect.release.digests import sha256_of
from pueprotect.release.vault import SCHEMA_VERSION, Vault, default_vault, locked


def sealed(vault):
    vault.write_manifest([row("a.png"), row("b.png")])
    vault.seal({"seed": 3})
    return vault


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_default_vault_is_next_to_the_release(tmp_path, monkeypatch):
    assert default_vault(tmp_path / "out.v1") == tmp_path / "out.v1.vault"
    monkeypatch.chdir(tmp_path)
    assert default_vault(type(tmp_path)(".")) == tmp_path.parent / f"{tmp_path.name}.vault"


def test_everything_in_the_vault_is_private(tmp_path):
    vault = Vault.create(tmp_path / "deep" / "v")
    vault.write_json("audit/pst-resnet8.json", {"accuracy": 0.2})
    vault.write_tensors("delta.safetensors", {"delta": np.zeros(3)})
    sealed(vault)
    assert mode(vault.path) == mode(vault.path / "audit") == 0o700
    files = [path for path in vault.path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == [
        "delta.safetensors",
        "manifest.jsonl",
        "pst-resnet8.json",
        "run.json",
    ]
    assert {mode(path) for path in files} == {0o600}


def test_create_uses_an_existing_vault_and_refuses_a_file(tmp_path):
    first = sealed(Vault.create(tmp_path / "v"))
    assert Vault.create(tmp_path / "v").run() == first.run()
    (tmp_path / "file").write_text("x")
    with pytest.raises(VaultError, match="--vault"):
        Vault.create(tmp_path / "file")
    with pytest.raises(VaultError, match="--vault"):
        Vault.create(tmp_path / "file" / "v")


def test_open_says_what_to_pass_when_there_is_no_vault(tmp_path, vault):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(VaultError, match=r"--vault DIR, or --test DIR") as caught:
            Vault.open(path)
        assert str(path) in str(caught.value)
    vault.write_manifest([])
    assert not Vault.open(vault.path).is_sealed
    evidence = Vault.create(tmp_path / "evidence")
    evidence.write_json("audit/pst.json", {})
    assert Vault.open(evidence.path).read_json("audit/pst.json") == {}


def test_seal_adds_schema_and_digest_and_comes_last(vault):
    with pytest.raises(VaultError, match=r"manifest\.jsonl"):
        vault.seal({})
    assert not vault.is_sealed
    with pytest.raises(VaultError, match="--resume"):
        vault.run()
    sealed(vault)
    assert vault.is_sealed
    assert vault.run() == {
        "seed": 3,
        "schema_version": SCHEMA_VERSION,
        "manifest_sha256": sha256_of(vault.path / "manifest.jsonl"),
    }
    vault.unseal()
    vault.unseal()
    assert not vault.is_sealed


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_change_of_the_manifest_breaks_the_seal(vault, data):
    path = sealed(vault).path / "manifest.jsonl"
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(VaultError, match=r"manifest\.jsonl"):
        vault.run()


def test_run_refuses_another_schema(vault):
    run = sealed(vault).run()
    vault.write_json("run.json", {**run, "schema_version": 99})
    with pytest.raises(VaultError, match="schema_version 99"):
        vault.run()


@pytest.mark.parametrize("bad", ["{", '{"path": "b"}', "[]", ""])
def test_a_broken_manifest_names_its_line(vault, bad):
    vault.write_manifest([row("a.png")])
    with (vault.path / "manifest.jsonl").open("a") as file:
        file.write(bad + "\n")
    with pytest.raises(VaultError, match=r"manifest\.jsonl, line 2"):
        vault.read_manifest()


def test_json_round_trip_keeps_order_and_adds_nothing(vault):
    obj = {"z": 1, "a": [None, True, 0.1], "ö": {"x": "y"}}
    vault.write_json("x.json", obj)
    text = (vault.path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == obj
    assert list(json.loads(text)) == ["z", "a", "ö"]
    assert vault.read_json("x.json") == obj


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe\x00", b""])
def test_broken_json_is_named(vault, content):
    (vault.path / "x.json").write_bytes(content)
    with pytest.raises(VaultError, match=r"x\.json"):
        vault.read_json("x.json")
    with pytest.raises(VaultError, match=r"none\.json"):
        vault.read_json("none.json")


def test_nan_never_reaches_a_file(vault):
    with pytest.raises(ValueError, match="not JSON compliant"):
        vault.write_json("x.json", {"accuracy": float("nan")})
    assert list(vault.path.iterdir()) == []


def test_an_interrupted_write_keeps_the_old_file(vault, monkeypatch):
    vault.write_json("x.json", {"old": 1})

    def fail(*_):
        raise OSError(28, "No space left on device")

    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(vault_module.os, name, fail)
            with pytest.raises(VaultError, match=r"x\.json cannot be written.*No space"):
                vault.write_json("x.json", {"new": 1})
        assert vault.read_json("x.json") == {"old": 1}
        assert [path.name for path in vault.path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("name", ["../x.json", "/tmp/x.json", "a/../../x.json", "."])
def test_names_stay_inside_the_vault(vault, name):
    with pytest.raises(VaultError, match="inside"):
        vault.write_json(name, {})
    with pytest.raises(VaultError, match="inside"):
        vault.read_json(name)


def test_tensors_round_trip_in_any_layout(vault):
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensors = {
        "plain": base,
        "turned": base.T,
        "strided": base[:, ::2, ::-1],
        "scalar": np.array(2.5),
        "levels": np.array([[-8, 8]], dtype=np.int8),
        "empty": np.zeros((0, 3), dtype=np.int64),
    }
    vault.write_tensors("t.safetensors", tensors)
    back = vault.read_tensors("t.safetensors")
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype
        assert back[name].shape == value.shape
        assert np.array_equal(back[name], value)


@pytest.mark.parametrize("damage", [lambda b: b[:-4], lambda b: b[:5], lambda b: b"", lambda b: b"\xff" * 8 + b[8:]])
def test_damaged_tensors_are_named(vault, damage):
    vault.write_tensors("t.safetensors", {"x": np.ones(50)})
    path = vault.path / "t.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(VaultError, match=r"t\.safetensors"):
        vault.read_tensors("t.safetensors")


@unix
def test_a_folder_is_held_against_other_runs_until_the_end(tmp_path):
    refused = pytest.raises(InputError, match="--vault here is in use by another run")
    with locked(tmp_path, "--vault here"), refused, locked(tmp_path, "--vault here"):
        pass
    with locked(tmp_path, "--vault here"):
        pass
    tmp_path.chmod(0o500)
    with locked(tmp_path, "--vault here"):
        pass
    tmp_path.chmod(0o700)


@unix
def test_a_folder_that_cannot_be_locked_is_used_without(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    def lacks_locks(*_):
        raise OSError(95, "Operation not supported")

    for module, name, function in ((os, "open", refuse), (vault_module.fcntl, "flock", lacks_locks)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, function)
            with locked(tmp_path, "--vault"), locked(tmp_path, "--vault"):
                used = True
    assert used
