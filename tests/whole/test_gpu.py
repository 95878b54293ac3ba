"""What can only be asked of a CUDA device: pytest -m gpu."""

import copy
from pathlib import Path

import pytest
import torch
from helpers import TINY, Command, write_photos

from pueprotect.learning.draw_engine import DrawEngine
from pueprotect.learning.models import build
from pueprotect.learning.weights import reestimate_batch_norm, trainable
from pueprotect.runtime import generator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (1000, 3, 32, 32), generator=stream, dtype=torch.uint8).cuda()
    return images, torch.randint(0, 10, (1000,), generator=stream).cuda()


def test_draws_equal_a_plain_reference_up_to_near_ties(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = pictures
    model = build("resnet8", 10, 32, seed=3, device="cuda:0").eval()
    engine = DrawEngine(model, images, labels, images[:128], sigma=0.05, seed=9)
    difference = 0
    for index in range(10):
        drawn = copy.deepcopy(model)
        stream = generator(9, "weight-draw", index, "cuda:0")
        flat = torch.randn(sum(p.numel() for p in drawn.parameters()), generator=stream, device="cuda:0")
        position = 0
        with torch.no_grad():
            for parameter in trainable(drawn):
                piece = flat[position : position + parameter.numel()].view(parameter.shape)
                parameter += 0.05 * piece
                position += parameter.numel()
            reestimate_batch_norm(drawn, images[:128])
            right = sum(int((drawn(part / 255).argmax(1) == truth).sum())
                        for part, truth in zip(images.split(100), labels.split(100), strict=True))  # fmt: skip
        difference += abs(right - int(engine.draw(index)[0]))
    assert difference <= 1


def test_bf16_stays_near_fp32(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = pictures
    model = build("resnet18", 10, 32, seed=3, device="cuda:0").eval()
    counts = [
        [
            int(DrawEngine(model, images, labels, images[:128], sigma=0.01, seed=0, bf16=bf16).draw(i)[0])
            for i in range(5)
        ]
        for bf16 in (False, True)
    ]
    assert all(abs(a - b) <= 50 for a, b in zip(*counts, strict=True))


def test_the_three_commands_run(tmp_path: Path, command: Command) -> None:
    photos = write_photos(tmp_path / "photos")
    words = [word if word != "cpu" else "cuda" for word in TINY]
    out = tmp_path / "out"
    assert command("protect", photos, "--out", out, *words, "--release-anyway").code == 0
    quick = ("--device", "cuda", "--epochs", 1)
    assert command("certify", out, *quick, "--draws", 60, "--eta", "0").code == 0
    assert command("audit", out, *quick, "--attack", "pst").code == 0
