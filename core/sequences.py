"""Sequences that several packages share."""

from __future__ import annotations

import numpy as np


def van_der_corput(n: int) -> np.ndarray:
    """The first n points (float64) of the base-2 van der Corput sequence, 1/2, 1/4, 3/4, …

    Any first S points are spread fairly over (0, 1); used as thresholds, any first S level sets are a fair set of S.
    """
    bits = np.arange(1, n + 1)[:, None] >> np.arange(32) & 1
    return (bits * 0.5 ** np.arange(1, 33)).sum(1)
