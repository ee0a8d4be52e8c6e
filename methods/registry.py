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
    "mrnet",
    "multirater.methods.mrnet:MRNet",
    summary="MR-Net: expertness vector at the bottleneck, multi-rater reconstruction, disagreement as attention",
    paper="Ji et al., CVPR 2021",
    gives_samples=False,
    gives_raters=True,
    needs_identity=True,
    multiclass=True,
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
for _name, _target, _summary, _paper, _samples, _raters in (
    ("unet_per_rater", "baselines_raters:UNetPerRater", "one U-Net per rater", "B1", True, True),
    ("unet_majority", "baselines:UNetMajority", "U-Net on the majority vote", "B2", False, False),
    ("unet_soft", "baselines:UNetSoft", "U-Net on the mean of the raters; nested level sets", "B3", True, False),
    ("unet_multihead", "baselines_raters:UNetMultiHead", "U-Net with one output per rater", "B4a", True, True),
    ("unet_multidecoder", "baselines_raters:UNetMultiDecoder", "one encoder, a decoder per rater", "B4b", True, True),
    (
        "unet_label_sampling",
        "baselines:UNetLabelSampling",
        "U-Net on one rater drawn per image and step; nested level sets",
        "B5",
        True,
        False,
    ),
    ("ensemble", "baselines_ensembles:Ensemble", "deep ensemble of label-sampling U-Nets", "B6", True, False),
    (
        "mc_dropout",
        "baselines_ensembles:MCDropout",
        "label-sampling U-Net with dropout at test time",
        "B7",
        True,
        False,
    ),
    ("unet_staple", "baselines:UNetStaple", "U-Net on the STAPLE estimate", "B8", False, False),
):
    METHODS.add(
        _name,
        f"multirater.methods.{_target}",
        summary=_summary,
        paper=f"baseline {_paper}",
        gives_samples=_samples,
        gives_raters=_raters,
        needs_identity=_raters,
        multiclass=True,
    )
METHODS.add(
    "pionono",
    "multirater.methods.pionono:Pionono",
    summary="Pionono: a Gaussian per rater in a small latent space, fused with the features",
    paper="Schmidt et al., ICCV 2023, arXiv 2307.11397",
    gives_samples=True,
    gives_raters=True,
    needs_identity=True,
    multiclass=True,
)
METHODS.add(
    "phiseg",
    "multirater.methods.phiseg:PHiSeg",
    summary="PHiSeg: a latent map per resolution, segmentation built coarse to fine (7_5, 7_1)",
    paper="Baumgartner et al., MICCAI 2019, arXiv 1906.04045",
    gives_samples=True,
    gives_raters=False,
    needs_identity=False,
    multiclass=True,
)
METHODS.add(
    "tab",
    "multirater.methods.tab:TAB",
    summary="TAB: a transformer query per rater and one for the consensus, each a low-rank Gaussian over masks",
    paper="Liao et al., MICCAI 2023, arXiv 2306.01340",
    gives_samples=True,
    gives_raters=True,
    needs_identity=True,
    multiclass=True,
)
METHODS.add(
    "cm_global",
    "multirater.methods.confusion_matrix:CMGlobal",
    summary="CM-Global: the truth and one confusion matrix per rater",
    paper="Tanno et al., CVPR 2019; Zhang et al., NeurIPS 2020, arXiv 2007.15963",
    gives_samples=False,
    gives_raters=True,
    needs_identity=True,
    multiclass=True,
)
METHODS.add(
    "cm_pixel",
    "multirater.methods.confusion_matrix:CMPixel",
    summary="CM-Pixel: the truth and one confusion matrix per rater and pixel",
    paper="Zhang et al., NeurIPS 2020, arXiv 2007.15963",
    gives_samples=False,
    gives_raters=True,
    needs_identity=True,
    multiclass=True,
)
