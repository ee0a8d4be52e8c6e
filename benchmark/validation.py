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
from .class_layout import ClassLayout
from .predictions import CasePrediction, predict_cases
from .scored_cases import Scored, places


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
    """Mean validation score over cases (undefined cases are left out; they do not depend on the method).

    Several classes: the mean over the classes of each one's score against the rest.
    """
    n_samples = config["validate_samples"] if output == "samples" else 2
    stored = predict_cases(method, dataset, indices, n_samples, seed, device)
    if output == "raters" and stored.raters is None:
        raise UserError(
            f"{type(method).__name__} says that this stage gives rater maps, but predict returned none; "
            f"mend its stage_gives"
        )
    metric = SCORES[output].metric
    layout = ClassLayout.of(method.data)
    cases = dataset.volumes(indices)
    values = []
    for case, rows in zip(cases, places(cases), strict=True):
        scored = Scored.of(dataset, layout, case)
        given = _given(stored.case(rows, case.volume), output, scored.layout)
        classes = [
            score_case(one.raters, rater_valid=one.valid, valid=one.region, metrics=[metric], **given[k])[metric]
            for k, one in scored.classes()
        ]
        values.append(np.mean(classes))
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _given(stored: CasePrediction, output: str, layout: ClassLayout) -> list[dict[str, Any]]:
    """What the score of a stage is computed from, for each class of a case."""
    if output == "samples":
        planes = layout.hard(stored.mean)[None] if stored.samples is None else layout.split(stored.samples)
        return [{"samples": planes[:, k]} for k in range(layout.classes)]
    if output == "raters" and stored.raters is not None:
        masks = layout.hard(stored.raters)
        return [{"rater_probs": masks[:, k]} for k in range(layout.classes)]
    mean = layout.foreground(stored.mean)
    return [{"mean_prob": m} for m in mean]
