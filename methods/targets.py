"""Labels and outputs for binary, overlapping and exclusive classes: the one place that knows the channel layouts.

============ ================= =================================== ============================
classes      ``batch["masks"]`` logits, probabilities               channels C of a map
============ ================= =================================== ============================
binary       B×R×H×W           sigmoid                              1, dropped in a `Prediction`
overlapping  B×R×K×H×W         sigmoid of each class (disc and cup) K
exclusive    B×R×H×W           softmax, background first            K + 1
============ ================= =================================== ============================
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.base import DataDescription
from .losses import at_least_single


def is_exclusive(data: DataDescription) -> bool:
    """Several classes of which a pixel has exactly one."""
    return data.classes > 1 and not data.overlapping


def output_channels(data: DataDescription) -> int:
    """Channels C of one map: 1, K or K + 1 (see the table above)."""
    return data.classes + 1 if is_exclusive(data) else data.classes


def target_channels(masks: Tensor, data: DataDescription) -> Tensor:
    """Targets B×R×C×H×W in {0, 1} (uint8) of ``batch["masks"]``; exclusive classes one-hot, background first."""
    if is_exclusive(data):
        hot = F.one_hot(masks.long(), data.classes + 1)
        return hot.movedim(-1, 2).to(torch.uint8)
    return masks if data.overlapping else masks.unsqueeze(2)


def to_probabilities(logits: Tensor, data: DataDescription, axis: int) -> Tensor:
    """Probabilities of logits whose channel axis is `axis`: softmax for exclusive classes, else sigmoid."""
    logits = at_least_single(logits)
    return logits.softmax(axis) if is_exclusive(data) else torch.sigmoid(logits)


def cross_entropy(logits: Tensor, target: Tensor, data: DataDescription) -> Tensor:
    """Cross-entropy of …×C×H×W logits with hard or soft targets in [0, 1] of the same or a broadcast shape.

    Returns:
        …: mean over the pixels; of independent classes also over the classes (binary cross-entropy of each).
    """
    logits = at_least_single(logits)
    target = target.to(logits.dtype).expand_as(logits)
    if is_exclusive(data):
        return -(target * logits.log_softmax(-3)).sum(-3).mean((-2, -1))
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((-3, -2, -1))


def prediction_layout(maps: Tensor, data: DataDescription, axis: int) -> Tensor:
    """Maps as a `Prediction` wants them: the channel axis dropped where the data are binary (and not overlapping)."""
    return maps if data.classes > 1 or data.overlapping else maps.squeeze(axis)


def mean_target(targets: Tensor, rater_valid: Tensor) -> Tensor:
    """Share of the raters present, B×C×H×W float, of targets B×R×C×H×W and ``rater_valid`` B×R."""
    weight = rater_valid.to(torch.float32)
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1)
    return torch.einsum("br,brchw->bchw", weight, targets.to(torch.float32))
