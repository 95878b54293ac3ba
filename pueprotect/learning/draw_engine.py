"""Draws classifiers around a model and evaluates them fast."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pueprotect.learning.device import evaluation_batch
from pueprotect.learning.folding import Folded
from pueprotect.learning.weights import gaussian, reestimate_batch_norm, trainable
from pueprotect.runtime import generator


@contextmanager
def repeatable() -> Iterator[None]:
    """Inside the block results repeat on one device: float32 is not rounded to TF32, and cuDNN does not experiment.

    The settings are those of the process: threads that draw at once are inside one block of the thread that waits.
    """
    before, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@torch.no_grad()
def deviations(parameters: list[Tensor], sigma: float, relative: bool) -> float | list[Tensor]:
    """The standard deviation of weight noise: `sigma`, or with `relative` sigma root mean squares of each tensor."""
    return [sigma * parameter.square().mean().sqrt() for parameter in parameters] if relative else sigma


class DrawEngine:
    """Counts correct predictions of classifiers drawn around `model`.

    BatchNorm statistics are buffers, not parameters: they are re-estimated for every draw from one fixed batch, so
    that accuracy is a function of the weights alone.

    Noise and sum are float32. With `bf16` the forward pass rounds weights and activations to bfloat16 (autocast), and
    the certificate is for the classifier so rounded. Batch size, threads and device change the rounding inside a
    forward pass, which can change a prediction where two logits nearly tie (see `examples/results/trials.md`).
    Images are evaluated with BatchNorm folded into the convolutions before it. On a GPU draws repeat: float32 stays
    float32 (no TF32), and cuDNN uses deterministic algorithms.

    Args:
        model: the centre of the Gaussian; never changed.
        images: (N, 3, H, W) uint8 evaluation images on the model's device.
        labels: (N,) int64.
        calibration: (M, 3, H, W) uint8, the fixed batch; None keeps the model's running statistics.
        sigma: standard deviation of the weight noise: one number, or a tensor for each parameter.
        seed: draws are functions of (seed, index).
        batch_size: images for each forward pass; None chooses.
        bf16: evaluate in bfloat16.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        calibration: Tensor | None,
        *,
        sigma: float | list[Tensor],
        seed: int,
        batch_size: int | None = None,
        bf16: bool = False,
    ) -> None:
        self.model, self.calibration, self.sigma, self.seed, self.bf16 = model, calibration, sigma, seed, bf16
        self.centre = trainable(model)
        self.device = images.device
        batch_size = batch_size or evaluation_batch(str(images.device), images.shape[-1])
        self.batches = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))
        self._prepare()

    def _prepare(self) -> None:
        """Make what an engine may not share with its siblings: the copy that draws are written to, and its forms."""
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)
        self.scratch = copy.deepcopy(self.model).eval()
        self.scratch_parameters = trainable(self.scratch)
        self.folded = Folded(self.scratch, self.batches[0][0][:1].float().div_(255))

    def sibling(self) -> DrawEngine:
        """An engine of the same draws with its own copy to write them to, for another thread."""
        other = copy.copy(self)
        other._prepare()
        return other

    @torch.inference_mode()
    def network(self, index: int) -> nn.Module:
        """The classifier of draw `index`; the next draw writes all parameters anew, so no rounding error adds up."""
        stream = generator(self.seed, "weight-draw", index, str(self.device))
        noise = gaussian(self.centre, stream)
        torch._foreach_mul_(noise, self.sigma)
        torch._foreach_add_(noise, self.centre)
        torch._foreach_copy_(self.scratch_parameters, noise)
        if self.calibration is not None:
            with repeatable(), self.autocast:
                reestimate_batch_norm(self.scratch, self.calibration)
        return self.scratch

    @torch.inference_mode()
    def draw(self, index: int) -> Tensor:
        """Evaluate draw `index`: (2,) int64 on the device, the numbers of correct images and of images without answer.

        An image whose logits are not finite has no answer and counts as wrong.
        """
        counts = []
        with repeatable(), self.autocast:
            self.network(index)
            self.folded.refresh()
            for batch, truth in self.batches:
                logits = self.folded.network(batch.float().div_(255))
                answered = logits.isfinite().all(1)
                right = (logits.argmax(1) == truth) & answered
                counts.append(torch.stack((right.sum(), (~answered).sum())))
        return torch.stack(counts).sum(0)
