from dataclasses import replace

import torch
from helpers import stripes, target

from pueprotect.audit.attacks import find
from pueprotect.audit.attacks.base import Run, Target
from pueprotect.audit.attacks.standard import Plain
from pueprotect.learning.data import ImageSet
from pueprotect.learning.training import train


def test_the_standard_attack_is_plain_training_on_the_released_images() -> None:
    here = target(epochs=2)
    run = Run(here, stripes(8, seed=1))
    found = find("standard").train(run).state_dict()
    plain = train(here.fresh(), here.released, here.schedule, seed=here.seed).state_dict()
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    assert run.trained_on is here.released


def test_a_variation_trains_on_its_own_images_through_its_own_hooks() -> None:
    seen: list[str] = []

    class Swapped(Plain):
        name, about, source = "swapped", "swaps labels", "this test"

        def images(self, target: Target) -> ImageSet:
            return replace(target.released, labels=1 - target.released.labels)

        def transform(self, target: Target):  # type: ignore[no-untyped-def]
            return lambda images, _: seen.append("transform") or images

        def prepare(self, target: Target):  # type: ignore[no-untyped-def]
            return lambda images, labels, _: seen.append("prepare") or (images, labels)

    run = Run(target(epochs=5), stripes(8, seed=1))
    model = Swapped().train(run)
    steps = 5 * 64 // 16
    assert (seen.count("transform"), seen.count("prepare")) == (steps, steps)
    assert run.trained_on is not run.target.released
    test = stripes(40, seed=1)
    with torch.no_grad():
        answers = model.eval()(test.images / 255).argmax(1)
    assert float((answers == 1 - test.labels).float().mean()) >= 0.8, "it learnt the swapped labels"
