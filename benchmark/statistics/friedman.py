"""Friedman's test on the ranks within patients, and which methods a critical-difference diagram joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .order import tied_ranks
from .table import CaseTable

ALPHA = 0.05


@dataclass(frozen=True)
class Friedman:
    """Friedman's test with Iman and Davenport's correction.

    Attributes:
        methods: k names.
        mean_ranks: k mean ranks over the patients, 1 = best.
        n: patients.
        chi_square: χ²_F corrected for ties.
        p_chi_square: of χ² with k−1 degrees of freedom.
        statistic: F_F.
        p: of F with k−1 and (k−1)(n−1) degrees of freedom; 1 where all methods are tied, NaN where there is no test.
        note: why there is no test.
    """

    methods: tuple[str, ...]
    mean_ranks: NDArray[np.float64]
    n: int
    chi_square: float
    p_chi_square: float
    statistic: float
    p: float
    note: str = ""

    @property
    def significant(self) -> bool:
        """Whether a diagram may be drawn at all."""
        return bool(self.p <= ALPHA)


def friedman(table: CaseTable) -> Friedman:
    """Do the methods differ at all? On the cluster means of every patient (metrics.md 13.6).

    A method without a value for a patient shares the last ranks there, so that ranks keep their sum; patients for whom
    no method has one are left out.
    """
    from scipy.special import chdtrc, fdtrc

    loss = -table.sign * table.rounded(table.cluster_means(table.comparable)).T  # G×k
    loss = loss[~np.isnan(loss).all(1)]
    n, k = loss.shape
    ranks, sizes = tied_ranks(np.where(np.isnan(loss), np.inf, loss))
    mean = ranks.mean(0) if n else np.full(k, np.nan)
    if k < 2 or n < 2:
        why = f"no test: {k} method{'s' * (k != 1)} and {n} patient{'s' * (n != 1)}, at least 2 of each are needed"
        return Friedman(table.methods, mean, n, np.nan, np.nan, np.nan, np.nan, why)
    ties = float((sizes.astype(np.float64) ** 2 - 1).sum())
    scale = 1 - ties / (n * (k**3 - k))
    if scale <= 1e-12:
        return Friedman(table.methods, mean, n, 0.0, 1.0, 0.0, 1.0, "all methods are tied for every patient")
    chi = 12 * n / (k * (k + 1)) * (float((mean**2).sum()) - k * (k + 1) ** 2 / 4) / scale
    chi = min(max(chi, 0.0), float(n * (k - 1)))
    room = n * (k - 1) - chi
    whole = room <= 1e-9 * n * (k - 1)  # every patient orders the methods alike
    statistic = np.inf if whole else (n - 1) * chi / room
    p = 0.0 if whole else float(fdtrc(k - 1, (k - 1) * (n - 1), statistic))
    return Friedman(table.methods, mean, n, chi, float(chdtrc(k - 1, chi)), float(statistic), p)


def nemenyi_distance(k: int, n: int, alpha: float = ALPHA) -> float:
    """CD = q_α √(k(k+1)/(6n)), q_α the upper quantile of the studentised range over √2; NaN for one method."""
    if k < 2 or n < 1:
        return float("nan")
    return _quantile(k, alpha) * float(np.sqrt(k * (k + 1) / (6 * n)))


@lru_cache(maxsize=64)
def _quantile(k: int, alpha: float) -> float:
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2))


def groups_by_tests(
    methods: Sequence[str], mean_ranks: NDArray[np.float64], p: NDArray[np.float64], alpha: float = ALPHA
) -> list[tuple[str, ...]]:
    """Canonical bars: maximal runs in the order of mean ranks all of whose pairs have an adjusted p above `alpha`.

    Args:
        methods: k names.
        mean_ranks: k.
        p: k×k symmetric adjusted p-values; NaN (no test) does not join.
        alpha: level.
    """
    order = sorted(range(len(methods)), key=lambda i: (mean_ranks[i], methods[i]))
    alike = p[np.ix_(order, order)] > alpha
    np.fill_diagonal(alike, True)
    return _runs([methods[i] for i in order], alike)


def groups_by_distance(
    methods: Sequence[str], mean_ranks: NDArray[np.float64], distance: float
) -> list[tuple[str, ...]]:
    """Nemenyi's bars, as in older papers: maximal runs no wider than the critical difference."""
    order = sorted(range(len(methods)), key=lambda i: (mean_ranks[i], methods[i]))
    ranks = np.asarray(mean_ranks)[order]
    return _runs([methods[i] for i in order], np.abs(ranks[:, None] - ranks[None]) < distance)


def _runs(names: list[str], alike: NDArray[np.bool_]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    reached = 0
    for start in range(len(names)):
        stop = start + 1
        while stop < len(names) and alike[start : stop + 1, start : stop + 1].all():
            stop += 1
        if stop > start + 1 and stop > reached:
            found.append(tuple(names[start:stop]))
            reached = stop
    return found
