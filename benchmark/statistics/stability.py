"""How firm a ranking is: the whole scheme again on resampled patients (metrics.md 13.5; Wiesenfarth et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..bootstrap import SEED, bootstrap_means, cluster_sums, draw_counts
from .holm import holm
from .order import ranks_with_missing
from .ranking import ALPHA, case_ranks, check_scheme, ranks_of
from .signed_rank import resampled_better
from .table import CaseTable, pair_indices

if TYPE_CHECKING:
    import pandas as pd

RANK_DRAWS = 1000  # the first ones of those that the intervals rest on
_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Stability:
    """Rankings of B bootstrap samples beside the one of all data.

    Attributes:
        methods: k names.
        scheme: of `ranking.SCHEMES`.
        reference: k ranks on all data.
        ranks: B×k.
        tau: B Kendall's τ_b of a sample's ranking with the reference; NaN where all methods are tied in either.
        note: why this says little, if so.
    """

    methods: tuple[str, ...]
    scheme: str
    reference: NDArray[np.float64]
    ranks: NDArray[np.float64]
    tau: NDArray[np.float64]
    note: str = ""

    @property
    def excluded(self) -> int:
        """Samples without τ_b: all ranks tied."""
        return int(np.isnan(self.tau).sum())

    @property
    def tau_quartiles(self) -> tuple[float, float, float]:
        """First quartile, median and third quartile of τ_b; NaN if every sample was excluded."""
        defined = self.tau[~np.isnan(self.tau)]
        if not len(defined):
            return (np.nan, np.nan, np.nan)
        low, middle, high = np.quantile(defined, [0.25, 0.5, 0.75])
        return float(low), float(middle), float(high)

    @property
    def p_first(self) -> NDArray[np.float64]:
        """Share of samples in which a method has rank 1; with ties the shares sum to more than 1."""
        return (self.ranks == 1).mean(0)

    def frequencies(self) -> pd.DataFrame:
        """Share of samples by method (lines) and rank (columns 1 to k), for the blob plot."""
        import pandas as pd

        places = np.arange(1, len(self.methods) + 1)
        share = (self.ranks[:, :, None] == places).mean(0)
        return pd.DataFrame(share, index=pd.Index(self.methods, name="method"), columns=places)

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Columns ``method, rank, rank_low, rank_high, p_first``: percentile interval of the rank, sorted by rank."""
        import pandas as pd

        low, high = np.quantile(self.ranks, [(1 - level) / 2, (1 + level) / 2], axis=0)
        columns = {
            "method": list(self.methods),
            "rank": self.reference.astype(int),
            "rank_low": low,
            "rank_high": high,
            "p_first": self.p_first,
        }
        return pd.DataFrame(columns).sort_values(["rank", "method"], kind="stable", ignore_index=True)


def rank_stability(
    table: CaseTable, scheme: str = "mean", draws: int = RANK_DRAWS, seed: int = SEED, correct: bool = False
) -> Stability:
    """Rank again in `draws` bootstrap samples of the patients.

    Args:
        table: values.
        scheme: of `ranking.SCHEMES`.
        draws: number of samples; the first of the draws behind the intervals.
        seed: of the draws.
        correct: Holm in the scheme ``test``.

    Raises:
        UserError: unknown scheme.
    """
    check_scheme(scheme)
    resampled: dict[str, Callable[[], NDArray[np.float64]]] = {
        "mean": lambda: table.loss(_means(table, table.values, draws, seed)),
        "rank": lambda: np.round(_means(table, _own(table, case_ranks(table)), draws, seed), 12),
        "median": lambda: table.loss(_medians(table, draws, seed)),
        "test": lambda: _beats(table, draws, seed, correct),
    }
    ranks = ranks_with_missing(resampled[scheme]())
    reference = ranks_of(table, scheme, correct)
    note = "" if table.n_clusters > 1 else "one patient: every sample is the same"
    return Stability(table.methods, scheme, reference, ranks, kendall_tau(ranks, reference), note)


def kendall_tau(ranks: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kendall's τ_b of B×k rankings with one of k: (C − D)/√((n0−n1)(n0−n2)); NaN where all are tied in either."""
    a, b = pair_indices(ranks.shape[-1])
    other = np.sign(ranks[..., a] - ranks[..., b])
    own = np.sign(reference[a] - reference[b])
    scale = np.sqrt((other != 0).sum(-1) * float((own != 0).sum()))
    return np.where(scale > 0, (other * own).sum(-1) / np.where(scale > 0, scale, 1.0), np.nan)


def _own(table: CaseTable, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of methods that have any: one that has none is last, whatever the ranks of its absence."""
    return np.where(np.isnan(table.values).all(axis=1, keepdims=True), np.nan, values)


def _means(table: CaseTable, values: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    return bootstrap_means(*cluster_sums(values.T, table.clusters), draws, seed)


def _medians(table: CaseTable, draws: int, seed: int) -> NDArray[np.float64]:
    """Medians of the drawn cases: a case counts as often as its patient was drawn."""
    out = np.full((draws, table.k), np.nan)
    orders = [np.argsort(row, kind="stable")[: int((~np.isnan(row)).sum())] for row in table.values]
    start = 0
    for times in draw_counts(table.n_clusters, draws, seed, max(1, _AT_ONCE // table.n) * table.n_clusters):
        for m, order in enumerate(orders):
            if not len(order):
                continue
            upto = np.cumsum(times[:, table.clusters[order]], axis=1)
            total = upto[:, -1:]
            value = table.values[m, order]
            # Middle or middles of `total` values, numbered from 0: the first whose cumulative count passes the number.
            lower = (upto <= (total - 1) // 2).sum(1)
            upper = (upto <= total // 2).sum(1)
            empty = total[:, 0] == 0
            last = len(order) - 1
            middle = (value[np.minimum(lower, last)] + value[np.minimum(upper, last)]) / 2
            out[start : start + len(times), m] = np.where(empty, np.nan, middle)
        start += len(times)
    return out


def _beats(table: CaseTable, draws: int, seed: int, correct: bool) -> NDArray[np.float64]:
    """Minus the share of the other methods that are significantly worse, in every sample: B×k."""
    k = table.k
    a, b = pair_indices(k)
    delta = table.sign * table.rounded(table.comparable[a] - table.comparable[b])
    per_cluster = table.rounded(table.cluster_means(delta))
    out = np.zeros((draws, k))
    start = 0
    for times in draw_counts(table.n_clusters, draws, seed, _AT_ONCE // 4):
        drawn = times.astype(np.int32)
        cubes = (times**3).sum(1)
        p = np.full((len(times), k, k), np.nan)
        for pair, (i, j) in enumerate(zip(a, b, strict=True)):
            if not np.isnan(per_cluster[pair]).all():
                p[:, i, j], p[:, j, i] = resampled_better(per_cluster[pair], drawn, cubes)
        if correct:
            p = holm(p.reshape(len(times), -1)).reshape(p.shape)
        out[start : start + len(times)] = -(p <= ALPHA).sum(2) / max(k - 1, 1)
        start += len(times)
    return np.where(np.isnan(table.values).all(1), np.nan, out)
