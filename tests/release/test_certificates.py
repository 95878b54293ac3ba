import pytest

from pueprotect.release.certificates import Certificate, NoisyAccuracy, Point, RecipeFigures


def point(eta: float) -> Point:
    return Point(eta=eta, q_shifted=0.9, rank=50, certified_learnability=0.3, draws_needed=44)


FIGURES = RecipeFigures(
    recipe="plain", surrogate_clean_accuracy=0.2, noisy_accuracy=NoisyAccuracy(mean=0.2, median=0.2, max=0.3),
    curve=[point(0.2), point(0.0), point(0.1)],
)  # fmt: skip


@pytest.mark.parametrize(
    ("eta", "found"), [(0.0, 0.0), (0.05, 0.1), (0.1, 0.1), (0.1 + 1e-13, 0.1), (0.11, 0.2), (None, 0.2)]
)
def test_a_radius_is_answered_by_the_smallest_ball_that_contains_it(eta: float | None, found: float) -> None:
    answer = FIGURES.at(eta)
    assert answer is not None
    assert answer.eta == found


def test_no_ball_contains_a_radius_beyond_the_curve() -> None:
    assert FIGURES.at(0.3) is None
    assert FIGURES.model_copy(update={"curve": []}).at(None) is None


def test_an_older_or_newer_certificate_is_read() -> None:
    """What an older one lacks is null, and keys that are not known are kept."""
    older = {
        **FIGURES.as_json(), "q": 0.9, "sigma": 0.1, "alpha": 0.01, "joint": False, "holdout_images": 10, "classes": 2,
        "chance": 0.5, "max_eta": 0.2, "recipes": {"plain": FIGURES.as_json()}, "baseline": None, "flags": [],
        "seconds": 1.0, "data_digest": "sha256:" + "0" * 64, "added_later": 1,
    }  # fmt: skip
    read = Certificate.model_validate(older)
    assert (read.looks, read.alpha_spent, read.test_overlap, read.relative) == (None, None, None, False)
    assert read.as_json().items() >= older.items()
