import pytest

from pueprotect.protect import presets
from pueprotect.protect.options import Options
from pueprotect.protect.presets import PRESETS


@pytest.fixture
def full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what the tests of the workflow run under: there every set counts as large."""
    monkeypatch.setattr(presets, "FULL_SIZE", 4000)


def test_small_sets_are_shuffled_for_half_of_the_rounds_and_large_ones_never(full_size: None) -> None:
    assert Options().settings("resnet8", 3999, 32).shuffled == 0.5
    assert Options().settings("resnet8", 4000, 32).shuffled == 0.0


def test_presets_grow() -> None:
    quick, standard, strong = PRESETS["quick"], PRESETS["standard"], PRESETS["strong"]
    assert quick.rounds <= standard.rounds <= strong.rounds
    assert quick.check_epochs <= standard.check_epochs <= strong.check_epochs


def test_small_sets_get_more_passes(full_size: None) -> None:
    standard = PRESETS["standard"]
    assert standard.for_images(4000, 32) == standard.for_images(50_000, 48) == standard
    assert standard.for_images(1000, 32).rounds == 4 * standard.rounds
    assert standard.for_images(10, 32).rounds == 10 * standard.rounds


def test_images_shown_at_many_scales_get_twice_the_rounds() -> None:
    for name, preset in PRESETS.items():
        small, large = preset.for_images(4000, 48), preset.for_images(4000, 64)
        assert (large.rounds, large.extra_rounds) == (2 * small.rounds, 2 * small.extra_rounds), name
        assert (large.draws, large.check_epochs) == (small.draws, small.check_epochs), name
