"""Where Pionono here differs from the authors' released code and from the port in D-Persona's, and what goes back."""

from __future__ import annotations

from .base import Deviation

DEVIATIONS = (
    Deviation(
        "segmentation loss",
        "called generalised Dice; its class weights cancel, and a clamp at 1e-6 makes a perfect prediction cost 0.18 "
        "for two classes on three images of 1024² pixels",
        "the class-mean batch Dice that it is below the clamp; per-image Dice by dice=image (presets smoke, quick)",
        "dice_clamp=true, fidelity=authors or fidelity=dpersona",
        "identical up to two million pixels of a class in a batch",
    ),
    Deviation(
        "likelihood term",
        "the loss of the mean of 5 sampled logits, which is no evidence lower bound",
        "the same; the mean of the 5 losses is offered",
        "mc_loss=mean_logit is the authors', mc_loss=per_sample the bound's",
    ),
    Deviation(
        "covariances of the raters",
        "free D×D parameters in float64: the upper triangle is dead, a diagonal that reaches 0 ends the run",
        "packed lower triangle with an exponential diagonal, float32, the same start L = 2 I",
        "diagonal=plain, fidelity=authors or fidelity=dpersona (float32 also there)",
        "no run ends this way; 36 instead of 64 parameters a rater; steps of the diagonal are relative to its size",
    ),
    Deviation(
        "prior",
        "stored once for every rater as frozen parameters",
        "one number, prior_std",
        "",
        "the same divergence",
    ),
    Deviation(
        "initial means of the raters",
        "from NumPy's generator, which the released script never seeds",
        "from torch's seeded generator",
        "",
        "repeatable runs",
    ),
    Deviation(
        "consensus as a rater (gold)",
        "STAPLE or expert masks are a rater of Pionono in its tables, while the confusion-matrix and Probabilistic "
        "U-Net baselines do not see them",
        "none; said in every table where there is one",
        "gold=staple or gold=majority (the preset paper sets staple)",
        "the rows of a table see the same masks",
    ),
    Deviation(
        "map of a rater",
        "the mean code decoded; in D-Persona's port the mean of 20 sampled logits",
        "the mean code decoded",
        "rater_maps=mc_logits or fidelity=dpersona; rater_maps=mc for the mean of probabilities",
        "the mean code ignores the spread of the rater",
    ),
    Deviation(
        "consensus map",
        "the mean of 20 sampled probabilities of the gold Gaussian; D-Persona's port has the mean of the rater maps",
        "the gold Gaussian if there is one, else 20 samples of every rater",
        "consensus=raters or fidelity=dpersona",
    ),
    Deviation(
        "samples",
        "none is scored: D-Persona's port computes the GED of the 4 rater maps",
        "a rater drawn uniformly, then a code of that rater",
        "",
        "GED is that of samples; the rater maps are scored as rater maps",
    ),
    Deviation(
        "label of a step",
        "one rater drawn per image and epoch; images with rare classes are repeated in Gleason 2019 and Arvaniti TMA",
        "one rater drawn per image and step among those who annotated it; no repetition",
        "",
        "the same expectation where no image is repeated",
    ),
    Deviation(
        "rater identity on LIDC",
        "D-Persona's port sorts the masks by area within every image",
        "the identity chosen for the data set (dataset.identity)",
        "dataset.identity=by_area_slice",
    ),
    Deviation(
        "augmentation",
        "flips, blur, colour, shear, scale, shift and rotation",
        "the suite's, the same for all methods",
        "",
        "less variety, mainly of colour",
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
        "ResNet-34 with ImageNet weights, downloaded (inputs are not normalised for them)",
        "from scratch unless a local file is given",
        "backbone_weights=FILE",
        "lower scores at a short budget",
    ),
    Deviation(
        "head",
        "the code tiled over all pixels, one pass and one distribution object per sample",
        "first layer split into an image part and a code part; in training the last layer runs once, on the mean",
        "",
        "the same numbers, faster",
    ),
    Deviation(
        "choice of the checkpoint",
        "the last epoch; in D-Persona's port the best of Dice_max + Dice_soft on the test fold",
        "the last step in the presets; train.select=best chooses on validation patients",
        "",
        "no optimistic choice on test cases",
    ),
    Deviation(
        "per-rater Dice",
        "D-Persona's port matches masks to raters, so that reversed raters still score 1",
        "rater against the same rater (dice_rater); the matched value is dice_match",
    ),
)
