"""How often the samples hit each rater's mode (specification section 2.7)."""

from __future__ import annotations

import numpy as np

from .case import CaseView, Undefined
from .overlap import Floats

# Equal distances of several classes are sums of the same fractions, perhaps in another order.
_TIE = 1e-12


def mode_tv(view: CaseView) -> float:
    """½ Σ |share of the samples − share of the raters| over the modes, the different masks among the raters.

    A sample belongs to its nearest rater, the lowest index on a tie; identical raters are one mode with their summed
    weight. Generalises the counts that the evaluation of the Probabilistic U-Net prints.

    Raises:
        Undefined: a sample and a rater have no distance under the convention.
    """
    convention = view.convention("ged")
    similarity = view.similarity(convention.distance, convention).sr
    if np.isnan(similarity).any():
        raise Undefined("a sample and a rater have no similarity under this convention (both empty)")
    near = similarity >= similarity.max(axis=1, keepdims=True) - _TIE
    mode = _first_equal(view)
    found = np.bincount(mode[near.argmax(axis=1)], _shares(view.weights_of_samples(convention), len(near)), view.R)
    wanted = np.bincount(mode, _shares(view.rater_weights, view.R), view.R)
    return float(np.abs(found - wanted).sum() / 2.0)


def _first_equal(view: CaseView) -> np.ndarray:
    """Index of the first rater with the same mask, for each rater: equal sizes that equal the intersection."""
    counts = np.stack(view.counts(view.convention("ged")))[:, : view.R, : view.R]
    sizes = counts.diagonal(axis1=1, axis2=2)
    equal = ((counts == sizes[:, :, None]) & (counts == sizes[:, None, :])).all(axis=0)
    return equal.argmax(axis=1)


def _shares(weights: Floats | None, count: int) -> Floats:
    return np.full(count, 1.0 / count) if weights is None else weights
