from pathlib import Path

import pytest
from helpers import KEY, options, protected, two_classes

from pueprotect.errors import InputError
from pueprotect.protect.key import check_key, guessable_keys, is_key, new_key, read_key
from pueprotect.protect.methods.base import NoiseSettings
from pueprotect.protect.options import Options


def test_a_new_key_is_128_bits_and_another_one_each_time() -> None:
    drawn = {new_key() for _ in range(100)}
    assert len(drawn) == 100
    assert all(is_key(key) for key in drawn)
    assert len({bit for key in drawn for bit in range(128) if int(key, 16) >> bit & 1}) == 128


@pytest.mark.parametrize("wrong", ["", "12ab", "g" * 32, "A" * 32, KEY + "0", " " * 32, "0x" + KEY[2:]])
def test_what_is_no_key_is_refused_without_repeating_it(wrong: str) -> None:
    assert not is_key(wrong)
    for refusing in (check_key, lambda key: Options(key=key), lambda key: NoiseSettings(key=key)):
        with pytest.raises(InputError, match="--key is not 32 hexadecimal digits") as refused:
            refusing(wrong)
        assert not wrong.strip() or wrong not in str(refused.value)


def test_no_representation_of_the_settings_shows_the_key() -> None:
    assert KEY not in repr(NoiseSettings(key=KEY))
    assert KEY not in repr(Options(key=KEY))


def test_options_without_a_key_draw_one() -> None:
    drawn = {Options().settings("resnet8", 100, 32).key for _ in range(2)}
    assert len(drawn) == 2
    assert options().settings("resnet8", 100, 32).key == KEY


def test_a_key_is_read_from_the_option_or_from_a_file(tmp_path: Path) -> None:
    assert read_key(KEY.upper()) == KEY
    path = tmp_path / "key"
    path.write_text(f"{KEY.upper()}\n")
    assert read_key(f"@{path}") == KEY
    path.write_text(f"{KEY}\n{KEY}\n")
    with pytest.raises(InputError, match="does not hold 32 hexadecimal digits") as refused:
        read_key(f"@{path}")
    assert str(path) in str(refused.value)
    assert KEY not in str(refused.value)
    path.write_bytes(b"\xff\xfe")
    for missing in (path, tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="cannot be read") as refused:
            read_key(f"@{missing}")
        assert str(missing) in str(refused.value)


def test_the_guessable_keys_are_the_old_seeds_and_keys_that_people_type() -> None:
    keys = guessable_keys()
    assert len(set(keys)) == len(keys)
    assert set(range(100)) <= set(keys)
    assert {"0" * 32, "f" * 32, f"{7:032x}", f"{42:032d}", "deadbeef" * 4, "0123456789abcdef" * 2} <= set(keys)
    assert all(isinstance(key, int) or is_key(key) for key in keys)
    assert KEY not in keys


def test_protect_warns_of_a_guessable_key(tmp_path: Path) -> None:
    source = two_classes(tmp_path / "src")
    for name, key in (("out", "0" * 32), ("two", KEY)):
        found = protected(source, tmp_path / name, method="ops", rounds=None, key=key)
        assert any("--key" in warning for warning in found.warnings) == (name == "out")
