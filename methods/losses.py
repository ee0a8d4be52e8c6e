"""Losses on logits, with honest names, and the draw of a rater; every one understands missing raters.

Shapes: logits and targets B×C×H×W (C channels are raters, or bounds, or one map), ``valid`` B×C bool, False where
the target does not exist. Targets are in [0, 1]; integers are converted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_TINY = 1e-6


def at_least_single(x: Tensor) -> Tensor:
    """In float32 unless it is float64: under autocast maps arrive in bfloat16, too coarse for sums and logarithms."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def batch_dice_loss(logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Batch-level soft Dice loss ``D``: sums run over batch and pixels together, then the channels are averaged.

    The authors of D-Persona call it generalised Dice, but its class weights cancel (Wu et al., CVPR 2024, code;
    plain batch Dice is what remains). As there, a single channel is scored as the average of foreground and
    background, several channels as foreground only. An empty target channel gives Dice 0 and no gradient.

    Differs from the code in one point: its clamp of the weighted sums at 1e-6, which makes a *perfect* prediction
    cost 0.38 once a batch holds more than about two million target pixels, is absent.
    """
    probabilities = torch.sigmoid(at_least_single(logits))
    target = target.to(probabilities.dtype)
    keep = None if valid is None else valid.to(probabilities.dtype)[:, :, None, None]
    if logits.shape[1] == 1:
        pairs = [(probabilities, target), (1 - probabilities, 1 - target)]
        dice = torch.cat([_batch_dice(p, t, keep) for p, t in pairs])
        return 1 - dice.mean()
    dice = _batch_dice(probabilities, target, keep)
    if valid is None:
        return 1 - dice.mean()
    present = valid.any(0).to(dice.dtype)
    return ((1 - dice) * present).sum() / present.sum().clamp_min(1)


def _batch_dice(probabilities: Tensor, target: Tensor, keep: Tensor | None) -> Tensor:
    if keep is not None:
        probabilities, target = probabilities * keep, target * keep
    overlap = (probabilities * target).sum((0, 2, 3))
    return 2 * overlap / (probabilities.sum((0, 2, 3)) + target.sum((0, 2, 3))).clamp_min(_TINY)


def image_dice_loss(logits: Tensor, target: Tensor, valid: Tensor | None = None, smooth: float = 1.0) -> Tensor:
    """Per-image soft Dice loss of the foreground, ``1 - (2 Σpt + s) / (Σp + Σt + s)``, mean over images and channels.

    Small structures weigh as much as large ones; batch Dice is dominated by the large ones.
    """
    probabilities = torch.sigmoid(at_least_single(logits))
    target = target.to(probabilities.dtype)
    overlap = (probabilities * target).sum((2, 3))
    total = probabilities.sum((2, 3)) + target.sum((2, 3))
    return mean_valid(1 - (2 * overlap + smooth) / (total + smooth), valid)


def soft_bce_loss(logits: Tensor, target: Tensor, valid: Tensor | None = None, pixel_sum: bool = False) -> Tensor:
    """Binary cross-entropy with hard or soft targets, mean over images and channels.

    Args:
        logits: B×C×H×W.
        target: B×C×H×W in [0, 1].
        valid: B×C.
        pixel_sum: sum over the pixels of an image (an ELBO's reconstruction term) instead of their mean.
    """
    logits = at_least_single(logits)
    each = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return mean_valid(each.sum((2, 3)) if pixel_sum else each.mean((2, 3)), valid)


def mean_valid(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of B×C values over the valid entries; 0 (with gradient 0) if there is none."""
    if valid is None:
        return values.mean()
    weight = valid.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp_min(1)


def draw_rater(rater_valid: Tensor, per_image: bool = True) -> Tensor:
    """One rater index an image, uniform among the raters available for that image, from torch's global generator.

    Args:
        rater_valid: B×R bool; every image needs at least one rater.
        per_image: draw for each image on its own. Otherwise one order of raters is drawn for the whole batch and
            every image takes the first one it has: one common rater where none is missing, as D-Persona does.

    Returns:
        B int64.
    """
    rows, raters = rater_valid.shape
    priority = torch.rand(rows if per_image else 1, raters, device=rater_valid.device)
    return priority.expand(rows, raters).masked_fill(~rater_valid, -1.0).argmax(1)


def pick_rater(masks: Tensor, index: Tensor) -> Tensor:
    """The mask of rater ``index[b]`` of each image: B×R×H×W and B to B×1×H×W."""
    return masks[torch.arange(len(masks), device=masks.device), index].unsqueeze(1)


def union_and_intersection(masks: Tensor, rater_valid: Tensor) -> Tensor:
    """B×2×H×W: pixels that any and that every available rater marked."""
    missing = ~rater_valid[:, :, None, None]
    union = masks.masked_fill(missing, 0).amax(1)
    intersection = masks.masked_fill(missing, 1).amin(1)
    return torch.stack([union, intersection], 1)
