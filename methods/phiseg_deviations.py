"""Where PHiSeg here differs from the authors' TensorFlow code, and which option goes back."""

from __future__ import annotations

from .base import Deviation

DEVIATIONS = (
    Deviation(
        "upsampled codes that nothing reads",
        "every code is also brought to all finer levels: 6 of 10 branches of prior and posterior are dead",
        "left out",
        "",
        "17.8 instead of 18.7 million parameters at 7_5, the same numbers",
    ),
    Deviation(
        "upsampling",
        "bilinear without half-pixel centres, as TensorFlow 1 does it",
        "the same stencil; PyTorch's half-pixel centres by option",
        "upsample=half_pixel leaves the authors' way",
        "the stencil moves a map by half a fine pixel a level",
    ),
    Deviation(
        "batch-norm statistics",
        "running statistics of prior and likelihood move twice a step: the training graph also runs the prior on its "
        "own codes and the likelihood on those",
        "the same, by an extra pass without gradient; the prior's encoder, whose statistics are equal both times, runs "
        "once and counts twice",
        "bn_generative_update=false leaves the authors' way",
        "without it the likelihood's statistics know posterior codes only and prior samples are normalised wrongly",
    ),
    Deviation(
        "kernel of the coarsest mean",
        "3x3, all other latent heads 1x1",
        "the same",
        "top_mean_kernel=1 leaves the authors' way",
    ),
    Deviation(
        "deep supervision",
        "always on; the configuration key deep_supervision is read by nothing",
        "on; can be switched off",
        "deep_supervision=false leaves the authors' way",
    ),
    Deviation(
        "cross-entropy of the levels",
        "every level brought to full resolution, summed, scored there",
        "a sum of coarse levels is scored at its own resolution against the mean of the mask over each block",
        "",
        "the same numbers, faster",
    ),
    Deviation(
        "KL",
        "in the network's precision",
        "in single precision at least; the formula with its 1e-10 is kept",
        "",
        "matters under autocast only",
    ),
    Deviation(
        "standard deviation of the codes",
        "softplus without floor, the heads with He weights like all layers: where features are heavy-tailed the first "
        "KL can be of the order of 1e9, which Adam's second moment remembers for a thousand steps",
        "the same; the presets smoke and quick start the heads at a tenth of their weights; a floor by option",
        "latent_scale=1, std_floor=0",
        "a training of hundreds of steps learns; one of the authors' length forgets its start",
    ),
    Deviation(
        "scaling of the image",
        "a z-score is computed and thrown away: what enters is the intensity in [0, 1] minus 0.5",
        "minus 0.5",
        "centre_image",
        "none",
    ),
    Deviation(
        "augmentation",
        "rotation up to 10 degrees and a crop of 98 to 128 pixels resized to 128, for half of the images; flips are "
        "set in the configuration and read under another name, so that none takes effect",
        "the suite's, the same for all methods",
        "train.augment=none is the nearest; the authors' is not offered",
    ),
    Deviation(
        "initial bias of the output",
        "0",
        "0; the presets smoke and quick start foreground at -4, on the coarsest level, which is part of every sum",
        "output_bias=null",
        "a short training need not first learn that foreground is rare",
    ),
    Deviation(
        "sampling",
        "the whole network, encoder included, once a sample",
        "encoder and coarsest level once an image, finer levels and likelihood on all samples in one batch, batch norm "
        "folded into the weights",
        "",
        "the same numbers, faster",
    ),
    Deviation(
        "overlapping classes",
        "not possible",
        "one sigmoid channel a class instead of a softmax; the posterior sees each mask - 0.5",
        "",
        "none on binary and exclusive data",
    ),
    Deviation(
        "missing raters",
        "every image has all masks",
        "the target is drawn among the raters present; an image without any counts for nothing",
        "",
        "none on complete data",
    ),
    Deviation(
        "data order",
        "batches without replacement, the remainder of a pass dropped",
        "the same, with seeded passes",
    ),
    Deviation(
        "choice of the checkpoint",
        "one each for loss, Dice over both classes, GED and NCC, by the first 100 validation images; the published row "
        "takes each number from another of them",
        "one, by GED on all validation patients",
        "",
        "one network answers for all numbers of a row",
    ),
    Deviation(
        "noise at prediction",
        "unseeded",
        "seeded per image, drawn for all levels first",
        "",
        "repeatable; the first S of n samples do not depend on n",
    ),
)
