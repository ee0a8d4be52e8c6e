"""Per-case metrics of a cell from what is stored: one row per case, output, rater and metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ..datasets.base import DataDescription, Dataset
from ..metrics import human_case, score_case
from ..metrics.registry import METRICS
from . import derived
from .predictions import StoredPredictions

COLUMNS = ("case_id patient_id output rater label metric variant region n_samples value reason").split()

SET_METRICS = (
    "ged ged.dice ged.debiased ged.ustat cross diversity_samples diversity_raters diversity_gap hm_iou hm_dice "
    "dice_max_rater_to_sample dice_max_sample_to_rater dice_max_mean dice_match dice_mean "
    "empty_share_samples empty_share_raters empty_gap"
).split()
MEAN_METRICS = "dice_soft iou_soft qubiq dice_majority dice_continuous".split()
RATER_METRICS = "dice_rater dice_rater.each dice_rater.worst iou_rater".split()
PERSONAL_METRICS = "dice_rater.gap rater_identification".split()
NEEDS_TWO = ("ged.debiased", "ged.ustat")
NAMED = ("dice_rater.each", "dice_rater.worst")  # meaningless where rater slots have no identity


def metric_versions() -> dict[str, int]:
    """Versions of the metrics that an evaluation computes: a raised version makes a new evaluation, not a training."""
    names = [*SET_METRICS, *MEAN_METRICS, *RATER_METRICS, *PERSONAL_METRICS]
    return {name: int(METRICS.entry(name).info.get("version", 1)) for name in sorted(names)}


def subset(indices: np.ndarray, patients: list[str], limit: int | None) -> np.ndarray:
    """At most `limit` of `indices`, taken one patient after the other so that they spread over patients."""
    if limit is None or len(indices) <= limit:
        return indices
    seen: dict[str, int] = {}
    turn = []
    for index in indices:
        seen[patients[index]] = seen.get(patients[index], 0) + 1
        turn.append(seen[patients[index]])
    return np.sort(indices[np.argsort(turn, kind="stable")[:limit]])


class Evaluation:
    """Collects rows over cases.

    Args:
        dataset: the data set of the cell.
        description: its description (identity decides which per-rater rows make sense).
        fold: fold of the split; its training patients give the area ranks of the raters.
        test: indices of the scored cases.
        tick: progress callback (done, total).
    """

    def __init__(
        self,
        dataset: Dataset,
        description: DataDescription,
        fold: int,
        test: np.ndarray,
        tick: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.dataset = dataset
        self.description = description
        self.records = dataset.records
        self.fold = fold
        self.test = test
        self.tick = tick
        self.named = description.identity != "none"
        self.rows: list[tuple[Any, ...]] = []
        self.outputs: dict[str, dict[str, Any]] = {}

    # -- methods --------------------------------------------------------------------------------

    def method(self, stored: StoredPredictions, validation: StoredPredictions | None, n_samples: int) -> None:
        """Rows of a method: its own outputs, then the trivial rows derived from them."""
        masks, valid = self.dataset.arrays(self.test)[1:]
        masks = masks.astype(bool)
        thresholds, common, ranks = self._fit_trivial(validation)
        same = stored.samples is not None and all(
            np.array_equal(s, derived.level_sets(m, len(s))) for s, m in zip(stored.samples, stored.mean, strict=True)
        )
        for i, index in enumerate(self.test):
            mean, raters = stored.mean[i], masks[i]
            case = (index, raters, valid[i])
            if stored.samples is not None:
                self._score("diverse", case, stored.samples[i], mean, note="nested level sets" if same else "")
            if stored.raters is not None:
                maps = stored.raters[i]
                self._score("personalised", case, maps > 0.5, maps.mean(0), rater_probs=maps)
            self._score("consensus", case, mean[None] > 0.5, mean)
            if not same:
                self._score("levels", case, derived.level_sets(mean, n_samples), mean)
            if common is not None:
                self._score("common_threshold", case, mean[None] > common, None, note=f"threshold {common:g}")
            if thresholds is not None:
                cut = mean[None] > thresholds[:, None, None]
                self._score("own_threshold", case, cut, None, rater_probs=cut.astype(np.float32))
            if ranks is not None and stored.samples is not None:
                picked = derived.area_ranks(stored.samples[i], ranks)
                self._score("area_ranks", case, picked, None, rater_probs=picked.astype(np.float32))
            self.tick(i + 1, len(self.test))
        self._explain(stored, validation, same)

    def _fit_trivial(
        self, validation: StoredPredictions | None
    ) -> tuple[np.ndarray | None, float | None, np.ndarray | None]:
        """Thresholds from validation patients, area ranks of the raters from training patients; never from test."""
        thresholds = common = ranks = None
        if validation is not None:
            position = {r.case_id: i for i, r in enumerate(self.records)}
            indices = [position[c] for c in validation.case_ids]
            masks, valid = self.dataset.arrays(indices)[1:]
            common = derived.common_threshold(validation.mean, masks.astype(bool), valid)
            if self.named:
                thresholds = derived.own_thresholds(validation.mean, masks.astype(bool), valid)
        if self.named:
            ranks = self.training_ranks()
        return thresholds, common, ranks

    def training_ranks(self) -> np.ndarray:
        train = self.dataset.split(self.fold).train
        return derived.rater_area_ranks(*self.dataset.arrays(train)[1:])

    def _explain(self, stored: StoredPredictions, validation: StoredPredictions | None, same: bool) -> None:
        reasons = {
            "levels": "identical to `diverse`" if same else "",
            "own_threshold": "" if self.named else "raters have no identity",
            "area_ranks": "" if self.named and stored.samples is not None else "needs rater identity and samples",
            "common_threshold": "",
        }
        if validation is None:
            reasons["own_threshold"] = reasons["common_threshold"] = "no validation patients"
        for output, reason in reasons.items():
            if output not in self.outputs:
                self.outputs[output] = {"left_out": reason}

    # -- human and oracle -----------------------------------------------------------------------

    def human(self, n_samples: int) -> None:
        """Rows that need no method: one reader against the rest, a perfect sampler, the true majority, true levels."""
        masks, valid = self.dataset.arrays(self.test)[1:]
        masks = masks.astype(bool)
        ranks = self.training_ranks() if self.named else np.arange(masks.shape[1])
        for i, index in enumerate(self.test):
            raters, present = masks[i], valid[i]
            case = (index, raters, present)
            self._human_case(index, raters, present, n_samples)
            if present.any():
                votes = raters[present].sum(0)
                majority = 2 * votes > present.sum()
                share = votes / present.sum()
                self._score("oracle_majority", case, majority[None], majority.astype(np.float64))
                maps = derived.vote_levels(raters[present], _reranked(ranks, present))
                full = np.zeros(raters.shape, dtype=np.float32)
                full[present] = maps
                self._score("oracle_levels", case, derived.level_sets(share, n_samples), share, rater_probs=full)
            self.tick(i + 1, len(self.test))

    def _human_case(self, index: int, raters: np.ndarray, present: np.ndarray, n_samples: int) -> None:
        record = self.records[index]
        found = human_case(
            raters, n_samples, rater_valid=present, seed_axes={"dataset": self.dataset.name, "case": record.case_id}
        )
        v_raters = score_case(raters, raters, rater_valid=present, metrics=["diversity_raters"])["diversity_raters"]
        one = {
            "ged": found["human.loo_ged"],
            "dice_soft": found["human.loo_soft_dice"],
            "dice_max_rater_to_sample": found["human.loo_max_dice"],
            "dice_mean": found["human.loo_mean_dice"],
            "dice_rater": found["human.loo_majority_dice"],
            "diversity_raters": v_raters,
        }
        if self.named:
            one["dice_rater.each"] = found["human.loo_majority_dice.each"]
        self._add("human", index, 1, one, {})
        self._add("human", index, 1, {k: v for k, v in found.items() if not k.startswith("human.oracle")}, {})
        oracle = {
            "ged": found["human.oracle_ged"],
            "dice_match": found["human.oracle_dice_match"],
            "hm_iou": found["human.oracle_hm_iou"],
            "diversity_samples": v_raters * (1 - 1 / n_samples),
            "diversity_raters": v_raters,
        }
        self._add("oracle", index, n_samples, oracle, {})
        claims = {"human": ["one reader against the rest"], "oracle": ["independent draws from the readers"]}
        for output, count in (("human", 1), ("oracle", n_samples)):
            self.outputs[output] = {"n_samples": count, "claims": claims[output], "fallback": []}

    # -- inside ---------------------------------------------------------------------------------

    def _score(
        self,
        output: str,
        case: tuple[int, np.ndarray, np.ndarray],
        samples: np.ndarray,
        mean: np.ndarray | None,
        rater_probs: np.ndarray | None = None,
        note: str = "",
    ) -> None:
        index, raters, valid = case
        personal = rater_probs is not None
        metrics = SET_METRICS + RATER_METRICS + (MEAN_METRICS if mean is not None else [])
        if personal:
            metrics = metrics + PERSONAL_METRICS
        if len(samples) < 2:  # one mask has no spread to correct for: n/a, not a failure of the method
            metrics = [m for m in metrics if m not in NEEDS_TWO]
        if not self.named:
            metrics = [m for m in metrics if m not in NAMED and m not in PERSONAL_METRICS]
        common = mean if mean is not None else samples.mean(0)
        values = score_case(
            raters,
            samples,
            rater_probs=rater_probs,
            rater_valid=valid,
            mean_prob=None if personal and mean is None else common,
            metrics=metrics,
            reasons=True,
        )
        reasons = values.pop("reasons")
        self._add(output, index, len(samples), values, reasons)
        if output not in self.outputs:
            claims = ["samples"] + (["raters"] if personal else []) + (["mean"] if mean is not None else [])
            fallback = [] if personal else [m for m in metrics if m in RATER_METRICS]
            self.outputs[output] = {"n_samples": len(samples), "claims": claims, "fallback": fallback, "note": note}

    def _add(self, output: str, index: int, count: int, values: dict[str, Any], reasons: dict[str, str]) -> None:
        record = self.records[index]
        ids = self.description.rater_ids
        for metric, value in values.items():
            pairs = zip(ids, value, strict=True) if isinstance(value, (list, np.ndarray)) else [("", value)]
            for rater, v in pairs:
                undefined = v is None or not np.isfinite(v)
                reason = (reasons.get(metric) or "undefined for this case") if undefined else ""
                row = (record.case_id, record.patient_id, output, rater, "1", metric, "canonical", "full", count)
                self.rows.append((*row, None if undefined else float(v), reason))

    def frame(self) -> pd.DataFrame:
        """All rows, sorted: identical on every collection."""
        frame = pd.DataFrame(self.rows, columns=COLUMNS)
        return frame.sort_values(["output", "metric", "case_id", "rater"], kind="stable", ignore_index=True)


def _reranked(ranks: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Ranks among the raters that are present."""
    return np.argsort(np.argsort(ranks[present], kind="stable"), kind="stable")
