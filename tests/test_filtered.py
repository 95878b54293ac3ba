import pytest
import torch
from toy import image_set, shades, stripes, target

from pueprotect.audit.attacks import find
from pueprotect.audit.attacks.base import CLEAN_BEHIND_IT
from pueprotect.audit.attacks.denoise import gratings
from pueprotect.audit.attacks.notch import dependence, spectrum, telling
from pueprotect.learning.data import ImageSet


def grained(count: int = 60, size: int = 32, *, marked: tuple[tuple[int, int], ...] = ()) -> ImageSet:
    """Images with the same texture statistics in all classes, but for a cosine at one DCT index for each class."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    images = 128 + 20 * torch.randn((count, 1, size, size), generator=stream)
    axis = (2 * torch.arange(size) + 1) * torch.pi / 16
    for label, (row, column) in enumerate(marked):
        wave = torch.cos(row * axis)[:, None] * torch.cos(column * axis)[None, :]
        images[labels == label] += 10 * wave
    return image_set(images.expand(-1, 3, -1, -1), labels, 2)


def test_dependence_finds_the_marked_indices_and_nothing_on_unmarked_images() -> None:
    ratio = dependence(grained(marked=((0, 3), (4, 1))))
    assert {tuple(place) for place in torch.nonzero(ratio > 2).tolist()} == {(0, 3), (4, 1)}
    assert float(dependence(grained()).max()) < 0.4
    assert int(telling(grained()).sum()) == 10, "at least ten go"


def test_the_notch_takes_away_what_marks_the_classes() -> None:
    data = grained(marked=((0, 3), (4, 1)))
    done = find("notch").filter(target_of(data))(data.images)
    assert float(dependence(ImageSet(done, data.labels, 2))[0, 3]) < 0.4
    green = spectrum(done[:, 1].float())
    assert float(green[..., 0, 3].abs().max()) < 3, "rounding alone"
    assert float(green[..., 7, 7].abs().mean()) > 5, "the rest stays"


def test_the_wide_notch_takes_thirty_and_never_the_mean() -> None:
    data = grained(marked=((0, 3), (4, 1)))
    done = find("wide-notch").filter(target_of(data))(data.images)
    power = spectrum(done[:, 1].float()).abs().mean((0, 1, 2))
    assert int((power < 1).sum()) == 30, "rounding alone is left of them"
    assert float(power[0, 0]) > 500
    assert bool((power[[0, 4], [3, 1]] < 1).all())


def test_equalising_takes_away_what_marks_the_classes() -> None:
    data = grained(marked=((0, 3), (4, 1)))
    done = find("equalise").filter(target_of(data))(data.images)
    assert float(dependence(ImageSet(done, data.labels, 2)).max()) < 0.4
    assert float((done.float().mean((2, 3)) - data.images.float().mean((2, 3))).abs().max()) < 2


def test_the_mid_notch_leaves_means_slopes_and_grain() -> None:
    data = grained(marked=((0, 3), (4, 1)))
    left = spectrum(find("mid-notch").squeeze(data.images)[:, 1].float()).abs().mean((0, 1, 2))
    assert float(left[:5, :5].flatten()[[2, 3, 4, 10, 24]].max()) < 3
    assert float(left[:2, :2].min()) > 5
    assert float(left[5:, 5:].min()) > 5


def test_half_size_holds_what_half_the_pixels_hold() -> None:
    images = grained(4, 20).images
    done = find("half-size").squeeze(images)
    assert done.shape == images.shape
    flat = torch.full((1, 3, 21, 21), 77, dtype=torch.uint8)
    assert torch.equal(find("half-size").squeeze(flat), flat)
    checker = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 200
    board = checker.to(torch.uint8).expand(1, 3, 16, 16)
    assert set(find("half-size").squeeze(board).unique().tolist()) == {100}


def test_blue_goes_and_nothing_else() -> None:
    images = grained(4).images
    done = find("blue-drop").squeeze(images)
    assert torch.equal(done[:, :2], images[:, :2])
    assert int(done[:, 2].max()) == 0
    assert int(images[:, 2].max()) > 0


def test_the_noise_that_the_denoiser_learns_from_is_two_valued_and_mixed() -> None:
    noise = gratings(60, 16, torch.Generator().manual_seed(0), "cpu")
    assert set(noise.unique().tolist()) == {-1.0, 1.0}
    alike = (noise == noise[:, :1]).all(1).all(1).all(1)
    assert 8 < int(alike.sum()) < 32


def test_denoising_brings_images_nearer_to_what_they_were() -> None:
    """Smooth pictures with gratings on them; the denoiser has seen other smooth pictures."""

    def smooth(count: int = 64, size: int = 16, seed: int = 0) -> ImageSet:
        stream = torch.Generator().manual_seed(seed)
        slope = torch.rand((count, 3, 1, 1), generator=stream) * 6
        return image_set(
            60 + slope * torch.arange(size).float()[:, None].expand(size, size), torch.arange(count) % 2, 2
        )

    clean = smooth(seed=5).images
    noisy = (clean.float() + 8 * gratings(64, 16, torch.Generator().manual_seed(9), "cpu")).to(torch.uint8)
    done = find("denoise").filter(target(drawn=smooth))(noisy)
    assert (done.float() - clean.float()).abs().mean() < 0.6 * (noisy.float() - clean.float()).abs().mean()


@pytest.mark.parametrize("name", ["notch", "blur-2"])
def test_clean_images_behind_the_same_filter_stand_beside(name: str) -> None:
    result = find(name).run(target(drawn=shades, known=True), shades(40, seed=1))
    assert result.details["points"][CLEAN_BEHIND_IT] >= 0.8
    assert result.best_accuracy == max([result.accuracy, *result.details["epoch_accuracy"]])
    alone = find(name).run(target(drawn=shades), shades(40, seed=1))
    assert CLEAN_BEHIND_IT not in alone.details["points"]
    assert alone.accuracy == result.accuracy


def target_of(data: ImageSet) -> object:
    from dataclasses import replace

    return replace(target(), released=data)


def test_stripes_are_gone_behind_the_notch() -> None:
    result = find("notch").run(target(), stripes(40, seed=1))
    assert result.accuracy < 0.75
    assert [0, 0] not in result.details["indices"]
