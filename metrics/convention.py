"""How a metric treats the cases on which released implementations differ, and the named variants that reproduce them.

A `Convention` is a value; a variant is one convention for each family of metrics:

======== ======================================================================================
family   metrics
======== ======================================================================================
``ged``  ``cross``, ``diversity_*``, ``ged*``
``hm``   ``hm_iou``, ``hm_dice``
``dice`` ``dice_max_*``, ``dice_match``, ``dice_mean``, ``dice_each`` and the ``iou_`` forms
``map``  ``dice_soft``, ``iou_soft``, ``qubiq``, ``dice_majority``, ``dice_continuous``
``rater`` ``dice_rater*``, ``iou_rater*``, ``rater_identification``
``uncertainty`` ``ncc*``, ``sample_nll``, ``entropy_mean``
``insight`` ``ci``, ``combined_sensitivity``, ``diversity_agreement*``
``calibration`` ``brier*``, ``nll*``, ``ece*``, ``ace*``, ``mce``, ``consensus_confidence``
``surface`` ``hd*``, ``assd*``, ``nsd*``
``volume`` ``volume_crps*``, ``consensus_dice*``
``saliency`` ``fmeasure``, ``mae``
``agreement`` ``pairwise_*``, ``gci``, kappas, ``vote_histogram*``, ``staple.*``
======== ======================================================================================

This module needs the standard library only, so that names can be listed at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from ..core.errors import UserError

FIVE_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
NINE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

_ALLOWED: dict[str, tuple[Any, ...]] = {
    "distance": ("iou", "dice"),
    "diagonal": ("include", "exclude", "debiased"),
    "classes": ("fixed", "skip", "with_background", "micro"),
    "pairs": ("mean", "pooled"),
    "binarise": ("gt_half", "argmax", "sigmoid_left"),
    "dtype": ("float64", "float32", "float32_sum", "given"),
    "missing_sample_policy": ("replicate", "error"),
    "rater_nan": ("propagate", "omit"),
    "each": (None, "matched", "identity"),
    "binning": ("upper", "mose", "metrics_reloaded", "values", "torchmetrics"),
    "confidence": ("class", "top", "top_evaluated", "top_rebuilt"),
    "region": (None, "full"),
    "ncc": ("guarded", "plain", "variance"),
    "ci": ("harmonic", "printed"),
    "crps": ("exact", "truncated"),
    "consensus": ("pixels", "lines"),
    "surface": ("pixels", "monai", "medpy", "deepmind"),
}


@dataclass(frozen=True)
class Convention:
    """The choices behind one number; the defaults are the canonical ones.

    Attributes:
        distance: ``iou`` or ``dice``, the similarity behind `ged`, `cross` and `diversity_*`.
        empty_similarity: similarity of two empty masks: 1, 0 or nan. Used for a ratio 0/0 only: with `smooth_den` > 0
            the smoothed ratio decides.
        smooth_num, smooth_den: added to numerator and denominator of every ratio.
        diagonal: pairs (i, i) in the self terms of GED: ``include`` (V-statistic), ``exclude`` (U-statistic),
            ``debiased`` (excluded for the samples only).
        classes: several classes: ``fixed`` list (absent from both counts as agreement), ``skip`` (absent from both is
            left out of that pair's mean), ``with_background`` (fixed, background added), ``micro`` (one ratio of the
            counts summed over the classes).
        pairs: ``mean`` of the distances of pairs, or ``pooled`` (one ratio of counts summed over pairs and classes);
            concerns `ged`, `cross` and `diversity_*`.
        sample_cap: use only the first n samples; None: all.
        binarise: binary probabilities: ``gt_half`` (p > 0.5), ``argmax`` (the same for two channels), ``sigmoid_left``
            (CIMD: the left mask of a pair is sigmoid(p) > 0.5, the right one p > 0.5). Channels: always arg max.
        dtype: only to match published digits: ``float32`` rounds ratios, mean maps and confidences; ``float32_sum``
            also adds the pairs of GED one by one in float32 (an error of about 2e-6 at S = 50). ``given``: the mean map
            of `dice_soft` and the like keeps the precision of the probabilities, and so meets the thresholds.
        missing_sample_policy: fewer samples than raters in `dice_match`: ``replicate`` the samples, or ``error``.
        rater_nan: a nan among the rater pairs: ``propagate``, or ``omit`` it from the mean.
        match_nan: value of `hm_iou` if its matrix has nan and the sets match by assignment, S a multiple of R without
            weights (default nan: undefined).
        empty_reference: similarity to a rater mask that is empty, whatever was predicted; None: no such rule.
        thresholds: levels of `dice_soft` and `iou_soft`; None: 0.1, 0.3, 0.5, 0.7, 0.9.
        each: what the legacy list `dice_each` pairs by: ``matched``, ``identity``, or None (not reported).
        bins: number of bins of calibration errors.
        binning: equal-width bins. ``upper``: (l, u], 0 in the first bin, float64 edges k/bins. ``mose``: (l, u] with
            float32 edges, 0 in no bin but in the denominator. ``metrics_reloaded``: (l, u] with edges k·(1/bins), 0 not
            in the denominator either. ``values``: [l, u), 1 in the last bin; where every rater marks every pixel the
            frequency is 0, as the released label binarisation has it. ``torchmetrics``: [l, u) with float32 edges, 1 in
            a bin of its own, sums added one by one in float32.
        confidence: what `ece`, `mce`, `ace*`, `ece.each` and `ece.disagree` compare: the probability of each ``class``
            (mean over the classes), that of the ``top`` label, ``top_evaluated`` (in no bin where the top label is not
            evaluated), ``top_rebuilt`` (with the background 1 − Σ of the other channels).
        region: ``full``: all pixels, whatever the id of a calibration metric says; None: as the id says.
        ncc: ``guarded`` (rules for constant maps), ``plain`` (PHiSeg: plain division in the precision of the input), or
            ``variance`` (ValUES: `ncc` is `ncc.variance`, and that is (N − 1)/N times the correlation, unguarded).
        entropy_epsilon: added to the mean map inside `entropy_mean`.
        ci: ``harmonic`` mean of the three parts, or the ``printed`` form of CIMD with `diversity_agreement.variance`.
        crps: `volume_crps` ``exact``, or ``truncated`` (CURVAS: integrated over three standard deviations).
        consensus: `consensus_dice` over ``pixels``, or over ``lines`` (CURVAS: Dice of each row of a volume).
        surface: `hd*`, `assd*` and `nsd*` from border ``pixels`` with the canonical rules for empty masks, or as
            ``monai`` (float32; nan and infinity where masks are empty), ``medpy`` (a percentile of both directions'
            distances together) or ``deepmind`` (border elements weighted by their length or area) computes them.

    Raises:
        UserError: a field has a value that is not allowed.
    """

    distance: Literal["iou", "dice"] = "iou"
    empty_similarity: float = 1.0
    smooth_num: float = 0.0
    smooth_den: float = 0.0
    diagonal: Literal["include", "exclude", "debiased"] = "include"
    classes: Literal["fixed", "skip", "with_background", "micro"] = "fixed"
    pairs: Literal["mean", "pooled"] = "mean"
    sample_cap: int | None = None
    binarise: Literal["gt_half", "argmax", "sigmoid_left"] = "gt_half"
    dtype: Literal["float64", "float32", "float32_sum", "given"] = "float64"
    missing_sample_policy: Literal["replicate", "error"] = "replicate"
    rater_nan: Literal["propagate", "omit"] = "propagate"
    match_nan: float = math.nan
    empty_reference: float | None = None
    thresholds: tuple[float, ...] | None = None
    each: Literal["matched", "identity"] | None = None
    bins: int = 10
    binning: Literal["upper", "mose", "metrics_reloaded", "values", "torchmetrics"] = "upper"
    confidence: Literal["class", "top", "top_evaluated", "top_rebuilt"] = "class"
    region: Literal["full"] | None = None
    ncc: Literal["guarded", "plain", "variance"] = "guarded"
    entropy_epsilon: float = 0.0
    ci: Literal["harmonic", "printed"] = "harmonic"
    crps: Literal["exact", "truncated"] = "exact"
    consensus: Literal["pixels", "lines"] = "pixels"
    surface: Literal["pixels", "monai", "medpy", "deepmind"] = "pixels"
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(
                    f"Convention.{name} = {value!r} is not allowed; choose one of {', '.join(map(str, allowed))}"
                )
        similarity = _number(self, "empty_similarity")
        if not (math.isnan(similarity) or similarity in (0.0, 1.0)):
            raise UserError(f"Convention.empty_similarity = {similarity!r} is not allowed; choose 1, 0 or nan")
        # One nan object, so that conventions that mean the same are equal and can be looked up in a cache.
        object.__setattr__(self, "empty_similarity", math.nan if math.isnan(similarity) else similarity)
        match = _number(self, "match_nan")
        object.__setattr__(self, "match_nan", math.nan if math.isnan(match) else match)
        for name in ("smooth_num", "smooth_den", "entropy_epsilon"):
            if not 0 <= _number(self, name) < math.inf:
                raise UserError(f"Convention.{name} = {getattr(self, name)!r} is not allowed; give a number >= 0")
        if self.sample_cap is not None and (
            isinstance(self.sample_cap, bool) or not isinstance(self.sample_cap, int) or self.sample_cap < 1
        ):
            raise UserError(f"Convention.sample_cap = {self.sample_cap!r} is not allowed; give an integer >= 1 or None")
        if isinstance(self.bins, bool) or not isinstance(self.bins, int) or not 1 <= self.bins <= 10_000:
            raise UserError(f"Convention.bins = {self.bins!r} is not allowed; give an integer from 1 to 10000")
        if self.thresholds is not None:
            try:
                levels = tuple(float(t) for t in self.thresholds)
            except (TypeError, ValueError):
                levels = ()
            if not levels or not all(0 <= t < 1 for t in levels):
                raise UserError(f"Convention.thresholds = {self.thresholds!r} is not allowed; give numbers in [0, 1)")
            object.__setattr__(self, "thresholds", levels)
        # Conventions are keys of every cache of a case; hashing the fields each time would cost more than some metrics.
        object.__setattr__(self, "_hash", hash(tuple(getattr(self, f.name) for f in fields(self) if f.compare)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def single(self) -> bool:
        """Whether ratios, mean maps and confidences are rounded to float32."""
        return self.dtype in ("float32", "float32_sum")

    def differences(self) -> dict[str, Any]:
        """The fields that differ from the canonical convention."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.compare and getattr(self, f.name) is not f.default and getattr(self, f.name) != f.default
        }


def _number(convention: Convention, name: str) -> float:
    value = getattr(convention, name)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"Convention.{name} = {value!r} is not allowed; give a number") from error


CANONICAL = Convention()
FAMILIES = (
    "ged",
    "hm",
    "dice",
    "map",
    "rater",
    "uncertainty",
    "insight",
    "calibration",
    "surface",
    "volume",
    "saliency",
    "agreement",
)
