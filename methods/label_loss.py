"""The common loss of the baselines on labels of any channel layout: cross-entropy, Dice, or half of each."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.base import DataDescription
from .losses import at_least_single, mean_valid
from .targets import is_exclusive

LossName = Annotated[
    Literal["bce_dice", "bce", "dice"],
    "half cross-entropy and half Dice; cross-entropy alone (MR-Net, TAB); Dice alone (Pionono, D-Persona)",
]
DiceOver = Annotated[
    Literal["image", "batch"], "Dice per image, or over the batch as the authors do (large masks dominate)"
]
_SMOOTH = 1.0
_TINY = 1e-6


class LabelLoss:
    """Loss of maps against labels, averaged over the raters that are present.

    Args:
        data: decides the layout: sigmoid and binary cross-entropy, or softmax and categorical cross-entropy.
        loss: ``bce``, ``dice`` or ``bce_dice``.
        dice_over: ``image`` (smoothing 1, small masks weigh as much as large ones) or ``batch``. Exclusive classes:
            foreground channels only. A single channel over the batch is the average of foreground and background.
    """

    def __init__(self, data: DataDescription, loss: LossName = "bce_dice", dice_over: DiceOver = "image") -> None:
        self.exclusive = is_exclusive(data)
        self.loss = loss
        self.dice_over = dice_over

    def __call__(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Scalar loss.

        Args:
            logits: B×R×C×H×W (R = 1 for methods with one map).
            target: B×R×C×H×W in [0, 1]; soft targets are meant for ``bce``.
            valid: B×R bool, False where the target does not exist.
        """
        logits = at_least_single(logits)
        target = target.to(logits.dtype)
        if self.loss == "bce":
            return self.cross_entropy(logits, target, valid)
        dice = self.dice(logits, target, valid)
        return dice if self.loss == "dice" else 0.5 * self.cross_entropy(logits, target, valid) + 0.5 * dice

    def cross_entropy(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mean over pixels (and over overlapping classes); its minimum is at the target, soft targets included."""
        if self.exclusive:
            each = -(target * logits.log_softmax(2)).sum(2).mean((2, 3))
        else:
            each = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((2, 3, 4))
        return mean_valid(each, valid)

    def dice(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """1 - soft Dice."""
        if self.exclusive:
            probabilities, target = logits.softmax(2)[:, :, 1:], target[:, :, 1:]
        else:
            probabilities = torch.sigmoid(logits)
        if self.dice_over == "image":
            overlap = (probabilities * target).sum((3, 4))
            total = probabilities.sum((3, 4)) + target.sum((3, 4))
            return mean_valid((1 - (2 * overlap + _SMOOTH) / (total + _SMOOTH)).mean(2), valid)
        pairs = [(probabilities, target)]
        if probabilities.shape[2] == 1:
            pairs.append((1 - probabilities, 1 - target))
        keep = 1.0 if valid is None else valid.to(logits.dtype)[:, :, None, None, None]
        dice = torch.stack([_over_batch(p * keep, t * keep) for p, t in pairs]).mean(0)  # R
        return mean_valid(1 - dice, None if valid is None else valid.any(0))


def _over_batch(probabilities: Tensor, target: Tensor) -> Tensor:
    """Dice R of sums over batch and pixels, averaged over the classes."""
    overlap = (probabilities * target).sum((0, 3, 4))
    total = probabilities.sum((0, 3, 4)) + target.sum((0, 3, 4))
    return (2 * overlap / total.clamp_min(_TINY)).mean(1)
