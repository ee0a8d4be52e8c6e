"""Collective insight and mode frequencies (sections 2.6 and 2.7)."""

from __future__ import annotations

from ..registry import EMPTY_DISTANCE, EMPTY_SIMILARITY, SAMPLES, table

table(
    "insight",
    "2.6",
    "insight",
    {"combined_sensitivity": ("combined_sensitivity", "share of the raters' union that the samples' union covers")},
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    depends_on_samples=True,
    empty="1 if no rater marks anything",
    needs=SAMPLES,
)
table(
    "insight",
    "2.6",
    "insight",
    {
        "diversity_agreement": (
            "diversity_agreement",
            "agreement of the largest and smallest 1 - Dice within both sets",
        ),
        "diversity_agreement.variance": (
            "diversity_agreement_variance",
            "diversity_agreement with the pixel-wise variance of a pair",
        ),
    },
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    depends_on_samples=True,
    empty=EMPTY_DISTANCE,
    needs=SAMPLES,
    pixels=False,
)
table(
    "insight",
    "2.6",
    "insight",
    {"ci": ("ci", "collective insight: harmonic mean of sensitivity, d_max and diversity agreement (CIMD)")},
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    depends_on_samples=True,
    empty=f"0 if a part is 0; {EMPTY_SIMILARITY}",
    needs=SAMPLES,
)
table(
    "modes",
    "2.7",
    "ged",
    {"mode_tv": ("mode_tv", "total variation between how often samples and raters take each rater's mask")},
    direction="lower",
    range=(0.0, 1.0),
    worst=1.0,
    depends_on_samples=True,
    empty=EMPTY_DISTANCE,
    needs=SAMPLES,
    pixels=False,
)
