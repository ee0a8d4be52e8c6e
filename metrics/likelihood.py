"""Likelihood of the raters' masks under the samples, and entropy of the mean map (SSN; specification section 9)."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import entr, logsumexp

from .case import CaseView
from .channels import label_index, mean_channels, sample_blocks


def sample_nll(view: CaseView) -> float:
    """−log of the mean over the samples of Π_x p_i(y_r(x)), in nats; mean over the raters.

    A sum over all pixels that count, not a mean: it grows with the image. It takes probabilities; hard samples would
    give every rater's mask that is not itself a sample the probability 0. Nothing is clipped: the value is infinite
    where all samples give some rater's label the probability 0.
    """
    convention = view.convention("uncertainty")
    weights = view.weights_of_samples(convention)
    index = label_index(view, view.raters)
    channels = np.arange(len(view.classes) + 1)[:, None]
    total, impossible = np.zeros((2, min(view.S, convention.sample_cap or view.S), view.R))
    for part, block in sample_blocks(view, convention, np.float64):
        chosen = (index[:, None, part] == channels).astype(np.float64).reshape(view.R, -1).T
        zero = block <= 0
        # 0·log 0 would be nan in the product; impossible labels are counted apart.
        total += np.log(np.where(zero, 1.0, block)).reshape(len(block), -1) @ chosen
        if zero.any():
            impossible += zero.reshape(len(block), -1).astype(np.float64) @ chosen
    total[impossible > 0] = -math.inf
    share = np.full((len(total), 1), 1.0 / len(total)) if weights is None else weights[:, None]
    each = -logsumexp(total, axis=0, b=share)
    if view.rater_weights is None:
        return float(each.mean())
    counted = view.rater_weights > 0  # a rater without weight may be impossible: 0 · inf is not 0
    return float(view.rater_weights[counted] @ each[counted])


def entropy_mean(view: CaseView) -> float:
    """Mean over the pixels of the entropy of p̄, divided by log C, so between 0 and 1; 0 · log 0 = 0."""
    convention = view.convention("uncertainty")
    mean = mean_channels(view, convention) + convention.entropy_epsilon
    return float(entr(mean).sum(axis=0).mean() / math.log(len(mean)))
