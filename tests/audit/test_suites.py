import pytest

from pueprotect.audit.attacks import REGISTRY
from pueprotect.audit.suites import SUITES, TRANSFER, applicable, suite
from pueprotect.errors import InputError
from pueprotect.learning.models import ARCHITECTURES

STANDARD_V1 = """
standard early-stopping cutout mixup cutmix randaugment colour blur grayscale jpeg-10 jpeg-30 bit-depth ueraser at-4
at-8 class-mean projection weight-noise weight-noise-short shallow-noise pst pst-colour recovery
"""
STANDARD_V2 = (
    "blur-2 half-size blue-drop jpeg-colour notch wide-notch mid-notch equalise denoise known-code whole-class-mean"
)


def test_a_published_suite_never_changes() -> None:
    """A change here means that a suite of another name must be published."""
    assert suite("standard-v1") == tuple(STANDARD_V1.split())
    assert suite("standard-v2") == tuple(f"{STANDARD_V1} {STANDARD_V2}".split())
    assert suite("quick") == ("standard", "colour", "jpeg-10", "class-mean", "weight-noise", "pst")


def test_suites_hold_registered_attacks_and_known_networks() -> None:
    for attacks in SUITES.values():
        assert set(attacks) <= set(REGISTRY)
        assert len(set(attacks)) == len(attacks)
    assert set(REGISTRY) - set(SUITES["standard-v2"]) == {"known-seed", "holdout-files"}, "for the next version"
    for name, places in TRANSFER.items():
        assert name in SUITES
        assert all(set(archs) <= set(ARCHITECTURES) for archs in places.values())


def test_attacks_on_one_method_are_left_out_on_releases_of_another() -> None:
    assert applicable(("pst", "known-code"), "hardened") == ("pst", "known-code")
    assert applicable(("pst", "known-code"), "pue") == ("pst",)
    assert applicable(("pst", "known-code"), None) == ("pst",)


@pytest.mark.parametrize(("wrong", "near"), [("standard-v9", "standard-v"), ("quik", "quick"), ("zzz", "quick")])
def test_the_nearest_suite_is_offered(wrong: str, near: str) -> None:
    with pytest.raises(InputError, match=near):
        suite(wrong)
