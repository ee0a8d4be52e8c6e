"""One target made of the masks of a batch's raters, for methods that treat the consensus as one more rater."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.base import DataDescription
from .baselines import one_class_a_pixel
from .targets import is_exclusive

Consensus = Literal["majority", "staple"]


def consensus_targets(targets: Tensor, rater_valid: Tensor, data: DataDescription, how: Consensus) -> Tensor:
    """Consensus B×C×H×W in {0, 1} of the raters present; an image without any is empty (background).

    ``majority``: more than half; for exclusive classes the most frequent one, the smallest index in a tie, which for
    two classes is the same. ``staple``: weight above one half in STAPLE over the whole image (Warfield, Zou and Wells
    2004), classes one against the rest; for exclusive classes a pixel that none wins is background.

    Args:
        targets: B×R×C×H×W in {0, 1}, see `multirater.methods.targets`.
        rater_valid: B×R.
        data: decides the layout of the channels.
        how: the rule.
    """
    if how == "staple":
        rows = zip(targets.cpu().numpy(), rater_valid.cpu().numpy(), strict=True)
        found = torch.from_numpy(np.stack([_staple(given, present) for given, present in rows])).to(targets.device)
        return (one_class_a_pixel(found) if is_exclusive(data) else found).to(targets.dtype)
    votes = (targets * rater_valid[:, :, None, None, None]).sum(1, dtype=torch.int64)
    if not is_exclusive(data):
        return (2 * votes > rater_valid.sum(1)[:, None, None, None]).to(targets.dtype)
    classes = votes.shape[1]
    # The largest key is the class with most votes and, among equals, of the smallest index.
    key = votes * classes - torch.arange(classes, device=votes.device)[:, None, None]
    return F.one_hot(key.argmax(1), classes).movedim(-1, 1).to(targets.dtype)


def _staple(targets: np.ndarray, present: np.ndarray) -> np.ndarray:
    """C×H×W bool of one image."""
    from ..metrics.staple import staple_case

    if not present.any():
        return np.zeros(targets.shape[1:], bool)
    channels = targets[present].astype(bool).swapaxes(0, 1)
    return np.stack([staple_case(masks, region="full").mask for masks in channels])
