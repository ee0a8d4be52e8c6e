"""Uncertainty maps, likelihood and entropy (sections 2.5 and 9)."""

from __future__ import annotations

from ..registry import MEAN, table

table(
    "correlation",
    "2.5",
    "uncertainty",
    {"ncc": ("ncc", "correlation of the samples' cross entropy with themselves and with each rater (PHiSeg's S_NCC)")},
    direction="higher",
    range=(-1.0, 1.0),
    worst=-1.0,
    depends_on_samples=True,
    empty="masks may be empty; a constant map of the samples: 0 (undefined if the raters are identical); "
    "a constant map of a rater is left out",
    needs=("samples|probs|mean_log",),
)
table(
    "correlation",
    "2.5",
    "uncertainty",
    {
        "ncc.variance": (
            "ncc_variance",
            "correlation of the raters' pixel-wise variance with the predicted one (ValUES)",
        )
    },
    direction="higher",
    range=(-1.0, 1.0),
    worst=-1.0,
    depends_on_samples=True,
    empty="masks may be empty; undefined if the raters' variance is the same everywhere, 0 if the predicted one is",
    needs=("samples|probs|mean_prob|uncertainty",),
)
table(
    "likelihood",
    "9",
    "uncertainty",
    {"sample_nll": ("sample_nll", "negative log of the mean likelihood of a rater's mask under the samples (SSN)")},
    direction="lower",
    range=(0.0, float("inf")),
    worst=float("inf"),
    unit="nat",
    depends_on_samples=True,
    empty="masks may be empty; infinite where a rater's mask is impossible under every sample",
    needs=("probs",),
)
table(
    "likelihood",
    "9",
    "uncertainty",
    {"entropy_mean": ("entropy_mean", "entropy of the mean map over log C, mean over the pixels (SSN)")},
    range=(0.0, 1.0),
    depends_on_samples=True,
    empty="masks may be empty",
    needs=MEAN,
)
