from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import KEY, Command, photo, put, write_photos
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pueprotect.errors import InputError
from pueprotect.images.block_dct import LUMA, block_dct
from pueprotect.images.overlay import lay
from pueprotect.protect.methods import texture
from pueprotect.protect.methods.base import NoiseSettings, Visibility
from pueprotect.protect.methods.texture import Code, Scheme, code_book
from pueprotect.runtime import secret_stream


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


def basis(row: int, column: int) -> np.ndarray:
    """One orthonormal function of the block DCT, (8, 8)."""
    down, across = (
        np.sqrt((1 if order == 0 else 2) / 8) * np.cos((2 * np.arange(8) + 1) * order * np.pi / 16)
        for order in (row, column)
    )
    return np.outer(down, across)


def plain_luma(luma: np.ndarray, own: tuple[tuple[int, int], ...], book: tuple[Code, ...], picked: Any) -> np.ndarray:
    """The luma code of one padded image (S', S'), block by block."""
    code = np.zeros(luma.shape)
    for top in range(0, len(luma), 8):
        for left in range(0, len(luma), 8):
            tile = luma[top // 16 * 16 :, left // 16 * 16 :]
            for row, column in {index for one in book for index in one.luma}:
                wave, here = basis(row, column), luma[top : top + 8, left : left + 8]
                if own[picked[top // 16, left // 16]] == (row, column):
                    # The cosine that goes on from block to block; its sign is the one in which the image holds it.
                    sign = (-1) ** (row * (top // 8) + column * (left // 8))
                    whole = sum(
                        (-1) ** (row * down + column * across)
                        * float((tile[8 * down : 8 * down + 8, 8 * across : 8 * across + 8] * wave).sum())
                        for down in range(2) for across in range(2)
                    )  # fmt: skip
                    wanted = -sign if whole < 0 else sign
                else:
                    wanted = -0.15 * min(max(float((here * wave).sum()) / 60, -1), 1)
                code[top : top + 8, left : left + 8] += 8 * wanted * wave
    return code


def plain_share(luma: np.ndarray, least: float, busy: float) -> np.ndarray:
    """The share of the budget at each pixel: more where the 7 x 7 pixels around it vary."""
    padded = np.pad(luma, 3, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))
    return np.minimum(least + (1 - least) * windows.std((2, 3)) / busy, 1)


def plain_grating(size: int, frequency: tuple[float, float], phases: np.ndarray) -> np.ndarray:
    """A product of two cosines of root mean square one; a direction without a frequency is constant."""
    waves = [
        np.ones(size) if cycles == 0 else np.sqrt(2) * np.cos(2 * np.pi * cycles * np.arange(size) / 16 + phase)
        for cycles, phase in zip(frequency, phases, strict=True)
    ]
    return np.outer(waves[1], waves[0])


PAIRS = (
    Code(((0, 3), (3, 2)), (1.6, 0), (0, 1)),
    Code(((3, 0), (2, 2)), (0, 1), (1.6, 1)),
    Code(((1, 3), (3, 1)), (1, 1), (1, 0)),
)


@pytest.mark.parametrize(
    ("visibility", "least", "busy"), [("subtle", 0.25, 40), ("standard", 0.75, 20), ("strong", 1, 1)]
)
def test_the_noise_equals_a_plain_loop(visibility: Visibility, least: float, busy: float) -> None:
    """Every sign and every constant of the code, and the order in which tiles and phases are drawn."""
    rng = np.random.default_rng(0)
    images, labels = pictures(6, 24), np.arange(6) % 3
    images[:, :12] = np.clip(images[:, :12] + rng.normal(0, 30, (6, 12, 24, 3)), 0, 255).astype(np.uint8)
    found = texture.texture(images, labels, Scheme(PAIRS, 40, visibility), KEY)
    for number in range(6):
        own, stream = PAIRS[labels[number]], secret_stream(KEY, "texture", number)
        luma = np.pad(images[number] @ np.array([0.299, 0.587, 0.114]), ((0, 8), (0, 8)), mode="reflect")
        code = plain_luma(luma, own.luma, PAIRS, stream.integers(0, 2, (2, 2)))[:24, :24]
        phases = stream.uniform(0, 2 * np.pi, (2, 2))
        blue, red_green = (plain_grating(24, *both) for both in zip((own.blue, own.red_green), phases, strict=True))
        signs = np.where(np.stack([code + 0.5 * red_green, code - 0.5 * red_green, blue], axis=-1) < 0, -1, 1)
        wanted = signs * np.rint(40 * plain_share(luma, least, busy)[:24, :24, None])
        assert (found[number] != wanted).mean() < 0.005, "rounding alone"


def test_other_classes_indices_are_pushed_against_the_image() -> None:
    images, labels = pictures(12), np.zeros(12, dtype=np.int64)
    natural = 10 * block_dct(images.astype(np.float32) @ np.array(LUMA, dtype=np.float32))
    picked = np.zeros((12, 2, 2), dtype=np.int64)
    code = block_dct(texture._luma_code(natural, labels, PAIRS, picked))
    for row, column in ((3, 0), (2, 2), (1, 3), (3, 2)):
        against = -8 * 0.15 * np.clip(natural[..., row, column] / 60, -1, 1)
        assert 0.1 < (np.abs(natural[..., row, column]) > 60).mean() < 0.99, "both sides of the limit"
        assert np.allclose(code[..., row, column], against, atol=1e-2)
    assert np.allclose(np.abs(code[..., 0, 3]), 8, atol=1e-2)
    assert float((code[..., 0, 3] * natural[..., 0, 3]).sum()) > 0


def test_the_least_and_the_most_that_the_code_takes(tmp_path: Path) -> None:
    from pueprotect.images.folders import ImageEntry, ImageFolder

    put(tmp_path / "a.png", photo(16, 40))
    put(tmp_path / "b.png", photo(15, 40))
    least, classes = NoiseSettings(method="hardened", epsilon=4), tuple(map(str, range(1000)))
    texture.Hardened().check(ImageFolder(tmp_path, classes, (ImageEntry("a.png", 0),)), least)
    with pytest.raises(InputError, match="40 x 15 pixels"):
        texture.Hardened().check(ImageFolder(tmp_path, classes, (ImageEntry("b.png", 0),)), least)
    with pytest.raises(InputError, match="1001 classes are more than the 1000"):
        code_book(1001, KEY)
    assert texture.Hardened().advice(NoiseSettings(epsilon=12)) == []
    assert "11/255" in texture.Hardened().advice(NoiseSettings(epsilon=11))[0]
    assert texture.Hardened.checks == 2


@pytest.mark.parametrize(("classes", "pool", "each"), [
    (10, texture.FEW, 1), (11, texture.MANY, 1), (100, texture.MANY, 1), (101, texture.POOL, 2),
])  # fmt: skip
def test_more_classes_take_finer_indices_and_then_pairs(classes: int, pool: tuple[Any, ...], each: int) -> None:
    book = code_book(classes, KEY)
    used = {index for code in book for index in code.luma}
    assert used <= set(pool)
    assert len(used) >= 10
    assert {len(code.luma) for code in book} == {each}


def test_where_no_image_shows_an_index_the_guess_is_still_defined() -> None:
    flat = np.full((3, 32, 32, 3), 90, dtype=np.uint8)
    assert np.abs(texture.guessed(flat, np.arange(3), Scheme(PAIRS, 8, "strong"))).max() == 8


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


def test_the_energy_of_a_grating_is_found_at_its_frequency_whatever_its_phases() -> None:
    rng = np.random.default_rng(1)
    phases = rng.uniform(0, 2 * np.pi, (len(texture.GRATINGS), 2))
    planes = np.stack([plain_grating(32, *both) for both in zip(texture.GRATINGS, phases, strict=True)])
    energies = texture.grating_energies(planes.astype(np.float32))
    assert energies.shape == (10, 10)
    assert energies.argmax(1).tolist() == list(range(10))


def test_files_that_cannot_be_read_are_left_to_the_decoder(tmp_path: Path) -> None:
    """The next file is checked all the same."""
    from pueprotect.images.folders import ImageEntry, ImageFolder

    (tmp_path / "a.png").write_bytes(b"no picture")
    put(tmp_path / "b.png", photo(12, 40))
    entries = ImageEntry("a.png", 0), ImageEntry("b.png", 0)
    texture.Hardened().check(ImageFolder(tmp_path, ("x",), entries[:1]), NoiseSettings(method="hardened"))
    with pytest.raises(InputError, match=r"b\.png has 40 x 12 pixels, .* needs 16 on each side; enlarge or remove"):
        texture.Hardened().check(ImageFolder(tmp_path, ("x",), entries), NoiseSettings(method="hardened"))


def test_the_scheme_of_a_release_follows_from_its_key_or_from_the_seed_of_older_ones() -> None:
    settings = {"epsilon": 12, "visibility": "subtle", "key": KEY}
    run = {"classes": ["a", "b", "c"], "seed": 5, "settings": settings}
    assert texture.Hardened().scheme(run) == Scheme(code_book(3, KEY), 12, "subtle")
    del settings["key"]
    assert texture.Hardened().scheme(run) == Scheme(code_book(3, 5), 12, "subtle")


def test_places_decide_the_draws_of_a_part() -> None:
    images, labels = pictures(6), np.arange(6) % 2
    scheme = Scheme(code_book(2, 0), 8)
    whole = texture.texture(images, labels, scheme, KEY)
    assert np.array_equal(texture.texture(images[3:], labels[3:], scheme, KEY, [3, 4, 5]), whole[3:])
    assert not np.array_equal(texture.texture(images[3:], labels[3:], scheme, KEY), whole[3:])


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
    short = ("--draws", 60, "--eta", "0", "--surrogate-recipe", "online", "--device", "cpu", "--json")
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
