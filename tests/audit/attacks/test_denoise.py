import torch
from helpers import image_set, target

from pueprotect.audit.attacks import find
from pueprotect.audit.attacks.denoise import gratings
from pueprotect.learning.data import ImageSet


def test_the_noise_that_the_denoiser_learns_from_is_two_valued_and_mixed() -> None:
    noise = gratings(60, 16, torch.Generator().manual_seed(0), "cpu")
    assert set(noise.unique().tolist()) == {-1.0, 1.0}
    alike = (noise == noise[:, :1]).all(1).all(1).all(1)
    assert 8 < int(alike.sum()) < 32


def test_denoised_images_are_nearer_to_the_clean_ones() -> None:
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
