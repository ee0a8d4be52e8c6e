"""Calibration of probabilities (section 5); each over the box around the raters, and over all pixels (``.full``)."""

from __future__ import annotations

import math
from typing import Any

from ..registry import MEAN, PERSONAL, table

# What a probability of 1e-6 for what happens costs: the logarithms are clipped there.
_WORST_LOG = -math.log(1e-6)

_ANY = "an empty mask is an answer; all raters empty: the full image instead of the box"


def _add(section: str, rows: dict[str, tuple[str, str]], **shared: Any) -> None:
    for region, mark in (("box", ""), ("full", ".full")):
        for name, (function, summary) in rows.items():
            table(
                "calibration",
                section,
                "calibration",
                {name + mark: (function + mark.replace(".", "_"), summary + (", over all pixels" if mark else ""))},
                direction="lower",
                empty=_ANY,
                pixels=False,
                region=region,
                base=name if mark else "",
                **shared,
            )


_UNIT: dict[str, Any] = {"range": (0.0, 1.0), "worst": 1.0}
_LOG: dict[str, Any] = {"range": (0.0, _WORST_LOG), "worst": _WORST_LOG, "unit": "nats"}
# The mean of S samples is noisy, and all of these see the noise: at larger S they fall.
_MAP: dict[str, Any] = {"needs": MEAN, "depends_on_samples": True}

_add(
    "5.1",
    {
        "brier": ("brier", "mean squared difference of mean map and vote share"),
        "brier.raters": ("brier_raters", "mean squared difference of mean map and each rater's mask"),
    },
    **_UNIT,
    **_MAP,
)
_add(
    "5.1",
    {
        "nll": ("nll", "cross entropy of vote share and mean map clipped to [1e-6, 1 - 1e-6]"),
        "nll.excess": ("nll_excess", "nll less the entropy of the vote share"),
    },
    **_LOG,
    **_MAP,
)
_add(
    "5.1",
    {
        "ece": ("ece_map", "expected calibration error of the mean map against the vote share, 10 bins"),
        "mce": ("mce", "largest calibration gap of a bin"),
        "ace": ("ace", "mean calibration gap over bins of equal mass (adaptive)"),
        "ace.width": ("ace_width", "mean calibration gap over non-empty bins of equal width (average)"),
        "ece.top": ("ece_top", "expected calibration error of the top label, background included"),
    },
    **_UNIT,
    **_MAP,
)
_add(
    "5.2",
    {
        "ece.each": ("ece_each", "ece of the mean map against each rater, mean over raters; above 0 where they differ"),
        "ece.disagree": ("ece_disagree", "ece on the pixels on which the raters disagree"),
    },
    **_UNIT,
    **_MAP,
)
_add(
    "5.2",
    {"ece.each.list": ("ece_each_list", "ece of the mean map against every rater slot (CURVAS)")},
    values="rater",
    **_UNIT,
    **_MAP,
)
_add(
    "5.2",
    {
        "ece.rater": ("ece_rater", "ece of each personalised map against its rater, mean over raters"),
        "brier.rater": ("brier_rater", "mean squared difference of each personalised map and its rater's mask"),
    },
    needs=PERSONAL,
    **_UNIT,
)
_add(
    "5.2",
    {"nll.rater": ("nll_rater", "cross entropy of each rater's mask and its personalised map, clipped")},
    needs=PERSONAL,
    **_LOG,
)
