"""The named variants: which conventions reproduce the numbers of each released evaluation.

This module needs the standard library only, so that names can be listed at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..core.errors import UserError, unknown
from .convention import CANONICAL, FAMILIES, NINE_LEVELS, Convention

_TINY = {"smooth_num": 1e-8, "smooth_den": 1e-8, "dtype": "float32"}
_MOSE_SEVERAL = {**_TINY, "classes": "skip", "empty_similarity": math.nan, "match_nan": 0.0}
_MOSE_BINS = {"binning": "mose", "dtype": "float32", "region": "full"}
_CAR_SEVERAL = {"classes": "skip", "empty_similarity": math.nan, "dtype": "float32"}
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
    "phiseg": ("PHiSeg: NCC without guards, a constant map gives nan or noise", {"uncertainty": {"ncc": "plain"}}),
    "unetzoo": ("UNet-Zoo: as PHiSeg", {"uncertainty": {"ncc": "plain"}}),
    "ssn": (
        "SSN: GED and diversity of the first 20 samples",
        {"ged": {"sample_cap": 20}, "uncertainty": {"entropy_epsilon": 1e-10}},
    ),
    "mmatting": (
        "MedicalMatting: Dice smoothed by 1 (as in its released function); GED as canonical",
        {"dice": {"smooth_num": 1.0, "smooth_den": 1.0, "dtype": "float32"}},
    ),
    "ccdm": ("CCDM: as canonical", {}),
    "berdiff": (
        "BerDiff: soft Dice smoothed by 1e-6, of the mean map in the precision of the probabilities",
        {"map": {"smooth_num": 1e-6, "smooth_den": 1e-6, "dtype": "given"}},
    ),
    "car": (
        "CAR: binary as canonical; several classes: absent ones skipped",
        {"several:ged": _CAR_SEVERAL, "several:hm": _CAR_SEVERAL},
    ),
    "mose": (
        "MoSE: smoothing 1e-8; several classes: absent ones skipped, a matrix with nan gives hm_iou 0; "
        "ECE over all pixels with p = 0 in no bin, several classes: of the top label",
        {
            "ged": _TINY,
            "hm": _TINY,
            "several:ged": _MOSE_SEVERAL,
            "several:hm": _MOSE_SEVERAL,
            "calibration": _MOSE_BINS,
            "several:calibration": {**_MOSE_BINS, "confidence": "top_evaluated"},
        },
    ),
    "cimd": (
        "CIMD: smoothing 1e-5, left masks binarised through a second sigmoid; ci in its printed form",
        {
            "ged": _CIMD,
            "hm": _CIMD,
            "dice": _CIMD,
            "insight": {**_CIMD, "ci": "printed"},
        },
    ),
    "dpersona": ("D-Persona: empty against empty is distance 1; dice_each Hungarian-matched, as released", _DPERSONA),
    "dpersona_identity": (
        "D-Persona with dice_each paired by index",
        {**_DPERSONA, "dice": {**_DPERSONA["dice"], "each": "identity"}},
    ),
    "tab": (
        "TAB: GED without the diagonal, smoothing 1e-6 (PADL: the same Dice; its IoU is smoothed by 1)",
        {"ged": {**_TAB, "diagonal": "exclude", "dtype": "float32_sum"}, "map": _TAB, "rater": _TAB},
    ),
    "values": (
        "ValUES: GED from one Dice over all pairs; empty against empty is 0",
        {
            "ged": {"distance": "dice", "pairs": "pooled", "empty_similarity": 0.0, "classes": "micro"},
            "dice": {"empty_similarity": 0.0, "classes": "micro"},
            "uncertainty": {"ncc": "variance"},
            "calibration": {"bins": 20, "binning": "values", "region": "full"},
        },
    ),
    "qubiq": ("QUBIQ: nine thresholds", {"map": {"thresholds": NINE_LEVELS}}),
    "curvas": (
        "CURVAS: volume score integrated over three standard deviations, consensus Dice of the rows of a volume, "
        "ECE of the top label in 50 bins (file of 2024)",
        {
            "volume": {"crps": "truncated", "consensus": "lines"},
            "calibration": {
                "bins": 50,
                "binning": "torchmetrics",
                "confidence": "top_rebuilt",
                "dtype": "float32",
                "region": "full",
            },
        },
    ),
    "metrics_reloaded": (
        "MetricsReloaded: ECE over all pixels but those with p = 0",
        {"calibration": {"binning": "metrics_reloaded", "region": "full"}},
    ),
    "pionono": (
        "Pionono: Dice 1 if the reference is empty (pooled over the data set in `multirater score`)",
        {"dice": _PIONONO, "map": _PIONONO, "rater": _PIONONO},
    ),
    "monai": (
        "MONAI: surface metrics in float32; nan or infinity where masks are empty",
        {"surface": {"surface": "monai"}},
    ),
    "medpy": (
        "MedPy: percentiles of both directed lists together; undefined where a mask is empty",
        {"surface": {"surface": "medpy"}},
    ),
    "deepmind": (
        "surface-distance (DeepMind): surface elements weighted by length or area, percentiles not interpolated",
        {"surface": {"surface": "deepmind"}},
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
