"""Where TAB here differs from the authors' released code, and which option goes back."""

from __future__ import annotations

from .base import Deviation

DEVIATIONS = (
    Deviation(
        "source",
        "a repository without a licence",
        "written from the paper and from the behaviour of the code; nothing is copied",
        "",
        "parameter counts and shapes are those of the code; its trained weights were never run here",
    ),
    Deviation(
        "covariance factors",
        "the factor head's C·k×H×W output is reinterpreted in memory as C·H·W rows of k: the k factors of a pixel are "
        "neighbouring values of one channel, taken from elsewhere in the image",
        "factor j of class c is a channel of its own, at its own pixel",
        "factor_layout=reinterpreted or fidelity=authors",
        "the factors of a pixel come from that pixel's features",
    ),
    Deviation(
        "samples at test",
        "every pixel on its own, from a Gaussian whose standard deviation is the returned variance",
        "low-rank samples of the consensus distribution, as in training; sample_from=raters for those of the raters",
        "draw=independent_variance or fidelity=authors",
        "samples are coherent masks instead of noise; GED changes",
    ),
    Deviation(
        "what queries carry",
        "nothing: their learned vectors are positions only",
        "the same; the presets smoke and quick, whose bottleneck has 2x2 instead of 8x8 positions, let them carry the "
        "vectors too",
        "query_start=zero",
        "with so few positions the raters' maps were one map otherwise",
    ),
    Deviation(
        "first skip connection",
        "output of the 7x7 convolution before batch norm and ReLU",
        "after batch norm and ReLU",
        "stem_tap=raw or fidelity=authors",
        "non-negative and normalised, as the other skip connections",
    ),
    Deviation(
        "encoder without ImageNet weights",
        "always pretrained: frozen batch norm, stem and first stage frozen",
        "the same if backbone_weights is given; from scratch batch norm and all layers are trained",
        "encoder_norm=frozen train_stem=false",
        "a frozen batch norm at random weights normalises nothing",
    ),
    Deviation(
        "softmax of the attention maps",
        "over heads and positions together, as in DETR, so that the maps of a query sum to 1 over all heads",
        "the same; per_head makes each map sum to 1 (the preset quick, where there are 2x2 positions)",
        "attention_softmax=joint",
        "per_head shows the query to the decoder with numbers as many times larger as there are heads",
    ),
    Deviation(
        "distribution objects",
        "float64 distributions over whole maps, one a query, each with a k×k Cholesky that nothing uses",
        "the two lines that are needed, in the network's precision",
        "",
        "the same numbers to rounding, faster",
    ),
    Deviation(
        "skip connections",
        "repeated R + 1 times, then convolved",
        "convolved, then repeated",
        "",
        "the same numbers, faster",
    ),
    Deviation(
        "mixed precision",
        "automatic mixed precision with a gradient scaler",
        "float32",
        "",
        "rounding",
    ),
    Deviation(
        "raters, classes and image channels",
        "6 raters, disc and cup, RGB",
        "any; one sigmoid a class where classes overlap, a softmax with background where they exclude each other "
        "(not in the paper)",
        "",
        "none on RIGA",
    ),
    Deviation(
        "missing raters",
        "a fixed loop over all raters",
        "the mean over available raters, times R; a missing mask adds no term to either sum",
        "",
        "none on complete data",
    ),
    Deviation(
        "image sizes",
        "multiples of 32",
        "any: decoder levels are cut to the size of their skip connection",
        "",
        "identical for multiples of 32",
    ),
    Deviation(
        "resizing of masks",
        "the default of the imaging library, bicubic in newer ones: the disc grows by 2 %, the cup shrinks by 3 %",
        "nearest, in the data set's loader",
        "",
        "masks keep their area",
    ),
    Deviation(
        "choice of the checkpoint",
        "last epoch, an 80/20 validation split by choice",
        "GED on validation patients; the preset quick takes the last step",
        "",
        "",
    ),
    Deviation(
        "noise at prediction",
        "unseeded",
        "seeded per image",
        "",
        "repeatable; the first S of n samples do not depend on n",
    ),
)
