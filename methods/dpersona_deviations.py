"""Where D-Persona here differs from the authors' released code, and which option goes back."""

from __future__ import annotations

from .base import Deviation

DEVIATIONS = (
    Deviation(
        "final ReLU of a rater's head",
        "ReLU after the last convolution, so that queries are non-negative",
        "linear query",
        "query_relu=true or fidelity=authors",
        "with the ReLU some heads go silent: attention becomes uniform and the rater gets the mean code",
    ),
    Deviation(
        "log standard deviation of prior and posterior",
        "unclamped, with a N(0,1) initial bias",
        "clamped to ±10, the gradient passing through; the initial bias is kept (latent_bias=small for std 1e-3)",
        "log_std_clamp=0 or fidelity=authors",
        "removes a source of NaN; no effect inside the clamp",
    ),
    Deviation(
        "frozen networks in stage 2",
        "the whole net in training mode: batch norm uses batch statistics and its running statistics move; gradients "
        "of trunk and fusion head are computed and never used",
        "trunk and prior in eval mode and without gradient, the fusion head passes gradient to the code only",
        "bn_train_in_stage2=true or fidelity=authors (the unused gradients are never computed)",
        "stage 2 no longer changes the outputs of stage 1; the backward pass of the trunk is saved",
    ),
    Deviation(
        "segmentation loss",
        "called generalised Dice; its class weights cancel, and a clamp at 1e-6 makes a perfect prediction cost 0.38 "
        "beyond about two million target pixels a batch",
        "plain batch Dice, which it is below the clamp, named so; per-image Dice by dice=image",
        "",
        "identical on the authors' image and batch sizes",
    ),
    Deviation(
        "reconstruction code",
        "a prior sample until August 2024 (most likely in the paper's numbers), a posterior sample since",
        "a posterior sample",
        "recon_source=prior",
        "with a prior sample the posterior is trained by the KL term alone",
    ),
    Deviation(
        "fusion head, bank and heads",
        "loops over samples and experts, the code tiled over all pixels",
        "first layer split into an image part and a code part, codes drawn at once, one grouped network for all heads, "
        "maximum and minimum differentiated through the attaining codes only",
        "",
        "the same numbers, faster",
    ),
    Deviation(
        "steps with a non-finite loss",
        "a guard puts a constant without gradient in place of the loss, so that the backward pass raises and training "
        "ends",
        "skipped and counted; the run is given up after more than train.max_nonfinite of them",
        "",
        "a single bad step no longer ends a run; the number of skipped steps is in the results",
    ),
    Deviation(
        "choice of the checkpoint",
        "on LIDC the best epoch on the test fold itself: Dice_match with 10 samples in stage 1, mean Dice over raters "
        "with a bank of 100 in stage 2",
        "GED in stage 1 and Dice per rater in stage 2, on validation patients; the preset quick takes the last step",
        "",
        "no optimistic choice on test cases",
    ),
    Deviation(
        "folds of LIDC",
        "cut by slice until November 2025, so that slices of one patient lay in training and test; by patient since",
        "by patient; a cut by slice is not offered",
        "",
        "scores by slice are too high and are not to be compared with these",
    ),
    Deviation(
        "missing raters",
        "every image has all masks",
        "a missing mask enters the posterior as zeros and is left out of target draw, union, intersection and loss",
        "",
        "none on complete data",
    ),
    Deviation(
        "image sizes",
        "multiples of 32",
        "any: decoder levels are upsampled to the size of their skip connection",
        "",
        "identical for multiples of 32",
    ),
    Deviation(
        "trunk weights",
        "ResNet-34 with ImageNet weights, downloaded",
        "from scratch unless a local file is given",
        "backbone_weights=FILE",
        "lower scores at a short budget",
    ),
    Deviation(
        "noise at prediction",
        "unseeded; even the personalised maps change from run to run",
        "seeded; samples and bank have streams of their own",
        "",
        "repeatable; the first S of n samples do not depend on n",
    ),
)
