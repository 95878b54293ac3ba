import numpy as np
import pytest
import torch
from helpers import KEY, OTHER_KEY, Command, lsp, noise, write_photos

from pueprotect.protect.methods.base import NoiseSettings
from pueprotect.protect.methods.lsp import LSP
from pueprotect.runtime import secret_stream


def test_lsp_is_blocks_of_six_levels_that_separate_the_classes() -> None:
    clean = noise(400, 32, classes=4)
    change = lsp(clean).images.float() - clean.images.float()
    assert float(change.pow(2).mean().sqrt()) == pytest.approx(6, abs=0.2)
    blocks = change.view(400, 3, 4, 8, 4, 8)
    assert float(blocks.std((3, 5)).mean()) < 0.6, "one level in a block, up to rounding"
    codes = blocks.mean((3, 5)).flatten(1)
    centres = torch.stack([codes[clean.labels == label].mean(0) for label in range(4)])
    assert torch.equal(torch.cdist(codes, centres).argmin(1), clean.labels)


def test_the_noise_follows_budget_size_and_key() -> None:
    labels = np.arange(6) % 3
    pixels, held = np.zeros((6, 20, 20, 3), dtype=np.uint8), np.zeros(6, dtype=np.bool_)

    def made(epsilon: int, key: str = KEY) -> np.ndarray:
        return LSP().noise(pixels, labels, held, NoiseSettings(method="lsp", epsilon=epsilon, key=key))

    first = made(4)
    assert first.shape == pixels.shape, "a side that is no multiple of the patch is cut"
    assert int(np.abs(first).max()) <= 4
    assert np.array_equal(first, made(4))
    assert not np.array_equal(first, made(4, OTHER_KEY))
    assert float(np.sqrt((made(12).astype(float) ** 2).mean())) == pytest.approx(9, abs=0.5)


@pytest.mark.parametrize(("size", "epsilon"), [(20, 8), (32, 12)])
def test_the_noise_equals_a_plain_loop(size: int, epsilon: int) -> None:
    labels, grid = np.array([0, 2, 1, 0]), -(-size // 8)
    pixels, held = np.zeros((4, size, size, 3), dtype=np.uint8), np.zeros(4, dtype=np.bool_)
    found = LSP().noise(pixels, labels, held, NoiseSettings(method="lsp", epsilon=epsilon, key=KEY))
    stream = secret_stream(KEY, "lsp")
    centres = np.sign(stream.standard_normal((3, 3, grid, grid), np.float32))
    own = stream.standard_normal((4, 3, grid, grid), np.float32)
    for number, label in enumerate(labels):
        point = centres[label] + 0.1 * own[number]
        point *= 0.75 * epsilon * np.sqrt(3 * grid * grid) / np.linalg.norm(point)
        for row in range(size):
            for column in range(size):
                wanted = np.clip(np.rint(point[:, row // 8, column // 8]), -epsilon, epsilon)
                assert found[number, row, column].tolist() == wanted.tolist()


def test_the_noise_is_clipped_to_the_budget() -> None:
    labels, held = np.arange(8000) % 2, np.zeros(8000, dtype=np.bool_)
    pixels = np.zeros((8000, 16, 16, 3), dtype=np.uint8)
    found = LSP().noise(pixels, labels, held, NoiseSettings(method="lsp", epsilon=90, key=KEY))
    assert (int(found.min()), int(found.max())) == (-90, 90)


def test_protect_writes_a_release(command: Command, tmp_path: object) -> None:
    src = write_photos(tmp_path / "src", 6)  # type: ignore[operator]
    words = ("--method", "lsp", "--size", "16", "--preset", "quick", "--release-anyway", "--json")
    done = command("protect", src, "--out", tmp_path / "out", *words)  # type: ignore[operator]
    assert done.code == 0, done.stderr
    assert (done.data["method"], done.data["mode"], done.data["rounds"]) == ("lsp", "sample-wise", 0)
    assert 4 <= done.data["realised"]["linf_max"] <= 8
