"""Wilcoxon's signed-rank test with its effect sizes, for many pairs at once (metrics.md 13.2).

SciPy has the test too; here one call tests all pairs of a table, and the rules for zeros, ties and the exact
distribution are the same under every version of SciPy. The tests compare both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .order import tied_ranks

Alternative = Literal["two-sided", "better"]
Zeros = Literal["drop", "pratt"]
EXACT_UP_TO = 50  # differences; beyond them the normal approximation


@dataclass(frozen=True)
class SignedRank:
    """Results for P pairs, arrays of length P.

    Attributes:
        statistic: W⁺, sum of the ranks of positive differences.
        n: differences that entered (n').
        p: p-value; 1 where nothing differs, NaN where there is no difference at all to look at.
        exact: whether the exact distribution gave it.
        rank_biserial: −1 to 1, positive where A is better.
        win_rate: share of clusters where A is better, ties counting half.
    """

    statistic: NDArray[np.float64]
    n: NDArray[np.int64]
    p: NDArray[np.float64]
    exact: NDArray[np.bool_]
    rank_biserial: NDArray[np.float64]
    win_rate: NDArray[np.float64]


def signed_rank(
    delta: NDArray[np.float64], alternative: Alternative = "two-sided", zeros: Zeros = "drop"
) -> SignedRank:
    """Test whether differences are symmetric about zero.

    Args:
        delta: P×G differences of cluster means, positive where A is better; NaN where a cluster has none.
        alternative: ``two-sided``: exact for up to 50 differences without ties and zeros, otherwise normal with
            continuity correction. ``better``: one-sided "A is better", always the normal approximation, as challengeR.
        zeros: leave them out, or (Pratt) rank them and leave their ranks out.

    Returns:
        One result per pair.
    """
    size = np.abs(delta)
    none = np.isnan(delta)
    zero = size == 0
    out = none if zeros == "pratt" else none | zero
    ranks, sizes = tied_ranks(np.where(out, np.inf, size))
    counted = ~(none | zero)
    positive = (delta > 0) & counted
    statistic = np.where(positive, ranks, 0.0).sum(-1)
    n = counted.sum(-1)
    ties = np.where(counted, sizes.astype(np.float64) ** 2 - 1, 0.0).sum(-1)  # Σ over ties of t³ − t
    skipped = (zero & ~none).sum(-1) if zeros == "pratt" else np.zeros_like(n)
    p = _normal_p(statistic, n + skipped, skipped, ties, alternative)
    exact = np.zeros(len(n), dtype=bool)
    if alternative == "two-sided":
        exact = (n <= EXACT_UP_TO) & (n > 0) & (ties == 0) & ~(zero & ~none).any(-1)
        for i in np.flatnonzero(exact):
            p[i] = _exact_p(int(statistic[i]), int(n[i]))
    some = (~none).any(-1)
    p = np.where(n == 0, np.where(some, 1.0, np.nan), p)
    total = np.where(counted, ranks, 0.0).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        biserial = np.where(n > 0, (2 * statistic - total) / np.where(n > 0, total, 1), np.where(some, 0.0, np.nan))
        wins = np.where(some, (positive.sum(-1) + 0.5 * zero.sum(-1)) / np.maximum((~none).sum(-1), 1), np.nan)
    return SignedRank(statistic, n, p, exact, biserial, wins)


def _normal_p(
    statistic: NDArray[np.float64],
    n: NDArray[np.int64],
    zeros: NDArray[np.int64],
    ties: NDArray[np.float64],
    alternative: Alternative,
) -> NDArray[np.float64]:
    """p-values of the normal approximation; `n` counts the ranked zeros of Pratt's way, whose share is taken off."""
    from scipy.special import ndtr

    m, z0 = n.astype(np.float64), zeros.astype(np.float64)
    mean = (m * (m + 1) - z0 * (z0 + 1)) / 4
    variance = (m * (m + 1) * (2 * m + 1) - z0 * (z0 + 1) * (2 * z0 + 1)) / 24 - ties / 48
    away = statistic - mean
    deviation = np.sqrt(np.where(variance > 0, variance, 1.0))
    if alternative == "better":
        return np.where(variance > 0, ndtr(-(away - 0.5) / deviation), 1.0)
    z = (away - 0.5 * np.sign(away)) / deviation
    return np.where(variance > 0, np.minimum(1.0, 2 * ndtr(-np.abs(z))), 1.0)


@lru_cache(maxsize=EXACT_UP_TO + 1)
def _cumulative(n: int) -> NDArray[np.float64]:
    """P(W⁺ ≤ w) for w = 0 … n(n+1)/2: subsets of 1…n by their sum."""
    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1.0
    for rank in range(1, n + 1):
        counts[rank:] = counts[rank:] + counts[:-rank]
    return np.cumsum(counts / 2.0**n)


def _exact_p(statistic: int, n: int) -> float:
    below = _cumulative(n)
    tail = min(below[statistic], below[n * (n + 1) // 2 - statistic])  # the distribution is symmetric
    return float(min(1.0, 2 * tail))


def resampled_better(
    delta: NDArray[np.float64], times: NDArray[np.int32], cubes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One-sided p-values of both directions of one pair in bootstrap samples of its clusters.

    A cluster that is drawn w times stands w times in the sample, tied with itself. Differences are sorted once; a
    sample is then a cumulative sum over the weights.

    Args:
        delta: G differences of cluster means, positive where A is better; NaN where a cluster has none.
        times: B×G, how often each cluster was drawn.
        cubes: B sums of the cubes of `times`.

    Returns:
        B p-values for "A is better" and B for "B is better": `signed_rank` of the samples with ``better``.
    """
    usable = ~np.isnan(delta) & (delta != 0)
    used = np.flatnonzero(usable)
    if not len(used):
        ones = np.ones(len(times))
        return ones, ones
    used = used[np.argsort(np.abs(delta[used]), kind="stable")]
    size = np.abs(delta[used])
    weight = np.take(times, used, axis=1)
    starts = np.flatnonzero(np.concatenate([[True], size[1:] != size[:-1]]))
    wins = np.flatnonzero(delta[used] > 0)
    if len(starts) < len(size):
        positive = np.add.reduceat(np.where(delta[used] > 0, weight, 0), starts, axis=1)
        weight = np.add.reduceat(weight, starts, axis=1)
        upto = np.cumsum(weight, axis=1, dtype=np.int32)
        # Twice the mean rank of a tie of t after c others: 2c + t + 1.
        statistic = np.einsum("bg,bg->b", positive, 2 * upto - weight + 1, dtype=np.float64) / 2
        cubes = np.einsum("bg,bg,bg->b", weight, weight, weight, dtype=np.float64)
    else:  # no ties but those of a cluster with itself
        upto = np.cumsum(weight, axis=1, dtype=np.int32)
        positive = np.take(weight, wins, axis=1)
        doubled = 2 * np.take(upto, wins, axis=1) - positive + 1
        statistic = np.einsum("bg,bg->b", positive, doubled, dtype=np.float64) / 2
        cubes = cubes - (times[:, ~usable].astype(np.float64) ** 3).sum(1)
    n = upto[:, -1].astype(np.int64)
    none = np.zeros_like(n)
    total = n * (n + 1) / 2
    return (
        np.where(n > 0, _normal_p(statistic, n, none, cubes - n, "better"), 1.0),
        np.where(n > 0, _normal_p(total - statistic, n, none, cubes - n, "better"), 1.0),
    )
