"""Where the Probabilistic U-Net here differs from the codes its variants come from, and which option goes back."""

from __future__ import annotations

from .base import Deviation

DEVIATIONS = (
    Deviation(
        "reduction of the cross-entropy",
        "pt: summed over pixels and batch, while the KL is averaged over the batch; tf: summed over pixels only",
        "summed over pixels, averaged over the batch, in every variant",
        "legacy_batch_sum=true",
        "the weight of the KL no longer depends on the batch size",
    ),
    Deviation(
        "initial bias of prior and posterior",
        "pt, dp: N(0,1); tf: std 1e-3",
        "std 1e-3 in every variant",
        "latent_bias=normal",
        "the KL starts near 0 instead of near 100",
    ),
    Deviation(
        "log standard deviation",
        "unclamped",
        "clamped to ±10, the gradient passing through",
        "log_std_clamp=0",
        "removes a source of NaN that users of the port report; no effect inside the clamp",
    ),
    Deviation(
        "cross-entropy replaced by batch Dice",
        "dp: the baseline in D-Persona's code; against a Dice of about 0.5 the KL dominates and diversity is low",
        "kept as variant dp; the default is the cross-entropy variant pt",
        "variant=dp",
        "name the variant with every result",
    ),
    Deviation(
        "length of the code",
        "pt: constructor default 6, training script 2",
        "6",
        "latent=2",
    ),
    Deviation(
        "mask given to the posterior",
        "tf: one-hot minus 0.5; pt, dp: raw {0, 1}",
        "as the variant; tf in its one-channel binary form, with one logit instead of a two-class softmax",
        "centre_mask",
        "none for binary masks but the parameters of one input and one output channel",
    ),
    Deviation(
        "image sizes",
        "pt: fails on sizes that are not divisible by the stride",
        "upsampling to the size of the skip connection",
        "",
        "identical for divisible sizes",
    ),
    Deviation(
        "fusion head",
        "the code tiled over all pixels, one pass per sample",
        "first layer split into an image part and a code part; number of features not hard-coded",
        "",
        "the same numbers, faster",
    ),
    Deviation(
        "trunk weights of dp",
        "ResNet-34 with ImageNet weights, downloaded",
        "from scratch unless a local file is given",
        "backbone_weights=FILE",
        "lower scores at a short budget",
    ),
    Deviation(
        "choice of the checkpoint of dp",
        "best Dice_soft + Dice_max on the test fold",
        "the suite's validation criterion, the same for all methods",
        "",
        "no optimistic choice on test cases",
    ),
    Deviation(
        "noise at prediction",
        "unseeded",
        "seeded per image",
        "",
        "repeatable; the first S of n samples do not depend on n",
    ),
)
