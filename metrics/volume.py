"""Volume of the mean map against the raters' volumes: continuous ranked probability score (specification section 9).

The raters' volumes make the distribution and the predicted volume is the observation. Volumes are in cubic millimetres
(square in two dimensions) where the spacing is known, else in pixels.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr, ndtri

from .case import CaseView
from .channels import label_index, mean_channels
from .convention import CANONICAL
from .overlap import Floats

_TABLE = 100  # points of the released table of the normal distribution, between its 1 % and 99 % points


def _volumes(view: CaseView) -> tuple[Floats, Floats]:
    """Predicted volume of each class (K) and the raters' volumes (R×K)."""
    voxel = 1.0 if view.spacing is None else math.prod(view.spacing)
    index = label_index(view, view.raters)
    raters = [np.count_nonzero(index == channel, axis=1) for channel in range(1, len(view.classes) + 1)]
    # Summed in an order that does not depend on the other classes: a class alone gives the same bits.
    predicted = np.array([channel.sum() for channel in mean_channels(view, CANONICAL)[1:]])
    return predicted * voxel, np.stack(raters, axis=1) * voxel


def _gaussian(predicted: float, mean: float, deviation: float) -> float:
    """CRPS of a normal distribution in closed form; |v − μ| without spread."""
    if deviation <= 0:
        return abs(predicted - mean)
    z = (predicted - mean) / deviation
    density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    # z(2Φ(z) − 1) + 2φ(z) − 1/√π, with erf for 2Φ − 1: no digits are lost near the mean.
    return deviation * (z * math.erf(z / math.sqrt(2.0)) + 2.0 * density - 1.0 / math.sqrt(math.pi))


def _truncated(predicted: float, mean: float, deviation: float) -> float:
    """CRPS as CURVAS integrates it: over μ ± 3σ, with a table of the distribution that is 0 and 1 outside its ends.

    Volumes below the interval all score the same, and those above it; without spread the interval is empty and every
    volume scores 0.
    """
    if deviation <= 0:
        return 0.0
    points = np.linspace(ndtri(0.01) * deviation + mean, ndtri(0.99) * deviation + mean, _TABLE)
    table = ndtr((points - mean) / deviation)

    def integrand(volume: float) -> float:
        step = 0.5 * (np.sign(volume - predicted) + 1.0)
        return float((np.interp(volume, points, table, left=0.0, right=1.0) - step) ** 2)

    # full_output keeps the remark on the jump at the predicted volume from becoming a warning.
    return float(quad(integrand, mean - 3.0 * deviation, mean + 3.0 * deviation, full_output=1)[0])


def volume_crps_per_class(view: CaseView) -> list[float]:
    """CRPS of each class against a normal distribution with the raters' mean and population standard deviation."""
    score = _truncated if view.convention("volume").crps == "truncated" else _gaussian
    predicted, raters = _volumes(view)
    mean = np.average(raters, axis=0, weights=view.rater_weights)
    deviation = np.sqrt(np.average((raters - mean) ** 2, axis=0, weights=view.rater_weights))
    return [score(float(v), float(m), float(s)) for v, m, s in zip(predicted, mean, deviation, strict=True)]


def volume_crps(view: CaseView) -> float:
    """Mean over the classes of `volume_crps_per_class`."""
    return float(np.mean(volume_crps_per_class(view)))


def volume_crps_ensemble(view: CaseView) -> float:
    """mean_r |v − V_r| − ½ mean_{q,r} |V_q − V_r|: the score without a normal distribution; mean over the classes."""
    predicted, raters = _volumes(view)
    weights = np.full(view.R, 1.0 / view.R) if view.rater_weights is None else view.rater_weights
    miss = weights @ np.abs(predicted - raters)
    spread = np.einsum("q,qrk,r->k", weights, np.abs(raters[:, None] - raters[None]), weights)
    return float((miss - 0.5 * spread).mean())
