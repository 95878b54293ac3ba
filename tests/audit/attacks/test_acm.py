import pytest
import torch
from helpers import image_set, lsp, noise, one_pixel_shortcut

from pueprotect.audit.attacks.acm import Alarm, Probe, acm, fine_class_patterns, trap_quotient
from pueprotect.learning import training
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import ARCHITECTURES, build
from pueprotect.learning.training import Schedule, train


def test_acm_equals_a_plain_loop_and_is_unbiased_for_equal_classes() -> None:
    stream = torch.Generator().manual_seed(3)
    features, labels = torch.randn(90, 5, generator=stream), torch.arange(90) % 3
    features[labels == 2] += 1.0
    means = [features[labels == c].double().mean(0) for c in range(3)]
    within = sum(float(((features[i].double() - means[labels[i]]) ** 2).sum()) for i in range(90)) / 87
    centre = sum(means) / 3
    between = sum(float(((m - centre) ** 2).sum()) for m in means) / 2
    assert float(acm(features, labels, 3)) == pytest.approx((between - within / 30) / within, rel=1e-9)
    same = torch.stack([
        acm(torch.randn(60, 40, generator=stream), torch.arange(60) % 3, 3) for _ in range(200)
    ])  # fmt: skip
    assert float(same.mean()) < 0.005  # clipped at 0, so slightly above


def test_the_alarm_rises_once_above_the_ceiling_or_twice_above_the_median() -> None:
    calm = Alarm()
    assert not any(calm.update(1.0 + 0.01 * (number % 5)) for number in range(50))
    assert calm.update(1.51)
    rising = Alarm()
    for _ in range(10):
        rising.update(1.0)
    assert not rising.update(1.3)  # once above 1.25 x the median is a warning
    assert not rising.calm
    assert rising.update(1.3)  # twice is an alarm
    relieved = Alarm()
    for q in (1.0, 1.0, 1.0, 1.3, 1.0):
        assert not relieved.update(q)
    assert relieved.calm
    assert not relieved.update(1.3)


def chequered(strength: float, classes: int = 2, count: int = 160, size: int = 16) -> ImageSet:
    """Grain, and a class code in the finest pattern: a chequerboard, or none."""
    labels = torch.arange(count) % classes
    board = (torch.arange(size)[:, None] + torch.arange(size)) % 2 * 2.0 - 1
    grain = 10 * torch.randn((count, 3, size, size), generator=torch.Generator().manual_seed(0))
    return image_set(128 + grain + strength * board * labels.view(-1, 1, 1, 1), labels, classes)


def test_the_fine_view_detects_a_fine_code_and_measuring_does_not_change_the_model() -> None:
    model = build("resnet8", 2, 16, seed=0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    reading = Probe(model, chequered(12), seed=0).measure()
    assert len(reading.raw) == len(reading.blurred) == 4
    assert reading.fine == trap_quotient(reading.raw, reading.blurred) > 1.5
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert Probe(model, chequered(0), seed=0).measure().fine < 1.5


def test_the_pattern_view_detects_activations_that_follow_the_pattern() -> None:
    data = chequered(12)
    model = build("resnet8", 2, 16, seed=0)
    reading = Probe(model, data, seed=0).measure()
    assert reading.pattern is not None
    assert reading.pattern > 1.5
    assert reading.pattern == trap_quotient(reading.donor, reading.picture)
    clean = Probe(model, chequered(0), seed=0).measure().pattern
    assert clean is not None
    assert clean < 1.5


def test_the_pattern_view_is_left_out_when_not_asked_for_or_for_small_classes() -> None:
    model = build("resnet8", 2, 16, seed=0)
    assert Probe(model, chequered(12), seed=0).measure(pattern=False).pattern is None
    assert Probe(model, chequered(12, count=98), seed=0).measure().pattern is None


def test_patterns_are_exchanged_between_classes_and_pictures_stay() -> None:
    """Flat pictures of a level for each class with a one-pixel code: the code moves, the level stays."""
    labels = torch.arange(180) % 3
    images = (60.0 * labels + 60).view(-1, 1, 1, 1).repeat(1, 3, 16, 16)
    rows = torch.tensor([3, 8, 12])
    images[torch.arange(180), :, rows[labels], 5] += 40
    probe = Probe(build("resnet8", 3, 16, seed=0), image_set(images, labels, 3), seed=0)
    assert probe.exchanged is not None
    met = torch.bincount(3 * probe.pictures + probe.donors, minlength=9)
    assert int(met.max()) - int(met.min()) <= 1, "pictures and patterns are independent"
    shown = (probe.exchanged * 255).round()
    for image, donor, picture in zip(shown, probe.donors.tolist(), probe.pictures.tolist(), strict=True):
        level = float(image[0, 0, 15])
        assert level == pytest.approx(60 * picture + 60, abs=1)
        column = image[0, :, 5]
        assert int(column.argmax()) == rows[donor]
        assert donor == picture or abs(float(column[rows[picture]]) - level) < 6


def test_smooth_class_averages_have_little_fine_pattern_and_codes_have_much() -> None:
    size, labels = 32, torch.arange(600) % 3
    ramp = torch.linspace(-30, 30, size)
    smooth = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.zeros(size, size)])
    grain = 30 * torch.randn((600, 3, size, size), generator=torch.Generator().manual_seed(1))
    data = image_set(128 + grain + smooth[labels][:, None], labels, 3)
    plain = fine_class_patterns(data)[..., 4:-4, 4:-4].pow(2).mean().sqrt()
    coded = fine_class_patterns(lsp(data))[..., 4:-4, 4:-4].pow(2).mean().sqrt()
    assert float(plain) < 2.5  # 30 levels over the root of 200 images
    assert float(coded) > 1.4 * float(plain)
    spots = fine_class_patterns(one_pixel_shortcut(data)).abs().flatten(1).amax(1)
    assert float(spots.min()) > 40


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_every_architecture_can_be_probed(arch: str) -> None:
    """Stages of convolutions, and tokens of a transformer."""
    model = build(arch, 2, 32, seed=0)
    light = arch in ("resnet8", "cnn", "vit_tiny")
    reading = Probe(model, noise(110 if light else 6, 32, classes=2), seed=0).measure()
    shown = (reading.donor, reading.picture) if light else ()
    for values in (reading.raw, reading.blurred, *shown):
        assert len(values) == len(model.stages)
        assert all(0 <= value < 100 for value in values)


def test_acm_rises_with_training_on_separable_images() -> None:
    data = chequered(12)
    model = build("resnet8", 2, 16, seed=0)
    before = Probe(model, data, seed=0).measure().raw[-1]
    train(model, data, Schedule(epochs=4, batch_size=16), seed=0)
    assert Probe(model, data, seed=0).measure().raw[-1] > 3 * before


def test_readings_run_in_the_precision_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    data = lsp(noise(120, 16, classes=2))
    model = train(build("resnet8", 2, 16, seed=0), data, Schedule(epochs=2), seed=0)
    seen: list[torch.dtype] = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    exact = Probe(model, data, 0).measure()
    monkeypatch.setattr(training, "native_bf16", lambda device: True)
    seen.clear()
    rounded = Probe(model, data, 0).measure()
    assert set(seen) == {torch.bfloat16}
    assert rounded.fine == pytest.approx(exact.fine, rel=0.1)


def test_large_images_are_probed_in_small_numbers() -> None:
    for size, count in ((32, 100), (224, 80)):
        data = ImageSet(torch.zeros((200, 3, size, size), dtype=torch.uint8), torch.arange(200) % 2, 2)
        assert len(Probe(build("cnn", 2, size, seed=0), data, 0).labels) == count
