"""NCC: does the map of the samples' uncertainty correlate with where the raters disagree (specification section 2.5).

PHiSeg's S_NCC compares, per rater, the expected cross entropy of the samples with their own mean (E_ss) and with the
rater (E_sy). Both are linear in the mean logarithm of the samples, so one pass over the samples is enough and no map
per pair of sample and rater is made. `ncc.variance` is the form of ValUES.
"""

from __future__ import annotations

import numpy as np

from .case import CaseView, Undefined
from .channels import average, foreground_blocks, label_index, mean_channels, sample_blocks, shares
from .convention import Convention
from .overlap import Floats

LOG_EPSILON = 1e-8  # inside every logarithm, as in the paper's code
_FACTORS = 32  # of a product; (1e-8)^32 is far above the smallest float64
# A map whose standard deviation is below this share of max(1, |mean|) is constant. Maps that were stored in float32
# carry its rounding, so the limit of float64 would call a constant map varying.
_CONSTANT = 1e-12
_CONSTANT_FLOAT32 = 2.0**-22


def ncc(view: CaseView) -> float:
    """Mean over the raters of the correlation of E_ss and E_sy,r over all pixels that count.

    From `mean_log` and `mean_prob` if given (the value of `probs` to float32 accuracy), else from `probs` and their own
    mean, else from hard `samples`, whose cross entropies saturate at −log ε ≈ 18.4.

    Under ``ncc="variance"`` (ValUES) it is `ncc_variance`, the only NCC of that evaluation.

    Raises:
        Undefined: E_ss is constant and the raters are identical, or no rater's map varies.
    """
    convention = view.convention("uncertainty")
    if convention.ncc == "variance":
        return ncc_variance(view)
    if convention.ncc == "plain" and view.mean_log is None:
        own, logs = _released_maps(view, convention)
    else:
        mean, logs = _mean_and_log(view, convention)
        own = -(mean * logs).sum(axis=0)
    index = label_index(view, view.raters)
    crossed = np.take_along_axis(-logs, index, axis=0)
    if convention.ncc == "plain":
        return _without_guards(own, crossed, view.rater_weights)

    limit = _limit(view.mean_log, view.mean_prob) if view.mean_log is not None else _CONSTANT
    if _constant(own[None], limit)[0]:
        if (index == index[0]).all():
            raise Undefined("data: the raters are identical, and the map of the samples is constant")
        return 0.0
    varies = ~_constant(crossed, limit)
    if not varies.any():
        raise Undefined("method: under these samples the map of every rater is constant")
    values = np.clip(_correlations(own, crossed[varies]), -1.0, 1.0)
    if view.rater_weights is None:
        return float(values.mean())
    weights = view.rater_weights[varies]
    if weights.sum() <= 0:
        raise Undefined("method: under these samples the map of every rater with a weight is constant")
    return float(weights @ values / weights.sum())


def ncc_variance(view: CaseView) -> float:
    """Correlation of the raters' pixel-wise variance with a predicted map of uncertainty (ValUES).

    The variance of the raters is q(1 − q); several classes: its sum over the channels, background included. The
    predicted map is `uncertainty` if given, else the variance p̄(1 − p̄) of a label drawn from the mean map, which for
    hard samples is their pixel-wise variance and which needs no more than the stored mean map.

    Under ``ncc="variance"`` it carries the factor (N − 1)/N, has no guards, and the raters of several classes take the
    variance of the label numbers, all as released.

    Raises:
        Undefined: the raters' variance is the same at every pixel.
    """
    convention = view.convention("uncertainty")
    released = convention.ncc == "variance"
    if view.uncertainty is not None:
        # As released in the precision of the map, whose rounding tells a constant map's nan from a number near 0.
        predicted = view.uncertainty.reshape(-1).astype(view.uncertainty.dtype if released else np.float64)
        limit = _limit(view.uncertainty)
    else:
        predicted, limit = _variance(mean_channels(view, convention)), _limit(view.mean_prob)
    if released and len(view.classes) > 1:
        labels = view.raters.reshape(view.R, -1).astype(np.float64)
        centre = average(labels, view.rater_weights)
        observed = average((labels - centre) ** 2, view.rater_weights)
    else:
        observed = _variance(shares(view, view.raters, view.rater_weights))
    if released:
        return _without_guards(predicted, observed[None], None, factor=(view.pixels - 1) / view.pixels)
    if _constant(observed[None], _CONSTANT)[0]:
        raise Undefined("data: the variance of the raters is the same at every pixel")
    if _constant(predicted[None], limit)[0]:
        return 0.0
    return float(np.clip(_correlations(predicted, observed[None])[0], -1.0, 1.0))


def _variance(channels: Floats) -> Floats:
    """Variance of a label with these channel probabilities; two channels have the same variance, one is enough."""
    if len(channels) == 2:
        return channels[1] * (1.0 - channels[1])
    return (channels * (1.0 - channels)).sum(axis=0)


def _mean_and_log(view: CaseView, convention: Convention) -> tuple[Floats, Floats]:
    """s̄ and the mean logarithm l, each (K+1)×N."""
    if view.mean_log is not None:
        return mean_channels(view, convention), view.mean_log.reshape(len(view.mean_log), -1).astype(np.float64)
    weights = view.weights_of_samples(convention)
    if view.probs is None:
        assert view.samples is not None
        mean = shares(view, view.samples[: convention.sample_cap], weights)
        return mean, mean * np.log(1.0 + LOG_EPSILON) + (1.0 - mean) * np.log(LOG_EPSILON)
    mean, logs = np.empty((2, len(view.classes) + 1, view.pixels))
    if not view.channels:
        for part, block in foreground_blocks(view, convention):
            mean[1, part], logs[1, part] = average(block, weights), _mean_of_logs(block, weights)
            np.subtract(1.0, block, out=block)
            mean[0, part], logs[0, part] = 1.0 - mean[1, part], _mean_of_logs(block, weights)
        return mean, logs
    for part, block in sample_blocks(view, convention, np.float64):
        mean[:, part], logs[:, part] = average(block, weights), _mean_of_logs(block, weights)
    return mean, logs


def _mean_of_logs(block: Floats, weights: Floats | None) -> Floats:
    """Mean over the samples (first axis) of log(p + ε), in float64.

    Equal weights: the logarithm of a product, one logarithm for many factors and no less exact.
    """
    if weights is not None:
        return average(np.log(block + LOG_EPSILON), weights)
    total = np.zeros(block.shape[1:])
    for start in range(0, len(block), _FACTORS):
        total += np.log(np.multiply.reduce(block[start : start + _FACTORS] + LOG_EPSILON, axis=0))
    return total / len(block)


def _released_maps(view: CaseView, convention: Convention) -> tuple[Floats, Floats]:
    """E_ss and l as PHiSeg and UNet-Zoo round them: cross entropies in the precision of the input, averaged in float64.

    Without a guard the rounding decides whether a constant map gives nan or a meaningless number near 0.
    """
    weights = view.weights_of_samples(convention)
    own, logs = np.empty(view.pixels), np.empty((len(view.classes) + 1, view.pixels))
    for part, block in sample_blocks(view, convention):
        log = np.log(block + block.dtype.type(LOG_EPSILON))
        mean = block.mean(axis=0) if weights is None else average(block, weights).astype(block.dtype)
        own[part] = -average((mean * log).sum(axis=1), weights)
        logs[:, part] = average(log, weights)
    return own, logs


def _limit(*maps: object) -> float:
    """Below which standard deviation a map is constant, from the precision of the maps it was made of."""
    coarse = any(isinstance(m, np.ndarray) and m.dtype in (np.float32, np.float16) for m in maps)
    return _CONSTANT_FLOAT32 if coarse else _CONSTANT


def _constant(maps: Floats, limit: float) -> np.ndarray:
    """Whether each map (M×N) is constant."""
    return maps.std(axis=1) <= limit * np.maximum(1.0, np.abs(maps.mean(axis=1)))


def _correlations(a: Floats, b: Floats) -> Floats:
    """Pearson correlation of a map (N) with each of M maps (M×N), population standard deviations."""
    a = a - a.mean()
    b = b - b.mean(axis=1, keepdims=True)
    return b @ a / (len(a) * np.sqrt(np.mean(a * a)) * np.sqrt(np.mean(b * b, axis=1)))


def _without_guards(a: Floats, b: Floats, weights: Floats | None, factor: float = 1.0) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):
        values = factor * _correlations(a, b)
    value = float(values.mean() if weights is None else weights @ values)
    if not np.isfinite(value):
        raise Undefined("the map of the samples or of a rater is constant; the released function divides by 0 there")
    return value
