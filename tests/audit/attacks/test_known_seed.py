from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import KEY, photo, protected, put, shades, target

from pueprotect.audit.attacks import find, known_seed
from pueprotect.audit.attacks.base import Run
from pueprotect.audit.attacks.known_seed import Contrast, contrast, fitting_key, subtracted
from pueprotect.audit.pipeline import AuditSettings, audit
from pueprotect.images.sample import draw
from pueprotect.learning.data import ImageSet
from pueprotect.protect.methods.base import Visibility
from pueprotect.protect.methods.texture import Code, Scheme, code_book, texture
from pueprotect.release.opened import open_release

FEWER = {"keys": 262, "random_keys": 8471}  # of FALSE_ALARM 0.03


@pytest.fixture
def fewer_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer random keys: these tests need no small rate of false alarms."""
    monkeypatch.setattr(known_seed, "FALSE_ALARM", 0.03)


def image_set(pixels: np.ndarray, classes: int) -> ImageSet:
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    return ImageSet(images, torch.arange(len(pixels)) % classes, classes)


def pictures(count: int = 120, size: int = 32) -> np.ndarray:
    drawn = [draw(("balloon", "forest")[number % 2], number, size=size) for number in range(count // 2)]
    return np.stack([*map(np.asarray, drawn), *(photo(size, size, seed=number) for number in range(count // 2))])


def released(
    pixels: np.ndarray, key: int | str, classes: int = 6, epsilon: int = 8, visibility: Visibility = "standard",
    places: range | None = None,
) -> ImageSet:  # fmt: skip
    scheme = Scheme(code_book(classes, key), epsilon, visibility)
    noise = texture(pixels, np.arange(len(pixels)) % classes, scheme, key, places)
    return image_set(np.clip(pixels.astype(int) + noise, 0, 255).astype(np.uint8), classes)


def left(images: ImageSet, before: ImageSet, pixels: np.ndarray) -> float:
    """Energy of the noise that an attack left, relative to what there was."""
    after, first = (data.images.permute(0, 2, 3, 1).numpy() - pixels.astype(float) for data in (images, before))
    return float(np.square(after).sum() / np.square(first).sum())


@pytest.mark.usefixtures("fewer_keys")
@pytest.mark.parametrize("key", [0, 41, "0" * 32, f"{7:032x}"], ids=str)
def test_a_guessable_key_is_found_and_nearly_all_noise_is_removed(key: int | str) -> None:
    pixels = pictures()
    data = released(pixels, key)
    found, told = fitting_key(data, 0)
    assert found == key
    assert told["key"] == str(key)
    assert told["score"] > told["best_random_score"]
    assert told["false_alarm"] == 0.03
    assert {name: told[name] for name in FEWER} == FEWER
    without, told = subtracted(data, key)
    assert left(without, data, pixels) < 0.06
    assert told["tiles_and_phases"] == "of the key"
    assert abs(told["epsilon"] - 8) <= 1


@pytest.mark.usefixtures("fewer_keys")
@pytest.mark.parametrize("key", [KEY, 100, None], ids=str)
def test_no_key_is_found_where_none_can_be_guessed(key: int | str | None) -> None:
    pixels = pictures(100)
    data = image_set(pixels, 6) if key is None else released(pixels, key)
    found, told = fitting_key(data, 0)
    assert found is None
    assert told["key"] is None
    assert "plain training" in told["reading"]


@pytest.mark.usefixtures("fewer_keys")
@pytest.mark.parametrize(("classes", "size"), [(2000, 32), (6, 12)])
def test_what_the_code_cannot_protect_has_no_key(classes: int, size: int) -> None:
    found, told = fitting_key(image_set(pictures(40, size), classes), 0)
    assert found is None
    assert told["key"] is None


def test_a_false_alarm_is_as_rare_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing depends on a key, one of the keys tried is reported at the stated rate (12 of 40)."""
    monkeypatch.setattr(known_seed, "FALSE_ALARM", 0.3)
    data, alarms = released(pictures(24), KEY), 0
    for number in range(40):
        rng = np.random.default_rng(number)
        tables = (rng.normal(size=shape) for shape in ((6, 8, 8), (6, 10), (6, 10)))
        monkeypatch.setattr(known_seed, "contrast", lambda _, measured=Contrast(*tables): measured)
        alarms += fitting_key(data, number)[0] is not None
    assert 4 <= alarms <= 21


@pytest.mark.parametrize(("epsilon", "visibility"), [(8, "strong"), (16, "subtle"), (12, "standard")])
def test_budget_and_visibility_are_read_off_the_files(epsilon: int, visibility: Visibility) -> None:
    data = released(pictures(), 3, epsilon=epsilon, visibility=visibility)
    without, told = subtracted(data, 3)
    assert abs(told["epsilon"] - epsilon) <= 2
    assert (told["visibility"] == "subtle") == (visibility == "subtle")
    assert left(without, data, pictures()) < 0.08


def test_places_among_all_files_decide_tiles_and_phases() -> None:
    pixels, places = pictures(), range(0, 240, 2)
    data = released(pixels, 0, places=places)
    known, told = subtracted(data, 0, places)
    assert told["tiles_and_phases"] == "of the key"
    assert left(known, data, pixels) < 0.06
    unknown, told = subtracted(data, 0)
    assert told["tiles_and_phases"] == "guessed from the images"
    assert 0.06 < left(unknown, data, pixels) < 0.6


def test_grey_releases_are_cleaned_at_the_default_budget() -> None:
    pixels = pictures()[..., :1].repeat(3, axis=3)
    data = released(pixels, 0)
    without, told = subtracted(data, 0)
    assert (told["epsilon"], told["visibility"]) == (8, "standard")
    assert left(without, data, pixels) < 0.1


def test_contrasts_are_standard_errors_between_a_class_and_all_others() -> None:
    data = released(pictures(), 0, classes=3)
    found = contrast(data)
    assert (found.luma.shape, found.blue.shape, found.red_green.shape) == ((3, 8, 8), (3, 10), (3, 10))
    table = np.random.default_rng(0).normal(5, 1, (30, 2))
    labels = np.arange(30) % 3
    table[labels == 1, 0] += 2
    standing = known_seed._standing_out(table, labels, 4)
    own, rest = table[labels == 1, 0], table[labels != 1, 0]
    error = (own.var(ddof=1) / 10 + rest.var(ddof=1) / 20) ** 0.5
    assert standing[1, 0] == pytest.approx((own.mean() - rest.mean()) / error)
    assert standing[3].tolist() == [0, 0], "no image of this class"


def test_the_score_is_the_sum_over_the_textures_of_the_book() -> None:
    rng = np.random.default_rng(0)
    luma, blue, red_green = rng.normal(size=(2, 8, 8)), rng.normal(size=(2, 10)), rng.normal(size=(2, 10))
    book = (Code(((0, 3), (0, 5)), (1, 0), (0, 2.2)), Code(((3, 0), (5, 0)), (0, 1), (1, 1)))
    wanted = luma[0, 0, 3] + luma[0, 0, 5] + luma[1, 3, 0] + luma[1, 5, 0] + blue[0, 0] + blue[1, 1]
    wanted += red_green[0, 9] + red_green[1, 2]
    assert Contrast(luma, blue, red_green).score(book) == pytest.approx(wanted)


@pytest.mark.usefixtures("fewer_keys")
def test_without_a_key_the_attack_is_plain_training() -> None:
    here = target(drawn=shades)
    test = shades(40, seed=1)
    assert find("known-seed").run(here, test).accuracy == find("standard").run(here, test).accuracy


@pytest.mark.usefixtures("fewer_keys")
def test_the_attack_trains_on_what_is_left() -> None:
    pixels = pictures()
    data = released(pixels, 0, places=range(5, 125))
    run = Run(replace(target(epochs=1), released=data, places=range(5, 125)), shades())
    find("known-seed").train(run)
    assert run.details["key"] == "0"
    assert run.trained_on is not None
    assert left(run.trained_on, data, pixels) < 0.06


@pytest.mark.usefixtures("fewer_keys")
@pytest.mark.parametrize("key", ["0" * 32, KEY])
def test_an_audit_names_the_key_that_can_be_guessed(key: str, tmp_path: Path) -> None:
    """The training files alone, of which the attacker knows the place in the folder."""
    for number, name in enumerate(("fox", "owl", "wren", "yak")):
        for index, pixels in enumerate(pictures(30)):
            put(tmp_path / "src" / name / f"{index}.png", np.roll(pixels, number, axis=1))
    assert protected(tmp_path / "src", tmp_path / "out", method="hardened", rounds=None, size=32, key=key).released
    settings = AuditSettings(attacks=("known-seed",), suite=None, archs=("resnet8",), epochs=1.0)
    (row,) = audit(open_release(tmp_path / "out"), settings).results
    assert row.details["key"] == (key if key != KEY else None)
    if key != KEY:
        assert row.details["tiles_and_phases"] == "of the key"
