"""Holm's step-down correction for several tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values: p̃_(i) = max_{j≤i} min(1, (m−j+1)·p_(j)) (metrics.md 13.3).

    Args:
        p: …×m p-values of one family, the family along the last axis. NaN stands for a test that could not be made; it
            stays NaN and does not count in m.

    Returns:
        The same shape.
    """
    values = np.asarray(p, dtype=np.float64)
    if values.shape[-1] == 0:
        return values.copy()
    order = np.argsort(values, axis=-1, kind="stable")  # NaN last
    ordered = np.take_along_axis(values, order, -1)
    made = ~np.isnan(ordered)
    factor = made.sum(-1, keepdims=True) - np.arange(values.shape[-1])
    stepped = np.minimum(1.0, np.where(made, factor * ordered, 0.0))
    adjusted = np.where(made, np.maximum.accumulate(stepped, axis=-1), np.nan)
    out = np.empty_like(values)
    np.put_along_axis(out, order, adjusted, -1)
    return out
