"""The table of built-in methods: where each lives and what `multirater list` says of it (no torch import).

A test compares the capabilities written here with the class attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.registry import Registry

if TYPE_CHECKING:
    from .base import Method

METHODS: Registry[type[Method]] = Registry("method", "multirater.methods", "multirater.methods.base:Method")

METHODS.add(
    "dpersona",
    "multirater.methods.dpersona:DPersona",
    summary="D-Persona: bound-constrained diverse latent space, then per-expert attention prompts",
    paper="Wu et al., CVPR 2024, arXiv 2403.13417",
    gives_samples=True,
    gives_raters=True,
    needs_identity=True,
)
METHODS.add(
    "prob_unet",
    "multirater.methods.prob_unet:ProbUNet",
    summary="Probabilistic U-Net (variants tf, pt, dp)",
    paper="Kohl et al., NeurIPS 2018, arXiv 1806.05034",
    gives_samples=True,
    gives_raters=False,
    needs_identity=False,
)
METHODS.add(
    "unet_majority",
    "multirater.methods.baselines:UNetMajority",
    summary="U-Net on the majority vote",
    paper="baseline B2",
    gives_samples=False,
    gives_raters=False,
    needs_identity=False,
)
METHODS.add(
    "unet_soft",
    "multirater.methods.baselines:UNetSoft",
    summary="U-Net on the mean of the raters; samples are nested level sets",
    paper="baseline B3",
    gives_samples=True,
    gives_raters=False,
    needs_identity=False,
)
METHODS.add(
    "unet_label_sampling",
    "multirater.methods.baselines:UNetLabelSampling",
    summary="U-Net on one rater drawn per image and step; samples are nested level sets",
    paper="baseline B5",
    gives_samples=True,
    gives_raters=False,
    needs_identity=False,
)
