from pathlib import Path

import numpy as np
import pytest
from helpers import Command, photo, put, write_photos
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pueprotect.errors import InputError
from pueprotect.images.block_dct import LUMA, block_dct
from pueprotect.images.overlay import lay
from pueprotect.protect.methods import texture
from pueprotect.protect.methods.base import NoiseSettings, Visibility
from pueprotect.protect.methods.texture import Code, Scheme, code_book


def pictures(count: int = 40, size: int = 32) -> np.ndarray:
    return np.stack([photo(size, size, seed=number) for number in range(count)])


def laid(images: np.ndarray, labels: np.ndarray, epsilon: int = 8, key: int = 0) -> np.ndarray:
    return texture.texture(images, labels, Scheme(code_book(int(labels.max()) + 1, key), epsilon, "strong"), key)


@given(st.one_of(st.integers(2, 30), st.sampled_from([100, 150, 400])), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_any_two_codes_differ_in_two_textures(classes: int, key: int) -> None:
    book = code_book(classes, key)
    assert len(book) == classes
    assert {len(set(code.luma)) for code in book} == {1 if classes <= 100 else 2}
    for number, code in enumerate(book):
        assert all(code.distance(other) >= (2 if classes > 10 else 3) for other in book[:number])
    assert code_book(classes, key) == book


def test_a_thousand_classes_have_a_code() -> None:
    book = code_book(1000, 0)
    assert all(code.distance(other) >= 2 for number, code in enumerate(book) for other in book[:number])


def test_another_key_gives_another_book() -> None:
    assert code_book(10, 0) != code_book(10, 1)


def test_noise_is_the_whole_budget_and_repeats() -> None:
    images, labels = pictures(), np.arange(40) % 4
    noise = laid(images, labels, epsilon=6)
    assert noise.dtype == np.int8
    assert noise.shape == images.shape
    assert set(np.unique(noise)) == {-6, 6}
    assert 0.1 < (noise[..., 0] != noise[..., 1]).mean() < 0.4, "the luma code leads in red and green"
    assert np.array_equal(noise, laid(images, labels, epsilon=6))
    assert not np.array_equal(noise, laid(images, labels, epsilon=6, key=1))


def test_noise_does_not_depend_on_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = pictures(), np.arange(40) % 4
    whole = laid(images, labels)
    monkeypatch.setattr(texture, "CHUNK", 7)
    assert np.array_equal(laid(images, labels), whole)


def test_the_noise_of_a_class_averages_out() -> None:
    images, labels = pictures(400), np.zeros(400, dtype=np.int64)
    labels[0] = 1
    mean = laid(images, labels)[1:].astype(float).mean(0)
    assert np.abs(mean[..., 2]).mean() < 0.8, "of 8 levels"


BOOK = (Code(((0, 3), (0, 5)), (1, 0), (0, 2)), Code(((3, 0), (5, 0)), (0, 1.5), (2, 1)))


def test_colours_hold_the_gratings_of_the_class_with_phases_for_each_image() -> None:
    images, labels = pictures(), np.arange(40) % 2
    noise = texture.texture(images, labels, Scheme(BOOK, 8, "strong"), 0).astype(float)
    for number, blue, opponent in ((0, {(0, 2)}, {(4, 0), (28, 0)}), (1, {(3, 0), (29, 0)}, {(2, 4), (30, 4)})):
        planes = (noise[number, ..., 2], noise[number, ..., 0] - noise[number, ..., 1])
        for plane, expected in zip(planes, (blue, opponent), strict=True):
            spectrum = np.abs(np.fft.rfft2(plane))
            row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
            assert (int(row), int(column)) in expected
    assert not np.array_equal(noise[0, ..., 2], noise[2, ..., 2])


def test_luma_strengthens_the_indices_of_its_class_along_the_image() -> None:
    images, labels = pictures(), np.arange(40) % 2
    noise = texture.texture(images, labels, Scheme(BOOK, 8, "strong"), 0)[..., :2].mean(-1, dtype=np.float32)
    energy = (block_dct(noise) ** 2).mean((1, 2))
    own, other = energy[labels == 0].mean(0), energy[labels == 1].mean(0)
    assert own[0, 3] > 5 * other[0, 3]
    assert own[0, 5] > 5 * other[0, 5]
    assert other[3, 0] > 5 * own[3, 0]
    natural = block_dct(images.astype(np.float32) @ np.array(LUMA, dtype=np.float32))
    product = (block_dct(noise) * natural)[labels == 0].sum((0, 1, 2))
    assert product[0, 3] > 0, "the noise has the sign of the image"


@pytest.mark.parametrize(("visibility", "least"), [("subtle", 2), ("standard", 6), ("strong", 8)])
def test_noise_is_weaker_where_the_picture_is_flat(visibility: Visibility, least: int) -> None:
    images = np.full((1, 32, 32, 3), 90, dtype=np.uint8)
    images[:, :, 16:] += (np.indices((32, 16)).sum(0) % 2 * 120).astype(np.uint8)[..., None]
    noise = texture.texture(images, np.zeros(1, np.int64), Scheme(code_book(2, 0), 8, visibility), 0)
    assert set(np.unique(np.abs(noise[:, :, :12]))) == {least}
    assert set(np.unique(np.abs(noise[:, :, 20:]))) == {8}


@pytest.mark.parametrize("classes", [4, 40, 300])
def test_an_attacker_who_knows_the_code_book_finds_the_noise(classes: int) -> None:
    """An attacker with the key can compute the code book, as the attack `known-code` does."""
    images, labels, book = pictures(80), np.arange(80) % classes, code_book(classes, 0)
    noise = texture.texture(images, labels, Scheme(book, 8, "strong"), 0)
    released = np.clip(images.astype(int) + noise, 0, 255).astype(np.uint8)
    found = texture.guessed(released, labels, Scheme(book, 8, "strong"))
    assert (found == noise).mean() > 0.9
    other = texture.guessed(released, labels, Scheme(code_book(classes, 1), 8, "strong"))
    assert (other == noise).mean() < 0.75


def test_greyscale_gets_luma_alone_in_every_channel() -> None:
    images, labels = pictures(4), np.arange(4) % 2
    images[1] = images[1, ..., :1]
    noise = laid(images, labels)
    assert (noise[1] == noise[1, ..., :1]).all()
    assert not (noise[0] == noise[0, ..., :1]).all()


@pytest.mark.parametrize("size", [16, 20, 33, 64])
def test_any_working_size(size: int) -> None:
    noise = laid(pictures(4, size), np.arange(4) % 2)
    assert noise.shape == (4, size, size, 3)
    assert set(np.unique(noise)) == {-8, 8}


@pytest.mark.parametrize(("attacked", "alike", "levels"), [(32, 0.45, 1.5), (64, 0.6, 3)])
def test_the_code_of_a_large_picture_survives_the_attackers_reduction(
    attacked: int, alike: float, levels: float
) -> None:
    """The working size is 64 on 512 pixels; reduced to half of it, the coarser half of the code is left."""
    large = photo(512, 512)
    small = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.LANCZOS))[None]
    noise = texture.texture(small, np.zeros(1, np.int64), Scheme(code_book(2, 0), 8), 0)[0]
    released = lay(large, noise, 8)
    seen, before = (
        np.asarray(Image.fromarray(picture).resize((attacked, attacked), Image.Resampling.BILINEAR)).astype(float)
        for picture in (released, large)
    )
    wanted = noise.reshape(attacked, 64 // attacked, attacked, 64 // attacked, 3).mean((1, 3))
    assert np.corrcoef((seen - before).ravel(), wanted.ravel())[0, 1] > alike
    assert (seen - before).std() > levels


@pytest.mark.parametrize(
    ("epsilon", "classes", "side", "message"),
    [(3, 3, 20, "below 4/255"), (8, 5000, 20, "5000 classes"), (8, 3, 12, "needs 16")],
)
def test_what_the_code_cannot_protect_is_refused(
    epsilon: int, classes: int, side: int, message: str, tmp_path: Path
) -> None:
    from pueprotect.images.folders import ImageEntry, ImageFolder

    put(tmp_path / "a.png", photo(side, side))
    folder = ImageFolder(tmp_path, tuple(map(str, range(classes))), (ImageEntry("a.png", 0),))
    with pytest.raises(InputError, match=message):
        texture.Hardened().check(folder, NoiseSettings(method="hardened", epsilon=epsilon))


def test_protect_writes_a_hardened_release(command: Command, tmp_path: Path) -> None:
    src = write_photos(tmp_path / "src")
    arguments = ("--method", "hardened", "--size", "32", "--preset", "quick", "--release-anyway", "--json")
    done = command("protect", src, "--out", tmp_path / "out", *arguments)
    assert done.code == 0
    assert done.data["method"] == "hardened"
    assert done.data["mode"] == "sample-wise"
    assert done.data["rounds"] == 0
    assert done.data["realised"]["linf_max"] == 8
    assert "--epsilon 12/255" in done.stderr
    assert command("verify", tmp_path / "out").code == 0
    short = ("--draws", 44, "--eta", "0", "--surrogate-recipe", "online", "--device", "cpu", "--json")
    certificate = command("certify", tmp_path / "out", *short)
    assert certificate.code == 0
    assert certificate.data["surrogate_clean_accuracy"] == done.data["self_check"]["accuracy"]
    again = command("protect", src, "--out", tmp_path / "out", *arguments, "--resume")
    assert again.data == done.data
    small = command("protect", src, "--out", tmp_path / "small", *arguments, "--epsilon", "2/255")
    assert small.code == 2
    assert "--epsilon 2/255" in small.stderr
    sure = command("protect", src, "--out", tmp_path / "sure", *arguments, "--epsilon", "12/255")
    assert sure.data["realised"]["linf_max"] == 12
    assert "--epsilon" not in sure.stderr
    rounds = command("protect", src, "--out", tmp_path / "small", *arguments, "--rounds", "3")
    assert rounds.code == 2
    subtle = command("protect", src, "--out", tmp_path / "small", "--visibility", "subtle")
    assert subtle.code == 2
    assert "--method hardened" in subtle.stderr
