"""Trains in stages (PST): detects when a network locks on to the noise, and then keeps the noise from its first stages.

Source: Dang et al., "Unlearnable Examples Give a False Sense of Data Privacy", arXiv 2306.02064. The paper states: on
unlearnable examples a network learns image and noise features early; then its shallow layers lock on to the noise and
pass harmful activations on. An activation cluster measurement (ACM) shows when, and training in stages with slower
shallow layers avoids the noise. The authors' code was not released and their exact formula of ACM is not known here.
So this re-implements the idea; all details below are this project's.

*Alarm*, on the views of acm.py: fine q > 1.5, or twice in a row above min(1.5, 1.25 x the median of the last 20 healthy
q), checked every 1,280 images; pattern q > 1.5, at every second check.

*Response*: the shallow stages must not see what the alarm's view shows to be harmful. The first alarm of a view removes
class patterns of that view's scale from the training images: what is finer than 5 x 5 pixels in class averages (fine),
or finer than half the picture (pattern). That costs clean images next to nothing, so it is first. When the same view
alarms again, the pattern was not class-wise, and the stages change: a fixed 3x3 mean in front (the low-pass stage,
which the attacker keeps); then a second mean; then also Gaussian weight noise relative to each filter's norm (0.5, 0.4,
0.2, 0 times a level from the stem to the last stage). Early alarms restart from the initial weights, late ones roll
back to a healthy snapshot. The noise is constant for half of the training, then halves every tenth. Without an alarm,
training is plain. All steps together stay within twice plain training. examples/results/trials.md has the trials.
"""

from __future__ import annotations

from torch import Tensor, nn

from pueprotect.audit.attacks.acm import Alarm, Probe, Reading, enough_for_patterns, fine_class_patterns
from pueprotect.audit.attacks.base import Attack, Run, Target, register
from pueprotect.audit.attacks.linear import fine_patterns, without
from pueprotect.audit.attacks.weight_noise import noise_shares, relative_deviations
from pueprotect.learning.augment import blur3, colour
from pueprotect.learning.data import ImageSet, to_float
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import Trainer, Transform, batches, steps_per_epoch
from pueprotect.learning.weights import clone, reestimate_batch_norm, trainable
from pueprotect.release.audits import PST_ALARM
from pueprotect.runtime import generator

IMAGES_BETWEEN_CHECKS = 1280
# (number of 3x3 means in front, level of weight noise) for each rung; alarms of a view seen before climb one.
LADDER = ((0, 0.0), (1, 0.0), (2, 0.0), (2, 1.2), (3, 1.2))
LATE = 0.7
SNAPSHOTS = 32
FINE, PATTERN = "fine", "pattern"


class LowPass(nn.Module):
    """A 3x3 mean, repeated `times` times; the identity at 0."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same shape."""
        for _ in range(self.times):
            images = blur3(images)
        return images


class PST(Attack):
    """Plain training that changes only after an alarm; `transform` is applied after crop and flip."""

    source = "Dang et al., arXiv 2306.02064; re-implemented, see the module's documentation"
    cost = 2.0  # the most; 1.2 without an alarm

    def __init__(self, name: str, about: str, transform: Transform | None = None) -> None:
        self.name, self.about, self.transform = name, about, transform

    def steps(self, target: Target) -> int:
        """At most twice plain training."""
        return 2 * super().steps(target)

    def train(self, run: Run) -> Classifier:
        """Train with the alarm on."""
        return _StagedTraining(run, self.transform).train()


register(PST("pst", "trains in stages (PST) and restrains the shallow ones once activations cluster by the noise"))
register(PST("pst-colour", "trains in stages (PST) with strong colour jitter and random grayscale", colour))


class _StagedTraining:
    """State of one PST run."""

    def __init__(self, run: Run, transform: Transform | None) -> None:
        target = run.target
        self.run, self.transform = run, transform
        self.model = target.fresh()
        self.initial = clone(self.model)
        self.shares = noise_shares(self.model)
        self.take(target.released)
        self.stream = generator(target.seed, "train", device=self.data.device)
        self.total = target.schedule.steps(len(self.data))
        self.budget = 2 * self.total
        self.trainer = Trainer(self.model, target.schedule, self.total)
        self.alarm = Alarm()
        self.rung = self.alarms = 0
        self.cleaned: set[str] = set()
        self.check_every = max(1, round(IMAGES_BETWEEN_CHECKS / target.schedule.batch_size))
        self.healthy: list[tuple[int, dict[str, Tensor]]] = []  # (position, weights), ascending
        self.last_late_alarm: int | None = None
        self.roll_back = max(1, self.total // 4)
        self.trace: list[dict[str, object]] = []

    def take(self, data: ImageSet) -> None:
        """Train on these images from now on."""
        self.data = data
        self.probe = Probe(self.model, data, self.run.target.seed)

    def strength(self) -> float:
        """The level of weight noise now: constant for half of the training, then halved every tenth."""
        past = self.trainer.position / self.total - 0.5
        return float(LADDER[self.rung][1] * 0.5 ** max(0.0, past / 0.1))

    def train(self) -> Classifier:
        batch_size = self.run.target.schedule.batch_size
        epoch = steps_per_epoch(len(self.data), batch_size)
        parameters = trainable(self.model)
        plan = batches(len(self.data), self.data.size, self.stream, self.data.device, batch_size=batch_size)
        for executed, (index, crop) in enumerate(plan, start=1):
            inputs = to_float(crop.apply(self.data.frames(index)))
            if self.transform is not None:
                inputs = self.transform(inputs, self.stream)
            strength = self.strength()
            noise = [relative_deviations(parameters, self.shares, strength)] if strength > 0 else ()
            self.trainer.step(inputs, self.data.labels[index], deviations=noise, stream=self.stream)
            self.run.progress.advance()
            if executed % self.check_every == 0:
                self.check(executed)
            finished = self.trainer.position >= self.total
            if executed % epoch == 0 or finished:
                self.run.epoch(self.model)
            if finished or executed >= self.budget:
                break
        if self.strength() > 0.1:
            index, crop = next(batches(len(self.data), self.data.size, self.stream, self.data.device, batch_size=512))
            reestimate_batch_norm(self.model, crop.apply(self.data.frames(index)))
        self.run.trained_on = self.data
        self.run.details |= {
            "trace": self.trace, "alarms": self.alarms, "rung": self.rung, "steps": executed,
            "class_patterns_removed": sorted(self.cleaned),
        }  # fmt: skip
        return self.model

    def check(self, executed: int) -> None:
        """Measure, and respond to an alarm."""
        reading = self.probe.measure(pattern=executed // self.check_every % 2 == 0)
        view = FINE if self.alarm.update(reading.fine) else None
        if view is None and (reading.pattern or 0.0) > PST_ALARM:
            view = PATTERN
        self.note(executed, reading, view)
        if view is not None:
            self.respond(executed, view)
        elif self.alarm.calm:
            self.healthy.append((self.trainer.position, clone(self.model)))
            if len(self.healthy) > SNAPSHOTS:
                self.healthy = self.healthy[1::2]

    def respond(self, executed: int, view: str) -> None:
        """Remove class patterns after the first alarm of a view, change the stages after the next ones; then go on."""
        self.alarms += 1
        left = self.budget - executed
        fresh = view not in self.cleaned and enough_for_patterns(self.data)
        soon = self.trainer.position < LATE * self.total and left >= self.total // 2
        early = soon and (fresh or self.rung + 1 < len(LADDER))
        if fresh:
            self.cleaned.add(view)
            patterns = fine_patterns(self.data) if view == FINE else fine_class_patterns(self.data)
            self.take(without(self.data, patterns, self.run.target.seed))
        else:
            self.rung = min(self.rung + 1, len(LADDER) - 1)
            self.model.prefilter = LowPass(LADDER[self.rung][0])
        if early:
            self.total = min(self.total, left)
            self.restart(self.initial, 0)
            self.healthy.clear()
        else:
            self.late_alarm(executed, left)

    def note(self, executed: int, reading: Reading, view: str | None) -> None:
        """Add a row to the table of ACM, alarms and noise level over training."""
        stages = self.model.stages
        self.trace.append({
            "step": executed, "position": self.trainer.position, "acm": dict(zip(stages, reading.raw, strict=True)),
            "acm_blurred": dict(zip(stages, reading.blurred, strict=True)), "ratio": reading.fine,
            "pattern_ratio": reading.pattern, "alarm": view is not None, "view": view, "level": self.strength(),
            "lowpass": LADDER[self.rung][0],
        })  # fmt: skip

    def late_alarm(self, executed: int, left: int) -> None:
        """Go back to healthy weights; further back when alarms come close together."""
        if self.last_late_alarm is not None and executed - self.last_late_alarm < self.total // 4:
            self.roll_back *= 2
        self.last_late_alarm = executed
        if not self.healthy:
            return
        now = self.trainer.position
        older = [kept for kept in self.healthy if kept[0] <= now - self.roll_back]
        position, weights = older[-1] if older else self.healthy[0]
        self.healthy = [kept for kept in self.healthy if kept[0] <= position]
        # Without budget to repeat the steps, only the weights go back and the schedule runs on.
        self.restart(weights, position if left >= self.total - position else now)

    def restart(self, weights: dict[str, Tensor], position: int) -> None:
        """Go on from these weights and this position of the schedule, with fresh momentum."""
        self.model.load_state_dict(weights)
        self.trainer = Trainer(self.model, self.run.target.schedule, self.total)
        self.trainer.position = position
        self.alarm = Alarm()
