"""Other numbers that papers and challenges report (section 9)."""

from __future__ import annotations

from ..registry import EMPTY_SIMILARITY, MEAN, table

for _values, _suffix, _of in (("scalar", "", ""), ("class", ".per_class", " of each class")):
    _name = _suffix.replace(".", "_")
    table(
        "unanimity",
        "9",
        "volume",
        {
            f"consensus_dice{_suffix}": (
                f"consensus_dice{_name}",
                f"Dice{_of} of the mean map's mask where all raters agree (CURVAS)",
            )
        },
        direction="higher",
        range=(0.0, 1.0),
        worst=0.0,
        depends_on_samples=True,
        empty=EMPTY_SIMILARITY,
        needs=MEAN,
        values=_values,
    )
    table(
        "unanimity",
        "9",
        "calibration",
        {
            f"consensus_confidence{_suffix}": (
                f"consensus_confidence{_name}",
                f"mean probability{_of} where all raters agree, both sides (CURVAS)",
            )
        },
        direction="higher",
        range=(0.0, 1.0),
        worst=0.0,
        empty="undefined if the raters share no pixel of foreground or none of background",
        needs=MEAN,
        values=_values,
    )
    table(
        "volume",
        "9",
        "volume",
        {
            f"volume_crps{_suffix}": (
                f"volume_crps{_name}",
                f"ranked probability score of the predicted volume{_of}, raters as a normal distribution (CURVAS)",
            )
        },
        direction="lower",
        range=(0.0, float("inf")),
        unit="mm^2, mm^3, or pixels without spacing",
        depends_on_samples=True,
        empty="an empty mask has volume 0; equal volumes: the absolute difference",
        needs=MEAN,
        values=_values,
    )
table(
    "volume",
    "9",
    "volume",
    {"volume_crps.ensemble": ("volume_crps_ensemble", "ranked probability score of the volume, raters as they are")},
    direction="lower",
    range=(0.0, float("inf")),
    unit="mm^2, mm^3, or pixels without spacing",
    depends_on_samples=True,
    empty="an empty mask has volume 0",
    needs=MEAN,
)
table(
    "saliency",
    "9",
    "saliency",
    {"fmeasure": ("fmeasure", "saliency F, beta^2 = 0.3, of the scaled mean map at twice its mean (MR-Net's file)")},
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    depends_on_samples=True,
    empty="0 for an empty rater",
    needs=MEAN,
)
table(
    "saliency",
    "9",
    "saliency",
    {"mae": ("mae", "mean absolute difference of the scaled mean map and a rater's mask (MR-Net's file)")},
    direction="lower",
    range=(0.0, 1.0),
    worst=1.0,
    depends_on_samples=True,
    empty="an empty rater scores the mean of the scaled map",
    needs=MEAN,
)
