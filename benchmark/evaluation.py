"""Per-case metrics of a cell from what is stored: one row per case, output, rater, class and metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.base import DataDescription, Dataset
from ..datasets.case_rows import CaseRows
from ..metrics import human_case
from ..metrics.case import CaseView
from ..metrics.components import Components, components_of, save_components
from ..metrics.inputs import read_case
from ..metrics.score import evaluate, score_view
from ..metrics.variants import conventions_of
from . import derived
from .class_layout import ClassLayout, Mask
from .metric_lists import (
    MEAN_METRICS,
    PERSONAL_MAP_METRICS,
    SET_METRICS,
    UNCERTAINTY_METRICS,
    base_and_region,
    rater_metrics,
    set_metrics,
)
from .metric_lists import metric_versions as metric_versions
from .predictions import CasePrediction, StoredPredictions
from .scored_cases import OneClass, Scored, places, rows_of

COLUMNS = ("case_id patient_id output rater label metric variant region n_samples value reason").split()
_SORTED = ["output", "metric", "case_id", "rater", "label", "region"]
_SINGLE = "tab"  # a variant that works in single precision
# Scored for their sums alone, which a pooled calibration error is made of.
_POOLED = ["ece.top", "ece.top.full", "ece.disagree", "ece.disagree.full"]
_AREAS_AT_ONCE = 64  # cases whose masks are counted together
Values = dict[str, tuple[Any, str]]  # metric to its value, or list over the raters, and why it is undefined


@dataclass(frozen=True)
class Trivial:
    """What the trivial rows learn: per class the thresholds from validation patients and the raters' area ranks from
    training patients; never from test."""

    own: NDArray | None = None  # K×R
    common: NDArray | None = None  # K
    ranks: NDArray | None = None  # K×R


class Evaluation:
    """Collects rows over cases; several classes are scored one by one, each against the rest.

    The slices of a volume are one case and are scored in 3D.

    Args:
        dataset: the data set of the cell.
        description: its description (identity decides which per-rater rows make sense).
        fold: fold of the split; its training patients give the area ranks of the raters.
        test: rows of the scored cases.
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
        self.layout = ClassLayout.of(description)
        self.fold = fold
        self.cases = dataset.volumes(test)
        self.tick = tick
        self.named = description.identity != "none"
        self.rows: list[tuple[Any, ...]] = []
        self.outputs: dict[str, dict[str, Any]] = {}
        self.components: dict[tuple[str, str], list[Components]] = {}  # by output and class

    # -- methods --------------------------------------------------------------------------------

    def method(self, stored: StoredPredictions, validation: StoredPredictions | None, n_samples: int) -> None:
        """Rows of a method: its own outputs, then the trivial rows derived from them."""
        trivial = self._fit_trivial(validation)
        rows = places(self.cases)
        same = all(
            self._are_level_sets(case, stored.case(at, case.volume)) for case, at in zip(self.cases, rows, strict=True)
        )
        for i, case in enumerate(self.cases):
            scored, given = self._scored(case), stored.case(rows[i], case.volume)
            levels = None if same else scored.layout.level_sets(given.mean, n_samples)
            for k, one in scored.classes():
                self._own_outputs(one, scored.layout, given, k, levels)
                self._trivial_outputs(one, scored.layout, given, k, trivial)
            if given.samples is not None:
                self._uncertainty(scored, given)
            self.tick(i + 1, len(self.cases))
        notes = {"diverse": "nested level sets"} if same else {}
        if trivial.common is not None:
            notes["common_threshold"] = "threshold " + ", ".join(f"{t:g}" for t in trivial.common)
        for output, note in notes.items():
            self.outputs[output]["note"] = note
        self._explain(stored, validation, same)

    def _scored(self, case: CaseRows) -> Scored:
        return Scored.of(self.dataset, self.layout, case)

    def _are_level_sets(self, case: CaseRows, given: CasePrediction) -> bool:
        """Whether the samples of a case are the level sets of its mean map."""
        layout, samples = self.layout.of_case(case), given.samples
        if samples is None:
            return False
        return np.array_equal(layout.split(samples), layout.level_sets(given.mean, len(samples)))

    def _own_outputs(
        self, case: OneClass, layout: ClassLayout, given: CasePrediction, k: int, levels: Mask | None
    ) -> None:
        mean, mask = layout.foreground(given.mean)[k], layout.hard(given.mean)[k]
        known: Values | None = None  # diverse, consensus and levels share one mean map
        if given.samples is not None:
            known = self._score("diverse", case, layout.split(given.samples)[:, k], mean, mask, keep=True)
        if given.raters is not None:
            maps = given.raters
            own = layout.hard(maps)[:, k]
            probabilities = layout.foreground(maps)[:, k]
            self._score("personalised", case, own, probabilities.mean(0), own, probabilities, keep=True)
        known = self._score("consensus", case, mask[None], mean, mask, known=known, keep=known is None)
        if levels is not None:
            self._score("levels", case, levels[:, k], mean, mask, known=known)

    def _trivial_outputs(
        self, case: OneClass, layout: ClassLayout, given: CasePrediction, k: int, trivial: Trivial
    ) -> None:
        mean = layout.foreground(given.mean)[k]
        if trivial.common is not None:
            mask = mean > trivial.common[k]
            self._score("common_threshold", case, mask[None], None, mask)
        if trivial.own is not None:
            cut = mean[None] > trivial.own[k].reshape(-1, *[1] * mean.ndim)
            self._score("own_threshold", case, cut, None, cut)
        if trivial.ranks is not None and given.samples is not None:
            picked = derived.area_ranks(layout.split(given.samples)[:, k], trivial.ranks[k], case.region)
            self._score("area_ranks", case, picked, None, picked)

    def _uncertainty(self, scored: Scored, given: CasePrediction) -> None:
        """NCC of the samples, of which the stored mean logarithm is known; of exclusive classes over all channels."""
        layout = scored.layout
        mean = given.mean if given.sample_mean is None else given.sample_mean
        logs = given.mean_log
        assert given.samples is not None
        count = len(given.samples)
        if layout.kind == "exclusive":
            case = OneClass(scored.case, "", scored.masks, scored.valid, scored.region)
            classes = range(1, layout.classes + 1)
            view = self._view(case, mean_prob=mean, mean_log=logs, classes=list(classes))
            self._add("diverse", case, count, self._values(view, UNCERTAINTY_METRICS))
            return
        for k, case in scored.classes():
            own_logs = logs[k] if layout.channels else logs
            view = self._view(case, mean_prob=layout.foreground(mean)[k], mean_log=own_logs)
            self._add("diverse", case, count, self._values(view, UNCERTAINTY_METRICS))

    def _fit_trivial(self, validation: StoredPredictions | None) -> Trivial:
        own = common = None
        if validation is not None:
            own, common = self._thresholds(validation)
        return Trivial(own if self.named else None, common, self.training_ranks() if self.named else None)

    def _thresholds(self, stored: StoredPredictions) -> tuple[NDArray, NDArray]:
        """The best threshold of each rater (K×R), and of all together (K), for each class."""
        position = {r.case_id: i for i, r in enumerate(self.dataset.records)}
        cases = self.dataset.volumes([position[c] for c in stored.case_ids])
        scores, valid = [], []
        for case, rows in zip(cases, places(cases), strict=True):
            scored = self._scored(case)
            means = scored.layout.foreground(stored.case(rows, case.volume).mean)
            scores.append([self._dice_at_thresholds(one, means[k]) for k, one in scored.classes()])
            valid.append(scored.valid)
        found = [derived.best_thresholds(of_class, valid) for of_class in zip(*scores, strict=True)]
        return np.stack([own for own, _ in found]), np.array([common for _, common in found])

    def _dice_at_thresholds(self, case: OneClass, mean: NDArray) -> NDArray:
        if case.region is None:
            return derived.dice_at_thresholds(mean, case.raters)
        # What does not count is background to both.
        return derived.dice_at_thresholds(mean * case.region, case.raters & case.region)

    def training_ranks(self) -> NDArray:
        """Rank K×R of each rater by mean area over the training patients; a volume counts once, with all its slices."""
        cases = self.dataset.volumes(self.dataset.split(self.fold).train)
        rows, starts = rows_of(cases), [place.start for place in places(cases)]
        areas, valid = [], []
        for start in range(0, len(rows), _AREAS_AT_ONCE):
            some = rows[start : start + _AREAS_AT_ONCE]
            masks, present = self.dataset.masks(some)
            planes, region = self.layout.planes(masks), self.dataset.valid_region(some)
            if region is not None:
                planes = planes & region[:, None, None]
            areas.append(planes.reshape(*planes.shape[:3], -1).sum(-1))
            valid.append(present)
        counts = np.add.reduceat(np.concatenate(areas), starts)
        seen = np.logical_and.reduceat(np.concatenate(valid), starts)
        return np.stack([derived.rater_area_ranks(counts[:, :, k], seen) for k in range(self.layout.classes)])

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
        slots = np.tile(np.arange(self.description.raters), (self.layout.classes, 1))
        ranks = self.training_ranks() if self.named else slots
        for i, rows in enumerate(self.cases):
            scored = self._scored(rows)
            layout, planes, present = scored.layout, scored.planes, scored.valid
            shares, levels = None, None
            if present.any():
                share = layout.share(planes[present])
                shares, levels = layout.foreground(share), layout.level_sets(share, n_samples)
            for k, case in scored.classes():
                self._human_case(case, n_samples)
                if shares is not None and levels is not None:
                    self._oracle_case(case, shares[k], levels[:, k], ranks[k])
            self.tick(i + 1, len(self.cases))

    def _oracle_case(self, case: OneClass, share: NDArray, levels: Mask, ranks: NDArray) -> None:
        """The true majority as the only mask, and the true vote levels as samples and as masks of the raters."""
        present = case.valid
        majority = 2 * case.raters[present].sum(0) > present.sum()
        self._score("oracle_majority", case, majority[None], majority.astype(np.float64), majority)
        full = np.zeros(case.raters.shape, dtype=bool)
        full[present] = derived.vote_levels(case.raters[present], _reranked(ranks, present))
        self._score("oracle_levels", case, levels, share, full)

    def _human_case(self, case: OneClass, n_samples: int) -> None:
        found = human_case(
            case.raters,
            n_samples,
            rater_valid=case.valid,
            valid=case.region,
            seed_axes={"dataset": self.dataset.name, "case": case.case.case_id},
        )
        v_raters = self._values(self._view(case), ["diversity_raters"])["diversity_raters"][0]
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
        one |= {k: v for k, v in found.items() if not k.startswith("human.oracle")}
        oracle = {
            "ged": found["human.oracle_ged"],
            "dice_match": found["human.oracle_dice_match"],
            "hm_iou": found["human.oracle_hm_iou"],
            "diversity_samples": v_raters * (1 - 1 / n_samples),
            "diversity_raters": v_raters,
        }
        claims = {"human": ["one reader against the rest"], "oracle": ["independent draws from the readers"]}
        for output, values, count in (("human", one, 1), ("oracle", oracle, n_samples)):
            self._add(output, case, count, {metric: (value, "") for metric, value in values.items()})
            self.outputs[output] = {"n_samples": count, "claims": claims[output], "fallback": []}

    # -- inside ---------------------------------------------------------------------------------

    def _score(
        self,
        output: str,
        case: OneClass,
        samples: Mask,
        mean: NDArray | None,
        masks: Mask,
        probabilities: NDArray | None = None,
        known: Values | None = None,
        keep: bool = False,
    ) -> Values:
        """Rows of one output.

        Args:
            samples: S×H×W.
            mean: H×W probabilities, if the output has a mean map.
            masks: R×H×W, a mask for each rater, or H×W, a common mask.
            probabilities: R×H×W, the maps behind the raters' masks.
            known: values of an output with the same mean map and common mask.
            keep: keep the counts behind the values.

        Returns:
            The values that depend on mean map and masks alone, for `known`.
        """
        personal = masks.ndim == case.raters.ndim
        hard = {"rater_probs": masks} if personal else {"mean_prob": masks.astype(np.float32)}
        of_raters = rater_metrics(personal, self.named)
        # Of exclusive classes a mask is the most probable class, not p > 0.5: its metrics need a view of their own.
        apart = self.layout.kind == "exclusive"
        names, given = set_metrics(len(samples)), dict[str, NDArray]()
        if known is None:
            given = {} if apart else dict(hard)
            names += [] if apart else of_raters
            if mean is not None:
                given["mean_prob"] = mean
                names += MEAN_METRICS
            if probabilities is not None:
                given["rater_probs"] = probabilities
                names += PERSONAL_MAP_METRICS if self.named else []
        view = self._view(case, samples, **given)
        values = self._values(view, names)
        if known is None:
            values |= self._values(self._view(case, **hard), of_raters) if apart else {}
            known = {m: v for m, v in values.items() if m not in SET_METRICS}
        self._add(output, case, len(samples), {**values, **known})
        if keep:
            self._keep(output, case, view)
        if output not in self.outputs:
            claims = ["samples"] + (["raters"] if personal else []) + (["mean"] if mean is not None else [])
            fallback = [] if personal else of_raters
            self.outputs[output] = {"n_samples": len(samples), "claims": claims, "fallback": fallback, "note": ""}
        return known

    def _view(self, case: OneClass, samples: Mask | None = None, **inputs: Any) -> CaseView:
        seen: dict[str, Any] = {"rater_valid": case.valid, "valid": case.region, "spacing": case.case.spacing}
        return read_case(case.raters, samples, **seen, **inputs)

    def _values(self, view: CaseView, metrics: list[str]) -> Values:
        found = score_view(view, view.given, metrics, None, reasons=True, strict=True)
        reasons = found.pop("reasons")
        return {metric: (value, reasons.get(metric, "")) for metric, value in found.items()}

    def _keep(self, output: str, case: OneClass, view: CaseView) -> None:
        """Counts from which metrics of masks can be computed again under any variant, without masks or images.

        Variants in single precision count the thresholded maps apart; that is cheap and done here. Sums of calibration
        are kept in the canonical bins only: all variants of them would take longer than the rest of the evaluation.
        """
        evaluate(view, _POOLED)
        single = view.again()
        single.conventions = conventions_of(_SINGLE, several=False)
        # Masks of exclusive classes do not follow from the map of one class.
        evaluate(single, ["dice_soft"] if self.layout.kind == "exclusive" else ["dice_soft", "dice_rater"])
        ids = self.description.rater_ids
        kept = components_of(view, case_id=case.case.case_id, rater_ids=ids, every_variant=False)
        self.components.setdefault((output, case.label), []).append(kept)

    def write_components(self, folder: Path) -> list[Path]:
        """Write ``components-<output>.npz``, of several classes one file each (``…-class<k>.npz``)."""
        several = len(self.layout.labels) > 1
        written = []
        for (output, label), cases in self.components.items():
            written.append(folder / f"components-{output}{f'-class{label}' if several else ''}.npz")
            save_components(written[-1], cases)
        return written

    def _add(self, output: str, case: OneClass, count: int, values: Values) -> None:
        ids = self.description.rater_ids
        for metric, (value, why) in values.items():
            name, region = base_and_region(metric)
            pairs = zip(ids, value, strict=True) if isinstance(value, (list, np.ndarray)) else [("", value)]
            for rater, v in pairs:
                undefined = v is None or not np.isfinite(v)
                reason = (why or "undefined for this case") if undefined else ""
                row = (
                    case.case.case_id,
                    case.case.patient_id,
                    output,
                    rater,
                    case.label,
                    name,
                    "canonical",
                    region,
                    count,
                )
                self.rows.append((*row, None if undefined else float(v), reason))

    def frame(self) -> pd.DataFrame:
        """All rows, sorted: identical on every collection."""
        frame = pd.DataFrame(self.rows, columns=COLUMNS)
        return frame.sort_values(_SORTED, kind="stable", ignore_index=True)


def _reranked(ranks: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Ranks among the raters that are present."""
    return np.argsort(np.argsort(ranks[present], kind="stable"), kind="stable")
