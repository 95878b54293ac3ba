import pytest

from pueprotect.errors import (
    LISTED,
    CertificateError,
    ImageError,
    InputError,
    PlatformError,
    PueprotectError,
    StaleDataError,
    UnusableImages,
    VaultError,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [(InputError, 2), (ImageError, 2), (VaultError, 2), (StaleDataError, 3), (CertificateError, 2), (PlatformError, 2)],
)
def test_every_error_is_a_pueprotect_error_with_its_exit_code(kind: type[PueprotectError], code: int) -> None:
    with pytest.raises(PueprotectError, match="what happened") as caught:
        raise kind("what happened")
    assert caught.value.exit_code == code


def test_bad_images_are_bad_input() -> None:
    assert issubclass(UnusableImages, ImageError)
    assert issubclass(ImageError, InputError)
    assert not issubclass(StaleDataError, InputError | VaultError)


def test_one_unusable_image_is_named_and_many_are_counted_after_the_first_few() -> None:
    files = [(f"{number}.png", f"{number}.png is empty.") for number in range(LISTED + 2)]
    alone = UnusableImages(files[:1], 9, "Leave it out.")
    assert str(alone) == "0.png is empty. Leave it out."
    few = str(UnusableImages(files[:LISTED], 9))
    assert few.startswith(f"{LISTED} of 9 images cannot be used: 0.png is empty.")
    assert "more" not in few
    many = UnusableImages(files, 9, "Leave them out.")
    assert many.files == tuple(files), "all of them, although the message names a few"
    assert f"{LISTED - 1}.png is empty. ... and 2 more. Leave them out." in str(many)
    assert f"{LISTED}.png" not in str(many)
