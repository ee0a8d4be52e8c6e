"""Cluster bootstrap over patients (metrics.md 13.1): the same draws for every row and metric of a data set.

Slices of one patient are not independent, so patients are drawn, not cases; the statistic of a draw is a ratio of sums,
which weighs every case alike whatever the number of cases of its patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
SEED = 20240229
MIN_CLUSTERS = 10
_BLOCK = 2_000_000  # numbers held at a time
_KEPT = 64_000_000  # counts of one set of draws, two bytes each, that are kept for the next use


@dataclass(frozen=True)
class Intervals:
    """Percentile intervals of K columns.

    Attributes:
        low, high: K bounds, NaN where there is no interval.
        note: K reasons why there is none, empty where there is one.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    note: list[str]


def cluster_sums(
    values: NDArray[np.float64], clusters: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums and numbers of the defined values of each cluster.

    Args:
        values: n×K case values, NaN where a case does not count.
        clusters: n cluster numbers, 0 to G-1.

    Returns:
        Two G×K arrays.
    """
    groups = int(clusters.max()) + 1 if len(clusters) else 0
    if not groups:
        return np.zeros((0, values.shape[1])), np.zeros((0, values.shape[1]))
    # Sorted by cluster, each is a run; a number without a case would be an empty run, which reduceat cannot sum.
    order = np.argsort(clusters, kind="stable")
    present, starts = np.unique(clusters[order], return_index=True)
    ordered = values[order]
    defined = ~np.isnan(ordered)
    sums = np.zeros((groups, values.shape[1]))
    counts = np.zeros_like(sums)
    sums[present] = np.add.reduceat(np.where(defined, ordered, 0.0), starts, axis=0)
    counts[present] = np.add.reduceat(defined, starts, axis=0, dtype=np.float64)
    return sums, counts


def draw_counts(
    groups: int, draws: int = DRAWS, seed: int = SEED, block: int = _BLOCK
) -> Iterator[NDArray[np.float64]]:
    """How often each of G clusters stands in each of `draws` samples with replacement: blocks of rows×G.

    The draws are one stream of PCG64, read in order, so they depend on `seed` and G alone, and fewer draws are the
    first of more. Everything on one set of patients (rows, metrics, differences, rankings) therefore rests on the same
    ones; those of the last sets are kept.
    """
    step = max(1, block // max(groups, 1))
    if draws * groups <= _KEPT:
        kept = _kept_counts(groups, draws, seed)
        for start in range(0, draws, step):
            yield kept[start : start + step].astype(np.float64)
        return
    generator = np.random.Generator(np.random.PCG64(seed))
    for start in range(0, draws, step):
        yield _draw(generator, min(step, draws - start), groups).astype(np.float64)


@lru_cache(maxsize=3)
def _kept_counts(groups: int, draws: int, seed: int) -> NDArray[np.uint16]:
    generator = np.random.Generator(np.random.PCG64(seed))
    kept = np.empty((draws, groups), dtype=np.uint16)
    step = max(1, _BLOCK // max(groups, 1))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        kept[start : start + size] = _draw(generator, size, groups)
    kept.setflags(write=False)
    return kept


def _draw(generator: np.random.Generator, size: int, groups: int) -> NDArray[np.intp]:
    drawn = generator.integers(0, groups, size=(size, groups))
    # How often each cluster was drawn: one product then replaces a sum over the drawn clusters.
    flat = drawn + groups * np.arange(size)[:, None]
    return np.bincount(flat.ravel(), minlength=size * groups).reshape(size, groups)


def bootstrap_means(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    draws: int = DRAWS,
    seed: int = SEED,
    block: int = _BLOCK,
) -> NDArray[np.float64]:
    """Means of `draws` samples of G clusters drawn with replacement.

    θ*_b = Σ_{g drawn} sum_g / Σ_{g drawn} n_g, over the draws of `draw_counts`.

    Args:
        sums: G×K sums of a cluster's values.
        counts: G×K numbers of a cluster's values.
        draws: number of bootstrap samples B.
        seed: seed of the generator.
        block: upper bound of the numbers held at a time, for memory only.

    Returns:
        B×K means; NaN where no drawn cluster has a value.
    """
    groups, columns = sums.shape
    means = np.empty((draws, columns))
    alike = bool((counts == counts[:, :1]).all())  # every column has the same cases: one column of counts will do
    start = 0
    for times in draw_counts(groups, draws, seed, block):
        total = times @ (counts[:, :1] if alike else counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            means[start : start + len(times)] = np.where(total > 0, (times @ sums) / total, np.nan)
        start += len(times)
    return means


def percentile_intervals(
    values: NDArray[np.float64],
    clusters: NDArray[np.intp],
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Intervals:
    """Percentile intervals of the mean of each column, with linear interpolation.

    Args:
        values: n×K case values, NaN where a case does not count.
        clusters: n cluster numbers, 0 to G-1 (patients).
        level: coverage.
        draws: number of bootstrap samples.
        seed: seed of the draws.

    Returns:
        Intervals; none where fewer than 10 clusters have a value.
    """
    columns = values.shape[1]
    low, high = np.full(columns, np.nan), np.full(columns, np.nan)
    sums, counts = cluster_sums(values, clusters)
    clusters_with = (counts > 0).sum(0) if len(counts) else np.zeros(columns, dtype=int)
    note = ["" if g >= MIN_CLUSTERS else f"no interval: {g} patients, fewer than {MIN_CLUSTERS}" for g in clusters_with]
    use = np.flatnonzero(clusters_with >= MIN_CLUSTERS)
    tails = [(1 - level) / 2, (1 + level) / 2]
    width = max(1, 5 * _BLOCK // draws)
    for start in range(0, len(use), width):
        part = use[start : start + width]
        means = bootstrap_means(sums[:, part], counts[:, part], draws, seed)
        quantile = np.nanquantile if np.isnan(means).any() else np.quantile  # the former goes column by column
        low[part], high[part] = quantile(means, tails, axis=0)
    return Intervals(low, high, note)
