"""Cross-checks a certificate empirically: draws around centres on the sphere that it covers.

The bound says that around any centre within eta at most a share 1 - q of the classifiers is above it. Random directions
are an easy test; the direction of the recovery attack is the one that an attacker would take. With a relative sigma the
sphere is that of the rescaled weights, and the recovery attack, which stays within a plain L2 ball, is left out.
"""

from __future__ import annotations

import copy

import torch
from scipy.stats import binom
from torch import Tensor

from pueprotect.audit.attacks.base import clean_share
from pueprotect.audit.attacks.recovery import fine_tuned_within
from pueprotect.certify.certificate import CertificateSettings, draw_engine
from pueprotect.certify.draws import DrawLog, draw
from pueprotect.errors import CertificateError
from pueprotect.learning.draw_engine import deviations
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import Schedule, default_epochs
from pueprotect.learning.weights import distance, trainable
from pueprotect.release.certificates import RecipeFigures, Stress
from pueprotect.release.opened import OpenedRelease
from pueprotect.runtime import generator

DIRECTIONS = 4
DRAWS = 100
ALPHA = 1e-3
CLEAN_SHARE = 0.2


def stress_test(
    model: Classifier,
    found: RecipeFigures,
    settings: CertificateSettings,
    release: OpenedRelease,
    epochs: float | None,
    *,
    draws: int = DRAWS,
) -> Stress | None:
    """Draw around centres at the largest certified radius and count the classifiers above the bound.

    `found` are the bounds of the surrogate `model`; `epochs` are the passes of the recovery attack, None chooses by the
    number of images; `draws` are made around each centre. Returns None when no radius above 0 was certified.

    Raises:
        CertificateError: more are above than chance explains.
    """
    progress = release.machine.progress
    certified = [point for point in found.curve if point.certified_learnability is not None and point.eta > 0]
    if not certified:
        return None
    eta, bound = certified[-1].eta, certified[-1].certified_learnability
    assert bound is not None
    centres = {f"random {number}": _direction(model, settings.seed, number) for number in range(1, DIRECTIONS + 1)}
    gone: float | None = None
    reached = None if settings.relative else recovery(model, eta, release, settings.seed, epochs)
    if reached is not None:
        centres["recovery"] = [there - here.detach() for there, here in zip(reached, trainable(model), strict=True)]
        gone = distance(reached, trainable(model))
    progress.start("cross-check on the sphere", len(centres) * draws)
    above = {}
    for number, (name, direction) in enumerate(centres.items()):
        moved = _moved(model, direction, eta, relative=settings.relative)
        log = DrawLog(None, {})
        engine = draw_engine(moved, release.released, release.test, settings, f"stress-{number}", model)
        draw(engine, log, draws, release.machine)
        above[name] = sum(correct > round(bound * len(release.test)) for correct, _ in log.first(draws))
    limit = int(binom.isf(ALPHA / len(centres), draws, 1 - settings.q))
    progress.finish(f"at most {max(above.values())} of {draws} above the bound")
    if max(above.values()) > limit:
        raise CertificateError(
            f"The cross-check contradicts the certificate: of {draws} draws around each centre, {above} are above the "
            f"bound {bound:.1%} at eta {eta:g}; more than {limit} have probability under {ALPHA:g}. Please report it."
        )
    return Stress(eta=eta, bound=bound, draws=draws, above=above, limit=limit, recovery_distance=gone)


def _direction(model: Classifier, seed: int, number: int) -> list[Tensor]:
    stream = generator(seed, "stress", number)
    return [torch.randn(parameter.shape, generator=stream).to(parameter.device) for parameter in trainable(model)]


@torch.no_grad()
def _moved(model: Classifier, direction: list[Tensor], eta: float, *, relative: bool) -> Classifier:
    """A copy with weights at distance eta in a direction; with `relative` both are of rescaled weights."""
    moved = copy.deepcopy(model)
    units = deviations(trainable(model), 1.0, relative)
    if isinstance(units, list):  # a tensor of zeros is not part of the ball
        direction = [piece * (unit > 0) for piece, unit in zip(direction, units, strict=True)]
    length = torch.stack([piece.double().square().sum() for piece in direction]).sum().sqrt()
    for number, (parameter, piece) in enumerate(zip(trainable(moved), direction, strict=True)):
        unit = units[number] if isinstance(units, list) else units
        parameter += (piece.double() * (eta / length) * unit).to(parameter.dtype)
    return moved


def recovery(
    model: Classifier, eta: float, release: OpenedRelease, seed: int, epochs: float | None
) -> list[Tensor] | None:
    """The weights that the recovery attack reaches from `model` within `eta`; None without clean training images."""
    share = clean_share(release.originals, CLEAN_SHARE, seed)
    if share is None:
        return None
    schedule = Schedule(epochs=epochs or default_epochs(len(release.released)))
    progress = release.machine.progress
    progress.start(f"recovery attack within eta {eta:g}", schedule.steps(len(share)))
    reached = fine_tuned_within(model, share, eta, schedule, seed=seed, progress=progress)
    progress.finish()
    return trainable(reached)
