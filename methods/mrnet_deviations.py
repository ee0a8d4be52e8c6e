"""Where MR-Net here differs from the authors' released code, and which option goes back."""

from __future__ import annotations

from .base import Deviation

DEVIATIONS = (
    Deviation(
        "consistency term",
        "computed from detached coarse logits: no parameter learns from it; its two passes in training mode move the "
        "batch-norm statistics of the MRM encoder, one of them on probabilities instead of logits",
        "left out; consistency=paper lets its gradient through to the coarse net, the MRM frozen and in eval mode",
        "consistency=inert or fidelity=authors",
        "none on any gradient; the MRM's running statistics come from coarse logits alone",
    ),
    Deviation(
        "distance of the consistency term",
        "a pairwise distance that PyTorch reduced over the channels until 1.9 and reduces over the width since 1.10",
        "mean over the channels; the sum over channels in fidelity=authors and fidelity=paper",
        "consistency_distance=channel_sum or width_sum",
        "the value of a level changes by a factor of up to 85",
    ),
    Deviation(
        "coarse map in the average branch of the MPM",
        "in training the map of the mixed expertness",
        "the map of the average expertness, as at prediction",
        "average_branch_map=mixed or fidelity=authors",
        "training and prediction agree",
    ),
    Deviation(
        "three expertness vectors a step",
        "three passes, so that batch norm sees each kind on its own and is updated three times",
        "one pass: the image is encoded once, statistics are those of the three kinds together",
        "passes=separate or fidelity=authors",
        "faster; the encoder of the coarse net is updated once instead of three times with the same statistics",
    ),
    Deviation(
        "three optimisers in turn",
        "three Adam of equal settings; the consistency term sees the MRM after its step",
        "one Adam over the sum of three losses that share no gradient, which is the same; the consistency term sees "
        "the MRM before its step",
        "",
        "none but for consistency=paper, where the MRM is one step older",
    ),
    Deviation(
        "logged loss of the MPM",
        "doubled by adding its own value",
        "logged as it is",
        "",
        "none on the gradient",
    ),
    Deviation(
        "rater heads and ConvLSTM",
        "six separate 1x1 convolutions after the last resize; image and condition convolved together per pass",
        "one convolution before the resize; the image's part of the gates convolved once an image",
        "",
        "the same numbers, faster",
    ),
    Deviation(
        "parameters without use",
        "two transposed convolutions (13,382 parameters) that no forward pass calls",
        "absent",
        "",
        "none",
    ),
    Deviation(
        "image sizes",
        "256x256 only: sizes are written into the code",
        "any: sizes come from the tensors, decoder levels are cut to the size of their skip connection",
        "",
        "identical at 256x256",
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
        "every image has all masks",
        "a missing rater has expertness 0, the rest is renormalised; its term in the MRM's loss is left out. "
        "Disagreement still uses all R reconstructed maps",
        "",
        "none on complete data",
    ),
    Deviation(
        "batch of one image",
        "fails in training: batch norm of the image-level branch sees one value",
        "works, three vectors give three values; refused with passes=separate",
        "",
        "none for batches of two and more",
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
        "by hand; validation and test set are the same images",
        "soft Dice of the average map on validation patients; the preset quick takes the last step",
        "",
        "no optimistic choice on test cases",
    ),
    Deviation(
        "thresholds of the soft Dice",
        ">= in MR-Net: a tie of 3 to 3 is foreground",
        "strict >, as all other methods; see the metric variants",
        "",
        "published soft Dice of MR-Net is not on the footing of the others",
    ),
)
