import pytest
import torch

from pueprotect.errors import InputError
from pueprotect.learning.models import ARCHITECTURES, build, parameter_count


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_every_architecture_answers_and_names_its_stages(arch: str) -> None:
    model = build(arch, 5, 32, seed=0).eval()
    seen = []
    for stage in model.stage_modules():
        stage.register_forward_hook(lambda _m, _i, output: seen.append(output.shape))
    with torch.no_grad():
        logits = model(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 5)
    assert len(seen) >= len(model.stages) >= 3
    assert all(shape[0] == 2 and len(shape) in (3, 4) for shape in seen)
    assert parameter_count(model) > 10_000


def test_build_depends_on_seed_and_purpose_alone() -> None:
    def first(seed: int, purpose: str) -> torch.Tensor:
        torch.manual_seed(torch.seed())
        return next(build("cnn", 2, 16, seed=seed, purpose=purpose).parameters())

    assert torch.equal(first(1, "a"), first(1, "a"))
    assert not torch.equal(first(1, "a"), first(2, "a"))
    assert not torch.equal(first(1, "a"), first(1, "b"))


def test_normalisation_is_inside_the_model() -> None:
    """The stem receives centred images."""
    model = build("resnet8", 2, 16, seed=0)
    seen = []
    model.body.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    model(torch.full((1, 3, 16, 16), 0.5))
    assert float(seen[0].abs().max()) == 0


def test_unfit_architectures_are_refused() -> None:
    with pytest.raises(InputError, match="resnet9"):
        build("resnet9", 2, 32, seed=0)
    with pytest.raises(InputError, match="multiple of 16"):
        build("vit_tiny", 2, 40, seed=0)
    with pytest.raises(InputError, match="at least 32"):
        build("densenet121", 2, 16, seed=0)
