"""Agreement of the raters of a case, STAPLE included (section 7)."""

from __future__ import annotations

from typing import Any

from ..registry import EMPTY_SIMILARITY, table

# Agreement says how hard the data are, not how good a method is: no value replaces a missing one.
_SHARED: dict[str, Any] = {"needs": (), "worst": None, "pixels": False}
_KAPPA = "undefined where only one label occurs, as where all raters are empty"

table(
    "agreement",
    "7",
    "agreement",
    {
        "pairwise_dice": ("pairwise_dice", "mean Dice over pairs of raters"),
        "pairwise_iou": ("pairwise_iou", "mean IoU over pairs of raters"),
    },
    direction="higher",
    range=(0.0, 1.0),
    empty=EMPTY_SIMILARITY,
    **_SHARED,
)
table(
    "agreement",
    "7",
    "agreement",
    {"gci": ("gci", "generalised conformity index: summed intersections over summed unions of all pairs")},
    direction="higher",
    range=(0.0, 1.0),
    empty="1 if all raters are empty",
    **_SHARED,
)
for _name, _what in {
    "fleiss_kappa": "Fleiss' kappa of the raters",
    "cohen_kappa": "Cohen's kappa, mean over pairs of raters",
    "krippendorff": "Krippendorff's alpha (nominal) of the raters",
}.items():
    for _region, _mark, _where in (("box", "", "the box around the raters"), ("full", "_full", "all pixels")):
        table(
            "agreement",
            "7",
            "agreement",
            {_name + _mark.replace("_", "."): (_name + _mark, f"{_what}, over {_where}")},
            direction="higher",
            range=(-1.0, 1.0),
            empty=_KAPPA,
            region=_region,
            base=_name if _mark else "",
            **_SHARED,
        )
for _region, _mark, _where in (("box", "", "the box around the raters"), ("full", "_full", "all pixels")):
    table(
        "agreement",
        "7",
        "agreement",
        {"vote_histogram" + _mark.replace("_", "."): ("vote_histogram" + _mark, f"shares of votes over {_where}")},
        direction="none",
        range=(0.0, 1.0),
        empty="all pixels have no vote if all raters are empty",
        region=_region,
        base="vote_histogram" if _mark else "",
        values="votes",
        **_SHARED,
    )

_STAPLE: dict[str, Any] = {"direction": "higher", "range": (0.0, 1.0), "region": "box", **_SHARED}
table(
    "staple",
    "7",
    "agreement",
    {"staple.dice": ("staple_dice", "mean Dice of the raters with the mask that STAPLE estimates")},
    empty=EMPTY_SIMILARITY,
    **_STAPLE,
)
table(
    "staple",
    "7",
    "agreement",
    {"staple.dice.each": ("staple_dice_each", "staple.dice of every rater slot")},
    empty=EMPTY_SIMILARITY,
    values="rater",
    **_STAPLE,
)
table(
    "staple",
    "7",
    "agreement",
    {
        "staple.sensitivity.each": ("staple_sensitivity_each", "sensitivity of every rater slot by STAPLE"),
        "staple.specificity.each": ("staple_specificity_each", "specificity of every rater slot by STAPLE"),
    },
    empty="sensitivity is undefined if all raters are empty, specificity if all mark the whole region",
    values="rater",
    **_STAPLE,
)
