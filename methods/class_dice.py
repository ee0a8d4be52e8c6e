"""Soft Dice of probabilities averaged over classes: the loss of Pionono's code, with and without its clamp.

Shapes: probabilities and targets B×N×C×H×W, where N are maps that are scored apart (samples, raters) and then averaged;
``valid`` B×N bool, False where the target does not exist. Every class counts, the background too where it is a channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .losses import mean_valid

_TINY = 1e-6


def batch_class_dice(
    probabilities: Tensor, target: Tensor, valid: Tensor | None = None, weight_clamp: bool = False
) -> Tensor:
    """``1 - mean_c 2 Σ p_c y_c / (Σ p_c + Σ y_c)`` with sums over batch and pixels together.

    Pionono's code calls it generalised Dice: each class is weighted by its inverse squared volume, but is divided by an
    equally weighted denominator, so that the weight cancels. A single channel is scored with its complement as a second
    one. A class that is absent costs 1/C and has no gradient.

    Args:
        probabilities: B×N×C×H×W in [0, 1].
        target: the same shape, in {0, 1}.
        valid: B×N.
        weight_clamp: keep the clamp of the weighted denominator at 1e-6. Beyond two million pixels of a class in the
            batch a perfect prediction then costs something, 0.18 for two classes on three images of 1024² pixels.
    """
    target = target.to(probabilities.dtype)
    if probabilities.shape[2] == 1:
        probabilities = torch.cat([probabilities, 1 - probabilities], 2)
        target = torch.cat([target, 1 - target], 2)
    if valid is not None:
        keep = valid.to(probabilities.dtype)[:, :, None, None, None]
        probabilities, target = probabilities * keep, target * keep
    overlap = (probabilities * target).sum((0, 3, 4))
    volume = target.sum((0, 3, 4))
    total = probabilities.sum((0, 3, 4)) + volume
    if weight_clamp:
        weight = 1 / volume.square().clamp_min(_TINY)
        dice = 2 * overlap * weight / (total * weight).clamp_min(_TINY)
    else:
        dice = 2 * overlap / total.clamp_min(_TINY)
    return mean_valid((1 - dice).mean(1), None if valid is None else valid.any(0))
