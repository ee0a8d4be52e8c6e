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
======== ======================================================================================

This module needs the standard library only, so that names can be listed at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Literal

from ..core.errors import UserError, unknown

FIVE_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
NINE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

_ALLOWED: dict[str, tuple[Any, ...]] = {
    "distance": ("iou", "dice"),
    "diagonal": ("include", "exclude", "debiased"),
    "classes": ("fixed", "skip", "with_background", "micro"),
    "pairs": ("mean", "pooled"),
    "binarise": ("gt_half", "argmax", "sigmoid_left"),
    "dtype": ("float64", "float32", "float32_sum"),
    "missing_sample_policy": ("replicate", "error"),
    "rater_nan": ("propagate", "omit"),
    "each": (None, "matched", "identity"),
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
        dtype: only to match published digits: ``float32`` rounds ratios and mean maps; ``float32_sum`` also adds the
            pairs of GED one by one in float32 (an error of about 2e-6 at S = 50).
        missing_sample_policy: fewer samples than raters in `dice_match`: ``replicate`` the samples, or ``error``.
        rater_nan: a nan among the rater pairs: ``propagate``, or ``omit`` it from the mean.
        match_nan: value of `hm_iou` if its matrix has nan (default nan: undefined).
        empty_reference: similarity to a rater mask that is empty, whatever was predicted; None: no such rule.
        thresholds: levels of `dice_soft` and `iou_soft`; None: 0.1, 0.3, 0.5, 0.7, 0.9.
        each: what the legacy list `dice_each` pairs by: ``matched``, ``identity``, or None (not reported).

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
    dtype: Literal["float64", "float32", "float32_sum"] = "float64"
    missing_sample_policy: Literal["replicate", "error"] = "replicate"
    rater_nan: Literal["propagate", "omit"] = "propagate"
    match_nan: float = math.nan
    empty_reference: float | None = None
    thresholds: tuple[float, ...] | None = None
    each: Literal["matched", "identity"] | None = None
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
        for name in ("smooth_num", "smooth_den"):
            if not 0 <= _number(self, name) < math.inf:
                raise UserError(f"Convention.{name} = {getattr(self, name)!r} is not allowed; give a number >= 0")
        if self.sample_cap is not None and (not isinstance(self.sample_cap, int) or self.sample_cap < 1):
            raise UserError(f"Convention.sample_cap = {self.sample_cap!r} is not allowed; give an integer >= 1 or None")
        if self.thresholds is not None:
            levels = tuple(float(t) for t in self.thresholds)
            if not levels or not all(0 <= t < 1 for t in levels):
                raise UserError(f"Convention.thresholds = {self.thresholds!r} is not allowed; give numbers in [0, 1)")
            object.__setattr__(self, "thresholds", levels)
        # Conventions are keys of every cache of a case; hashing the fields each time would cost more than some metrics.
        object.__setattr__(self, "_hash", hash(tuple(getattr(self, f.name) for f in fields(self) if f.compare)))

    def __hash__(self) -> int:
        return self._hash

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
FAMILIES = ("ged", "hm", "dice", "map", "rater")

_TINY = {"smooth_num": 1e-8, "smooth_den": 1e-8, "dtype": "float32"}
_MOSE_SEVERAL = {**_TINY, "classes": "skip", "empty_similarity": math.nan, "match_nan": 0.0}
_CIMD = {"smooth_num": 1e-5, "smooth_den": 1e-5, "binarise": "sigmoid_left"}
_DPERSONA: dict[str, dict[str, Any]] = {
    # In several classes an absent class is 0/(0 + 1e-8) = 0 too: a disagreement.
    "ged": {"empty_similarity": 0.0, "smooth_den": 1e-8},
    "dice": {**_TINY, "missing_sample_policy": "error", "each": "matched"},
    "map": _TINY,
    "rater": _TINY,
}
_TAB = {"smooth_num": 1e-6, "smooth_den": 1e-6, "dtype": "float32"}
# The smoothing of 1e-4 is not in the table of variants of the specification, but in the released function.
_PIONONO = {"smooth_num": 1e-4, "smooth_den": 1e-4, "empty_reference": 1.0}

# family -> fields that differ from canonical; "several:<family>" replaces it if more than one class is evaluated.
_VARIANTS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "canonical": ("the conventions of this suite", {}),
    "kohl": (
        "Probabilistic U-Net (TensorFlow): pairs of empty masks are nan",
        {"ged": {"empty_similarity": math.nan, "classes": "skip", "dtype": "float32", "rater_nan": "omit"}},
    ),
    "phiseg": ("PHiSeg: as canonical for the metrics here", {}),
    "unetzoo": ("UNet-Zoo: as PHiSeg", {}),
    "ssn": ("SSN: GED and diversity of the first 20 samples", {"ged": {"sample_cap": 20}}),
    "mmatting": (
        "MedicalMatting: Dice smoothed by 1 (as in its released function); GED as canonical",
        {"dice": {"smooth_num": 1.0, "smooth_den": 1.0, "dtype": "float32"}},
    ),
    "ccdm": ("CCDM: as canonical", {}),
    "berdiff": ("BerDiff: soft Dice smoothed by 1e-6", {"map": {"smooth_num": 1e-6, "smooth_den": 1e-6}}),
    "car": ("CAR: as canonical", {}),
    "mose": (
        "MoSE: smoothing 1e-8; several classes: absent ones skipped, a matrix with nan gives hm_iou 0",
        {"ged": _TINY, "hm": _TINY, "several:ged": _MOSE_SEVERAL, "several:hm": _MOSE_SEVERAL},
    ),
    "cimd": (
        "CIMD: smoothing 1e-5, left masks binarised through a second sigmoid",
        {"ged": _CIMD, "hm": _CIMD, "dice": _CIMD},
    ),
    "dpersona": ("D-Persona: empty against empty is distance 1; dice_each Hungarian-matched, as released", _DPERSONA),
    "dpersona_identity": (
        "D-Persona with dice_each paired by index",
        {**_DPERSONA, "dice": {**_DPERSONA["dice"], "each": "identity"}},
    ),
    "tab": (
        "TAB, PADL: GED without the diagonal, smoothing 1e-6",
        {"ged": {**_TAB, "diagonal": "exclude", "dtype": "float32_sum"}, "map": _TAB, "rater": _TAB},
    ),
    "values": (
        "ValUES: GED from one Dice over all pairs; empty against empty is 0",
        {
            "ged": {"distance": "dice", "pairs": "pooled", "empty_similarity": 0.0, "classes": "micro"},
            "dice": {"empty_similarity": 0.0, "classes": "micro"},
        },
    ),
    "qubiq": ("QUBIQ: nine thresholds", {"map": {"thresholds": NINE_LEVELS}}),
    "pionono": (
        "Pionono: Dice 1 if the reference is empty (pooled over the data set in `multirater score`)",
        {"dice": _PIONONO, "map": _PIONONO, "rater": _PIONONO},
    ),
}


def list_variants() -> list[str]:
    """Names of the variants, canonical first."""
    return list(_VARIANTS)


def variant_summary(name: str) -> str:
    """One line on a variant.

    Raises:
        UserError: unknown name, with the nearest valid one.
    """
    return _lookup(name)[0]


def _lookup(name: str) -> tuple[str, dict[str, dict[str, Any]]]:
    if name not in _VARIANTS:
        raise unknown("variant", str(name), _VARIANTS)
    return _VARIANTS[name]


def conventions_of(variant: str | Convention | None, several: bool = False) -> Mapping[str, Convention]:
    """The convention of each family under a variant.

    Args:
        variant: a name, a `Convention` (used for every family), or None for canonical.
        several: more than one class is evaluated.

    Raises:
        UserError: unknown name, with the nearest valid one, or something that is no variant.
    """
    if not (variant is None or isinstance(variant, str | Convention)):
        raise UserError(f"variant = {variant!r} is not allowed; give a name, a Convention or None")
    return _conventions(variant, several)


@lru_cache(maxsize=256)
def _conventions(variant: str | Convention | None, several: bool) -> Mapping[str, Convention]:
    if variant is None:
        return dict.fromkeys(FAMILIES, CANONICAL)
    if isinstance(variant, Convention):
        return dict.fromkeys(FAMILIES, variant)
    given = _lookup(variant)[1]
    chosen = {family: given.get(family, {}) for family in FAMILIES}
    if several:
        chosen = {family: given.get(f"several:{family}", differing) for family, differing in chosen.items()}
    return {family: Convention(**differing) for family, differing in chosen.items()}
