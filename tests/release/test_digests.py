import hashlib
import subprocess
from pathlib import Path

import pytest
from helpers import hexes, put_files, row
from hypothesis import given, settings
from hypothesis import strategies as st

from pueprotect.errors import InputError
from pueprotect.release.digests import (
    NAMED,
    SMALL,
    Verification,
    data_digest,
    describe,
    digest_files,
    sha256_of,
    verify,
)


def test_digests_are_sha256(tmp_path):
    put_files(tmp_path, {"b/2.png": b"two", "a.png": b"one"})
    expected = {
        name: hashlib.sha256(content).hexdigest() for name, content in {"b/2.png": b"two", "a.png": b"one"}.items()
    }
    assert sha256_of(tmp_path / "a.png") == expected["a.png"]
    for workers in (0, 1, 3):
        digests = digest_files(tmp_path, ["b/2.png", "a.png"], workers)
        assert digests == expected
        assert list(digests) == ["b/2.png", "a.png"]
    with pytest.raises(InputError, match=r"none\.png"):
        digest_files(tmp_path, ["none.png"])


def test_data_digest_can_be_checked_with_coreutils(tmp_path):
    put_files(tmp_path, {"b/2.png": b"two", "a.png": b"one", "ä.png": b"three"})
    digests = digest_files(tmp_path, ["b/2.png", "a.png", "ä.png"])
    command = "sha256sum b/2.png a.png ä.png | LC_ALL=C sort | sha256sum"
    answer = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert data_digest(digests) == "sha256:" + answer.split()[0]


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), hexes, min_size=1), st.data())
def test_data_digest_ignores_order_and_sees_every_change(digests, data):
    names = data.draw(st.permutations(sorted(digests)))
    assert data_digest({name: digests[name] for name in names}) == data_digest(digests)
    changed = {**digests, names[0]: data.draw(hexes.filter(lambda value: value != digests[names[0]]))}
    assert data_digest(changed) != data_digest(digests)
    assert data_digest({name: digests[name] for name in names[1:]}) != data_digest(digests)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.binary(min_size=1, max_size=40), min_size=1), st.data())
def test_any_one_byte_change_fails_verify(tmp_path_factory, files, data):
    out = tmp_path_factory.mktemp("out")
    rows = put_files(out, files)
    assert verify(out, rows).ok
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (out / name).write_bytes(content)
    result = verify(out, rows)
    assert not result.ok
    assert (result.missing, result.extra, result.changed) == ((), (), (name,))


def test_verify_lists_missing_extra_and_changed_files(tmp_path):
    out = tmp_path / "out"
    rows = put_files(out, {f"ant/{name}.png": name.encode() for name in "dcba"})
    assert verify(out, rows).ok
    (out / "ant/b.png").unlink()
    (out / "ant/c.png").write_bytes(b"other")
    put_files(out, {".DS_Store": b"", ".hidden/x": b"", "ant/new.png": b""})
    result = verify(out, rows, workers=2)
    assert not result.ok
    assert result.missing == ("ant/b.png",)
    assert result.extra == (".DS_Store", ".hidden/x", "ant/new.png")
    assert result.changed == ("ant/c.png",)


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_one_kind_of_difference_is_enough(tmp_path, change):
    rows = put_files(tmp_path, {"a": b"1", "b": b"2"})
    assert not verify(tmp_path, rows[:1] if change == "extra" else [*rows, row("c")]).ok


def test_verify_does_not_follow_a_linked_folder(tmp_path):
    out = tmp_path / "out"
    rows = put_files(out, {"ant/a.png": b"a"})
    (out / "ant").rename(tmp_path / "elsewhere")
    (out / "ant").symlink_to(tmp_path / "elsewhere")
    result = verify(out, rows)
    assert (result.missing, result.extra) == (("ant/a.png",), ("ant",))


def test_verify_needs_a_folder(tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        verify(tmp_path / "none", [])


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL])
def test_files_of_every_size_are_hashed_whole(tmp_path, size):
    content = bytes(index % 251 for index in range(size))
    put_files(tmp_path, {"a": b"first", "b": content, "c": b"last"})
    digests = digest_files(tmp_path, ["c", "b", "a"], workers=2)
    assert list(digests) == ["c", "b", "a"]
    assert digests["b"] == hashlib.sha256(content).hexdigest()


def test_descriptions_list_every_kind_and_stop_at_a_limit() -> None:
    many = tuple(f"{number:02d}.png" for number in range(NAMED + 1))
    text = describe(Verification(missing=("a.png",), extra=(), changed=many), Path("out"))
    assert "1 missing (a.png)" in text
    assert f"{NAMED + 1} changed (" in text
    assert "extra" not in text
    assert many[NAMED - 1] in text
    assert many[NAMED] not in text
