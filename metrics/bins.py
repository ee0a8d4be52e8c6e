"""Bins of probability and the calibration errors made of their sums (specification section 5).

A case is reduced to counts, Σp and Σq of each bin. Its calibration errors follow from these, the pooled error of a data
set from their sums over cases, and a bootstrap of the pooled error from sums over the cases drawn: one matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from .overlap import Floats

Counts = NDArray[np.int64]

# Up to this number of edges, one comparison an edge is faster than a binary search a pixel.
_FEW_EDGES = 32
_FLOAT32_WHOLE = 1 << 24


# -- which bin ---------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def edges(bins: int, rule: str) -> Floats:
    """The bins+1 edges in float64 under a rule of `multirater.metrics.convention.Convention.binning`."""
    k = np.arange(bins + 1)
    out: Floats
    if rule == "values":
        out = np.linspace(0.0, 1.0 + 1e-8, bins + 1)  # so that 1 falls in the last bin [l, u)
    elif rule == "metrics_reloaded":
        out = k.astype(np.float64) * (1.0 / bins)  # 3 · 0.1 is 0.30000000000000004
    elif rule in ("mose", "torchmetrics"):
        # torch.linspace in float32: counted from both ends, product and sum rounded once (fused).
        step = np.float64(np.float32(1) / np.float32(bins))
        exact = np.where(k < (bins + 1) // 2, step * k, 1.0 - step * (bins - k))
        out = exact.astype(np.float32).astype(np.float64)
    else:
        out = k / bins
    out.flags.writeable = False  # shared by all callers
    return out


def edges_below(values: Floats, limits: Floats, *, equal: bool = False, slack: float = 0.0) -> NDArray[np.integer]:
    """Number of ascending limits that are below each value (with `equal`: not above it), as a binary search finds it.

    Args:
        slack: a value must be above a limit by more than this to count as above it.
    """
    limits = limits + slack if slack else limits
    if len(limits) > _FEW_EDGES:
        return np.searchsorted(limits, values, side="right" if equal else "left")
    out = np.zeros(values.shape, np.uint8)
    for limit in limits:
        out += values >= limit if equal else values > limit
    return out


def bin_index(p: Floats, bins: int, rule: str, slack: float = 0.0) -> tuple[NDArray[np.integer], int]:
    """Bin of each probability.

    Args:
        p: any shape, float64 in [0, 1]. A float32 map is converted exactly: the stored share 3/10 is 0.30000001 and
            lies above the edge 0.3.
        bins, rule: `Convention.bins` and `Convention.binning`.
        slack: rounding that p may carry above an edge and still lie in the bin below.

    Returns:
        Index in 0 … W, and W, the number of bins; W itself means that the pixel is in no bin.
    """
    limits = edges(bins, rule)
    if rule == "torchmetrics":  # [l, u), and 1 has a bin of its own
        return edges_below(p, limits[1:], equal=True, slack=slack), bins + 1
    if rule == "values":
        return edges_below(p, limits[1:-1], equal=True, slack=slack), bins
    index = edges_below(p, limits[1:-1], slack=slack)  # (l, u], and 0 is in the first
    if rule in ("mose", "metrics_reloaded"):
        index = np.where((p > 0) & (p <= limits[-1]), index, bins)  # 49 · (1/49) is below 1
    return index, bins


def sums_by_bin(
    index: NDArray[np.integer], width: int, values: Floats | None = None, *, single: bool = False
) -> Floats:
    """Counts, or sums of `values`, in the bins 0 … width − 1.

    Args:
        single: add one by one in float32, as torch's scatter_add does; a sum of ones then stops at 2^24.
    """
    if single and values is not None:
        out = np.zeros(width + 1, np.float32)
        np.add.at(out, index, values.astype(np.float32))
        return out[:width].astype(np.float64)
    sums = np.bincount(index, values, minlength=width)[:width]
    return np.minimum(sums, _FLOAT32_WHOLE).astype(np.float64) if single else sums.astype(np.float64, copy=False)


def equal_mass(p: Floats, q: Floats, bins: int) -> tuple[Floats, Floats, Floats]:
    """Counts, Σp and Σq of `bins` runs of the pixels sorted by (p, pixel index).

    The lengths of the runs differ by at most one, the longer ones first; with fewer pixels than runs, the last runs are
    empty. The values are only partitioned at the cuts; pixels whose value lies on both sides of a cut are then dealt
    out by index, which gives the runs of a stable sort in a fraction of its time.
    """
    n = len(p)
    sizes = n // bins + (np.arange(bins) < n % bins)
    starts = (np.cumsum(sizes) - sizes)[: min(bins, n)]
    parted = np.partition(p, starts[1:])
    first = parted[starts[1:]]
    index = edges_below(p, first, equal=True).astype(np.intp)
    below = np.cumsum(np.bincount(index, minlength=bins))[np.searchsorted(first, first)]
    for value, rank in {(v, r) for v, r, start in zip(first, below, starts[1:], strict=True) if r < start}:
        tied = np.flatnonzero(p == value)
        index[tied] = np.searchsorted(starts, rank + np.arange(len(tied)), side="right") - 1
    sum_p = np.zeros(bins)
    sum_p[: len(starts)] = np.add.reduceat(parted, starts)
    return sizes.astype(np.float64), sum_p, sums_by_bin(index, bins, q)


# -- sums of a case ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bins:
    """Sums of one case (or, with a leading axis, of many) for one calibration error.

    Leading axes are classes (one for top-label errors), and for errors per rater the rater slots. A group that the case
    lacks (a missing rater, no pixel on which the raters differ) holds zeros.

    Attributes:
        metric: the id whose value these sums give, for example ``ece`` or ``ece.each.full``.
        count: …×W, pixels in each bin.
        sum_p: …×W, sum of the probabilities (confidences).
        sum_q: …×W, sum of the vote shares (of the rater's mask for errors per rater).
        pixels: …, the denominator: all pixels of the region, those in no bin included where the rule counts them.
    """

    metric: str
    count: Floats
    sum_p: Floats
    sum_q: Floats
    pixels: Floats

    @property
    def region(self) -> str:
        """``box`` or ``full``."""
        return "full" if self.metric.endswith(".full") else "box"

    def gaps(self) -> Floats:
        """|conf − freq| of each bin, nan where it is empty."""
        return gaps(self.count, self.sum_p, self.sum_q)

    def ece(self) -> Floats:
        """Σ n_b/n · |conf_b − freq_b| of each group, nan without pixels."""
        return ece(self.sum_p, self.sum_q, self.pixels)

    def arrays(self) -> dict[str, NDArray]:
        """Plain arrays, for storage; `Bins.of` takes them back."""
        return {
            "metric": np.array(self.metric),
            "count": self.count,
            "sum_p": self.sum_p,
            "sum_q": self.sum_q,
            "pixels": self.pixels,
        }

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray]) -> Bins:
        """The object that gave `arrays`.

        Raises:
            UserError: arrays that are missing or do not fit each other.
        """
        try:
            numbers = [np.asarray(arrays[name], dtype=np.float64) for name in ("count", "sum_p", "sum_q", "pixels")]
            metric = str(arrays["metric"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"these arrays hold no calibration bins ({error}); give what Bins.arrays() made") from error
        count, sum_p, sum_q, pixels = numbers
        if count.ndim < 1 or not (count.shape == sum_p.shape == sum_q.shape) or pixels.shape != count.shape[:-1]:
            raise UserError("these arrays of calibration bins do not fit each other; give what Bins.arrays() made")
        return cls(metric, count, sum_p, sum_q, pixels)


def gaps(count: Floats, sum_p: Floats, sum_q: Floats) -> Floats:
    """|mean p − mean q| of each bin, nan where it is empty."""
    filled = count > 0
    return np.where(filled, np.abs(sum_p - sum_q) / np.where(filled, count, 1.0), np.nan)


def ece(sum_p: Floats, sum_q: Floats, pixels: Floats) -> Floats:
    """Expected calibration error …: Σ_b |Σp − Σq| / pixels, as the bins' counts cancel; nan without pixels."""
    total = np.abs(sum_p - sum_q).sum(axis=-1)
    return np.where(pixels > 0, total / np.where(pixels > 0, pixels, 1.0), np.nan)


def mean_known(values: Floats) -> Floats:
    """Mean over the last axis of what is not nan; nan without any."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


# -- data sets ---------------------------------------------------------------------------------------


def stack_bins(cases: Sequence[Bins]) -> Bins:
    """The sums of cases side by side, with a leading case axis: one object to store, or to draw cases from.

    Raises:
        UserError: no case, or cases of different metrics, bins, classes or rater slots.
    """
    if not cases:
        raise UserError("there are no bins to stack; give those of at least one case")
    kinds = sorted({f"{c.metric} of shape {c.count.shape}" for c in cases})
    if len(kinds) > 1:
        raise UserError(f"bins of different kinds cannot be pooled ({', '.join(kinds)}); give those of one metric")
    columns = [np.stack([getattr(c, name) for c in cases]) for name in ("count", "sum_p", "sum_q", "pixels")]
    return Bins(cases[0].metric, *columns)


def pooled_ece(cases: Bins | Sequence[Bins], draws: NDArray | None = None) -> Floats:
    """The calibration error of a whole data set: bins are summed over the cases first (`ece.pooled`).

    Groups are then averaged: over the rater slots that occur, then over the classes.

    Args:
        cases: bins of each case, or those of `stack_bins`.
        draws: B×N, how often each of the N cases is drawn in each of B bootstrap samples. A row without any pixel is
            nan.

    Returns:
        One number (a 0-dimensional array), or B of them.

    Raises:
        UserError: bins that do not belong together, or draws of another number of cases.

    Example:
        >>> from multirater.metrics.calibration import bins_case
        >>> a, b = np.array([[[True, False]]]), np.array([[0.9, 0.2]])
        >>> cases = [bins_case(a, mean_prob=b)["ece"], bins_case(~a, mean_prob=b)["ece"]]
        >>> [round(float(c.ece()[0]), 6) for c in cases], round(float(pooled_ece(cases)), 6)
        ([0.15, 0.85], 0.35)
        >>> pooled_ece(cases, draws=np.array([[2, 0], [1, 1]])).round(6).tolist()
        [0.15, 0.35]
    """
    table = cases if isinstance(cases, Bins) else stack_bins(cases)
    weights = np.ones((1, len(table.count))) if draws is None else np.asarray(draws, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] != len(table.count):
        raise UserError(f"draws has shape {weights.shape}; give one column for each of the {len(table.count)} cases")
    shape = table.count.shape[1:]
    # The difference of both sums is all that is needed: half the work, and no large sums that cancel.
    difference = (table.sum_p - table.sum_q).reshape(len(table.count), -1)
    total = np.abs((weights @ difference).reshape(-1, *shape)).sum(axis=-1)
    pixels = (weights @ table.pixels.reshape(len(table.count), -1)).reshape(-1, *shape[:-1])
    values = np.where(pixels > 0, total / np.where(pixels > 0, pixels, 1.0), np.nan)
    while values.ndim > 1:
        values = mean_known(values)
    return values[0] if draws is None else values
