"""Three ways to a ranking (metrics.md 13.4), and the consensus of several.

They answer different questions: who has the best mean, who is best in most cases, who significantly beats the most.
They disagree where few cases dominate the mean, and then the order is not settled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .holm import holm
from .order import ranks_with_missing
from .signed_rank import signed_rank
from .table import CaseTable, pair_indices

if TYPE_CHECKING:
    import pandas as pd

SCHEMES = {
    "mean": "aggregate then rank: rank of the mean over cases (canonical)",
    "median": "aggregate then rank: rank of the median over cases",
    "rank": "rank then aggregate: rank of the mean of the ranks in every case",
    "test": "test then rank: rank of the share of methods that are significantly worse (one-sided Wilcoxon)",
}
ALPHA = 0.05


def case_ranks(table: CaseTable) -> NDArray[np.float64]:
    """Ranks of the methods in every case, k×n: 1 = best, ties get the smallest rank, a missing value the next larger.

    A case in which no method has a value ranks nobody: NaN.
    """
    ranks = ranks_with_missing(-table.sign * table.comparable.T).T
    return np.where(np.isnan(table.values).all(0), np.nan, ranks)


def one_sided(table: CaseTable, correct: bool = False) -> NDArray[np.float64]:
    """p-values of "row is better than column", k×k, NaN on the diagonal and without a case in common.

    One-sided Wilcoxon tests on cluster means, normal approximation with continuity correction, zeros dropped, as in
    challengeR.

    Args:
        table: values.
        correct: Holm over all k(k−1).
    """
    a, b = pair_indices(table.k)
    delta = table.sign * table.rounded(table.comparable[a] - table.comparable[b])
    per_cluster = table.rounded(table.cluster_means(delta))
    p = np.full((table.k, table.k), np.nan)
    p[a, b] = signed_rank(per_cluster, "better").p
    p[b, a] = signed_rank(-per_cluster, "better").p
    if correct:
        p = holm(p.ravel()).reshape(p.shape)
    return p


def loss_of(table: CaseTable, scheme: str = "mean", correct: bool = False, alpha: float = ALPHA) -> NDArray[np.float64]:
    """The number by which a scheme of `SCHEMES` ranks, k values, the smallest is the best; NaN where there is none.

    Raises:
        UserError: unknown scheme.
    """
    check_scheme(scheme)
    values = table.values
    counted = ~np.isnan(values)
    n = counted.sum(1)
    if scheme == "test":
        beats = one_sided(table, correct) <= alpha
        return np.where(n > 0, -beats.sum(1) / max(table.k - 1, 1), np.nan)
    if scheme == "rank":
        ranks = case_ranks(table)
        used = ~np.isnan(ranks)
        mean = np.where(used, ranks, 0.0).sum(1) / np.maximum(used.sum(1), 1)
        return np.where(n > 0, np.round(mean, 12), np.nan)
    if scheme == "median":
        middle = np.array(
            [np.median(row[use]) if use.any() else np.nan for row, use in zip(values, counted, strict=True)]
        )
        return table.loss(middle)
    return table.loss(np.where(n > 0, np.where(counted, values, 0.0).sum(1) / np.maximum(n, 1), np.nan))


def ranks_of(table: CaseTable, scheme: str = "mean", correct: bool = False) -> NDArray[np.float64]:
    """Ranks by a scheme, 1 = best, ties get the smallest; a method without a value comes last."""
    return ranks_with_missing(loss_of(table, scheme, correct))


def ranking_table(table: CaseTable, correct: bool = False) -> pd.DataFrame:
    """The ranks of all schemes side by side, sorted by the canonical one.

    Returns:
        Columns ``method``; ``value`` (mean); ``rank_<scheme>`` for each of `SCHEMES`; ``moves``: whether the three
        schemes of the specification disagree on this method's rank.
    """
    import pandas as pd

    counted = ~np.isnan(table.values)
    n = counted.sum(1)
    mean = np.where(n > 0, np.where(counted, table.values, 0.0).sum(1) / np.maximum(n, 1), np.nan)
    columns: dict[str, object] = {"method": list(table.methods), "value": mean}
    ranks = {scheme: ranks_of(table, scheme, correct).astype(int) for scheme in SCHEMES}
    columns |= {f"rank_{scheme}": found for scheme, found in ranks.items()}
    columns["moves"] = (ranks["mean"] != ranks["rank"]) | (ranks["mean"] != ranks["test"])
    frame = pd.DataFrame(columns)
    return frame.sort_values(["rank_mean", "method"], kind="stable", ignore_index=True)


def consensus(ranks: pd.DataFrame) -> pd.DataFrame:
    """One order from the ranks on several metrics or data sets: their mean (Euclidean consensus).

    Args:
        ranks: methods as index, one column per metric or data set; NaN where a method was not ranked.

    Returns:
        The given columns, ``mean_rank``, ``n_ranks`` and ``rank``, sorted. Only methods that have every rank are
        placed: a mean over fewer, perhaps easier, lists is no better mean. The others stand below with NaN.
    """
    frame = ranks.copy()
    complete = ranks.notna().all(axis=1)
    frame["mean_rank"] = ranks.mean(axis=1).where(complete)
    frame["n_ranks"] = ranks.notna().sum(axis=1)
    frame["rank"] = frame["mean_rank"].round(12).rank(method="min")
    frame.index.name = "method"
    return frame.reset_index().sort_values(["rank", "method"], kind="stable", ignore_index=True).set_index("method")


def check_scheme(scheme: str) -> None:
    """Refuse an unknown scheme.

    Raises:
        UserError: with the nearest valid name.
    """
    from ...core.errors import unknown

    if scheme not in SCHEMES:
        raise unknown("ranking scheme", scheme, SCHEMES)
