import pytest
import torch
from torch import nn

from pueprotect.learning.folding import Folded
from pueprotect.learning.models import build
from pueprotect.learning.weights import batch_norms, reestimate_batch_norm

IMAGES = torch.randint(0, 256, (12, 3, 32, 32), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


@pytest.mark.parametrize(("arch", "left"), [("resnet8", 0), ("resnet18", 0), ("densenet121", 62), ("cnn", 0)])
def test_folded_network_predicts_as_its_source_after_every_change(arch: str, left: int) -> None:
    source = build(arch, 5, 32, seed=1).eval()
    folded = Folded(source, IMAGES[:1] / 255)
    assert len(batch_norms(folded.network)) == left
    for scale in (0.0, 0.3):
        with torch.no_grad():
            for number, parameter in enumerate(source.parameters()):
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
                parameter.add_(noise * parameter.std(correction=0) * scale)
            reestimate_batch_norm(source, IMAGES)
            folded.refresh()
            wanted = source(IMAGES / 255)
            torch.testing.assert_close(folded.network(IMAGES / 255), wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))


def test_biases_of_convolutions_are_folded_too() -> None:
    source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    reestimate_batch_norm(source, IMAGES)
    folded = Folded(source, IMAGES[:1] / 255)
    folded.refresh()
    assert not batch_norms(folded.network)
    torch.testing.assert_close(folded.network(IMAGES / 255), source(IMAGES / 255), rtol=1e-4, atol=1e-4)


def test_a_norm_after_another_kind_of_layer_stays() -> None:
    source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    assert len(batch_norms(Folded(source, IMAGES[:1] / 255).network)) == 1
