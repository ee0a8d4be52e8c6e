"""Where the confusion-matrix methods here differ from the three codes, and which option goes back."""

from __future__ import annotations

from .base import Deviation

DEVIATIONS = (
    Deviation(
        "binary data",
        "D-Persona's port has one output channel: every matrix is the number 1, gets no gradient, and all rater maps "
        "are the consensus (one plain U-Net on randomly chosen raters)",
        "two labels, background and foreground",
        "none; unet_label_sampling is what its rows CM-Global and CM-Pixel are",
        "the matrices exist",
    ),
    Deviation(
        "sign of the trace",
        "Zhang et al. minimise it from the start; Pionono's port maximises it for ever (-5 for the identity of five "
        "labels against a data loss below 1), which pins the annotators to the identity",
        "maximised for the first trace_warmup steps, then minimised, as the paper describes",
        "trace_warmup=0 or fidelity=authors; trace_sign=-1 or fidelity=pionono",
        "annotators start reliable and become as unreliable as the annotations allow",
    ),
    Deviation(
        "weight of the trace",
        "1.5 (BraTS), 0.4 or 0.001 (MNIST) of a damped loss; 1 in Pionono's port",
        "0.01 of a mean negative log-likelihood",
        "trace_weight, fidelity=authors (1.5) or fidelity=pionono (1)",
        "with a rare foreground larger weights make its column of the matrix meaningless",
    ),
    Deviation(
        "cross-entropy",
        "applied to probabilities as if they were logits: a perfect prediction costs 0.31 (two labels) to 0.90 (five)",
        "negative log of the probability, clamped at 1e-7",
        "loss=ce_on_probs or fidelity=authors",
        "undamped gradients; weights of the trace are not comparable",
    ),
    Deviation(
        "what a matrix multiplies",
        "Pionono's port: logits, with the softmax afterwards, and class-mean batch Dice instead of cross-entropy",
        "probabilities",
        "mix=logits loss=dice or fidelity=pionono",
        "the product is a distribution",
    ),
    Deviation(
        "start of the matrices",
        "softplus of the identity, normalised: 0.65 on the diagonal for two labels, 0.32 for five; pixel heads start "
        "near uniform",
        "columns by softmax, 0.9 on the diagonal (init_diagonal)",
        "form=softplus or fidelity=authors or fidelity=pionono",
        "no relabelling of the truth at the start",
    ),
    Deviation(
        "annotators of a step",
        "all (Zhang et al.); one per image, although the heads of all are run (Pionono's port)",
        "all",
        "annotators=one or fidelity=pionono, which runs the head of that annotator alone",
        "annotators=one needs less memory",
    ),
    Deviation(
        "U-Net of Zhang et al.",
        "its bottleneck enters the decoder magnified twice and cut at the centre; square sizes divisible by the stride",
        "offered as backbone=unet_zhang without the magnification; any size",
        "magnify=true or fidelity=authors",
    ),
    Deviation(
        "low-rank matrices",
        "U and V are normalised apart at prediction and the identity is forgotten, so that test differs from training",
        "the same matrix in training and prediction (cm_pixel, rank=1)",
    ),
    Deviation(
        "learning rate of the matrices",
        "that of the network (Zhang et al.), 100 times that (Pionono's port)",
        "10 times that of the network for cm_global, that of the network for cm_pixel",
        "matrix_lr_scale, fidelity=authors (1) or fidelity=pionono (100)",
    ),
    Deviation(
        "matrices in memory",
        "global matrices are expanded to every pixel; one small network per annotator",
        "a 1×1 convolution; one grouped network",
        "",
        "the same numbers, faster",
    ),
    Deviation(
        "training and prediction mode",
        "Zhang et al.'s loop stays in eval mode after the first batch of an epoch",
        "proper modes",
        "",
        "none with instance norm",
    ),
    Deviation(
        "annotators",
        "Zhang et al.'s BraTS and MNIST runs train with the clean mask as one of four annotators",
        "the raters of the data set, nothing else",
    ),
    Deviation(
        "missing raters",
        "every image has all masks",
        "a missing annotation counts neither in the data term nor in the trace",
        "",
        "none on complete data",
    ),
    Deviation(
        "scores",
        "Pionono's port scores the consensus also against single annotators; Zhang et al.'s GED changes its labels in "
        "place and uses Dice as distance",
        "the annotator's own map against the annotator, and the suite's metrics",
        "",
        "not comparable with their tables",
    ),
    Deviation(
        "trunk weights",
        "Pionono's port: ResNet-34, for CM-Pixel ResNet-18, with ImageNet weights, downloaded",
        "ResNet-34 from scratch unless a local file is given",
        "backbone_weights=FILE (ResNet-34), backbone=unet_r18 (always from scratch)",
        "lower scores at a short budget",
    ),
)
