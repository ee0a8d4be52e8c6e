"""The mean map where all raters agree (CURVAS; specification section 9)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .case import CaseView, Undefined
from .channels import label_index, mean_channels
from .convention import CANONICAL
from .overlap import Floats, Mask
from .per_rater import common_mask


def _unanimous(view: CaseView) -> tuple[Mask, Mask]:
    """Pixels that all raters give to each class, and that none does, K×N."""
    index = label_index(view, view.raters)
    chosen = index[:, None] == np.arange(1, len(view.classes) + 1)[:, None]
    return chosen.all(axis=0), ~chosen.any(axis=0)


def _mask(view: CaseView) -> Mask:
    """The hard mask of the mean map (arg max, binary p̄ > 0.5), one against the rest, K×N."""
    return np.stack([common_mask(view, label).ravel() for label in view.classes])


def consensus_dice_per_class(view: CaseView) -> list[float]:
    """Dice of each class on the pixels where all raters agree on foreground or all on background.

    Two empty masks have Dice 1. Under ``consensus="lines"`` (CURVAS) the value of the released call, see `_of_lines`.
    """
    inside, outside = _unanimous(view)
    mask = _mask(view) & (inside | outside)
    if view.convention("volume").consensus == "lines":
        return [_of_lines(view.placed(a), view.placed(b), view) for a, b in zip(mask, inside, strict=True)]
    both = np.count_nonzero(mask & inside, axis=1)
    total = np.count_nonzero(mask, axis=1) + np.count_nonzero(inside, axis=1)
    return np.where(total > 0, 2.0 * both / np.maximum(total, 1), 1.0).tolist()


def _of_lines(mask: NDArray, truth: NDArray, view: CaseView) -> float:
    """Dice as the released evaluation gets it from MONAI, float32.

    It hands over D×H×W volumes where batch × channel × space is expected, so D becomes the batch, H the channels and
    only W the space, and the first row of H is dropped as "background" (unless it is the only one). Rows without
    consensus foreground are left out of the mean over rows, then slices without any such row out of the mean over
    slices; 0 if nothing is left. An image of two dimensions is one slice.
    """
    shape = view.raters.shape[1:] if view.valid is None else view.valid.shape
    a, b = (m.reshape(-1, *shape[-2:]) for m in (mask, truth))
    if shape[-2] > 1:
        a, b = a[:, 1:], b[:, 1:]
    size = b.sum(axis=2)
    row = (2.0 * (a & b).sum(axis=2) / np.maximum(size + a.sum(axis=2), 1)).astype(np.float32)
    rows = (size > 0).sum(axis=1)
    kept = rows > 0
    if not kept.any():
        return 0.0
    slices = np.where(size > 0, row, np.float32(0)).sum(axis=1, dtype=np.float32)[kept] / rows[kept].astype(np.float32)
    return float(slices.mean(dtype=np.float32))


def consensus_dice(view: CaseView) -> float:
    """Mean over the classes of `consensus_dice_per_class`."""
    return float(np.mean(consensus_dice_per_class(view)))


def _confidence(view: CaseView) -> Floats:
    """½[(mean p̄ on unanimous foreground) + 1 − (mean p̄ on unanimous background)] of each class, nan without one."""
    probs = mean_channels(view, CANONICAL)[1:]
    means = []
    for where in _unanimous(view):
        count = np.count_nonzero(where, axis=1)
        total = np.where(where, probs, 0.0).sum(axis=1)
        means.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return 0.5 * (means[0] + 1.0 - means[1])


def consensus_confidence_per_class(view: CaseView) -> list[float]:
    """Confidence of each class; nan where the raters share no pixel of foreground, or none of background."""
    return _confidence(view).tolist()


def consensus_confidence(view: CaseView) -> float:
    """Mean over the classes; the confidence on the pixels on which all raters agree.

    Raises:
        Undefined: for some class the raters share no pixel of foreground, or none of background.
    """
    values = _confidence(view)
    if np.isnan(values).any():
        raise Undefined("data: the raters share no pixel of foreground, or none of background")
    return float(values.mean())
