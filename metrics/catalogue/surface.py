"""Distances between the borders of masks (section 6)."""

from __future__ import annotations

from ..registry import ANY_MAP, SAMPLES, table

# Beyond every distance between two borders of the image; its length differs from case to case, so `worst` is None:
# `multirater.metrics.surface.image_diagonal` gives it.
_EMPTY_DISTANCE = "both empty: 0; one empty: the image diagonal"
_EMPTY_SHARE = "both empty: 1; one empty: 0"

_MEASURES = (
    ("hd", "Hausdorff distance", ("percentile", 0.0, 100.0)),
    ("hd95", "95th percentile Hausdorff distance", None),
    ("assd", "average symmetric surface distance", None),
    ("nsd", "share of the borders within a tolerance (default: one pixel)", ("tolerance in mm", 0.0, float("inf"))),
)
# suffix, ending of the summary, depends on S, inputs, values
_FORMS = (
    ("", "of each rater and its map, mean over raters", False, ANY_MAP, "scalar"),
    (".each", "of every rater slot and its map", False, ANY_MAP, "rater"),
    (".mean", "of all pairs of rater and sample, mean", False, SAMPLES, "scalar"),
    (".best", "of each rater and its best sample, mean over raters", True, SAMPLES, "scalar"),
    (".match", "of each rater and a distinct sample, best assignment, mean over raters", True, SAMPLES, "scalar"),
)

for _id, _label, _parameter in _MEASURES:
    for _suffix, _of, _grows, _needs, _values in _FORMS:
        _share = _id == "nsd"
        table(
            "surface",
            "6",
            "surface",
            {f"{_id}{_suffix}": (f"{_id}{_suffix}".replace(".", "_"), f"{_label} {_of}")},
            direction="higher" if _share else "lower",
            range=(0.0, 1.0 if _share else float("inf")),
            unit="" if _share else "mm, or pixels without spacing",
            worst=0.0 if _share else None,
            depends_on_samples=_grows,
            empty=_EMPTY_SHARE if _share else _EMPTY_DISTANCE,
            needs=_needs,
            values=_values,
            parameter=_parameter,
        )
