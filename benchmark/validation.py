"""The one checkpoint rule for all methods: a score on validation patients, never on test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core.errors import UserError
from ..datasets.base import Dataset
from ..methods.base import Method
from ..metrics import score_case
from .predictions import predict_cases


@dataclass(frozen=True)
class Score:
    metric: str
    higher: bool


# What a stage is judged by (contracts.md 7): GED for samples, per-rater Dice for rater maps, soft Dice otherwise.
SCORES = {"samples": Score("ged", False), "raters": Score("dice_rater", True), "mean": Score("dice_soft", True)}


def validate(
    method: Method,
    dataset: Dataset,
    indices: np.ndarray,
    output: str,
    config: dict[str, Any],
    seed: int,
    device: torch.device,
) -> float:
    """Mean validation score over cases (undefined cases are left out; they do not depend on the method)."""
    n_samples = config["validate_samples"] if output == "samples" else 2
    stored = predict_cases(method, dataset, indices, n_samples, seed, device)
    masks, valid = dataset.arrays(indices)[1:]
    if output == "raters" and stored.raters is None:
        raise UserError(
            f"{type(method).__name__} says that this stage gives rater maps, but predict returned none; "
            f"mend its stage_gives"
        )
    metric = SCORES[output].metric
    values = []
    for i in range(len(indices)):
        given: dict[str, Any] = {"samples": stored.mean[i][None] > 0.5, "mean_prob": stored.mean[i]}
        if output == "samples" and stored.samples is not None:
            given = {"samples": stored.samples[i]}
        elif stored.raters is not None and output == "raters":
            given = {"samples": stored.raters[i] > 0.5, "rater_probs": stored.raters[i]}
        values.append(score_case(masks[i].astype(bool), rater_valid=valid[i], metrics=[metric], **given)[metric])
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
