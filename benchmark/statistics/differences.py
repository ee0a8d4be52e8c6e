"""Means and paired differences with bootstrap intervals, tests and effect sizes: every pair of a table at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ..bootstrap import DRAWS, MIN_CLUSTERS, SEED, bootstrap_means, cluster_sums
from .holm import holm
from .location import hodges_lehmann
from .signed_rank import SignedRank, Zeros, signed_rank
from .table import CaseTable, pair_indices

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["percentile", "expanded", "bca"]
LEVEL = 0.95
ALPHA = 0.05
MEAN_COLUMNS = ("method", "value", "ci_low", "ci_high", "sd_cases", "n_cases", "n_patients", "note")
PAIR_COLUMNS = (
    "method_a",
    "method_b",
    "n_cases",
    "n_patients",
    "difference",
    "ci_low",
    "ci_high",
    "p_bootstrap",
    "statistic",
    "p",
    "p_holm",
    "better",
    "significant",
    "rank_biserial",
    "win_rate",
    "hodges_lehmann",
    "note",
)
_COLUMNS_AT_ONCE = 256


def means(
    table: CaseTable, level: float = LEVEL, draws: int = DRAWS, seed: int = SEED, kind: Kind = "percentile"
) -> pd.DataFrame:
    """The mean of every method with its interval over patients (metrics.md 13.1), columns `MEAN_COLUMNS`."""
    import pandas as pd

    found = _Bootstrap(table, table.values, level, draws, seed, kind)
    counted = ~np.isnan(table.values)
    n = counted.sum(1)
    value = np.where(n > 0, np.where(counted, table.values, 0.0).sum(1) / np.maximum(n, 1), np.nan)
    spread = np.where(counted, (table.values - value[:, None]) ** 2, 0.0).sum(1)
    columns = {
        "method": list(table.methods),
        "value": value,
        "ci_low": found.low,
        "ci_high": found.high,
        "sd_cases": np.where(n > 1, np.sqrt(spread / np.maximum(n - 1, 1)), np.nan),
        "n_cases": n,
        "n_patients": found.clusters,
        "note": found.note,
    }
    return pd.DataFrame(columns, columns=list(MEAN_COLUMNS))


def pairwise(
    table: CaseTable,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = SEED,
    kind: Kind = "percentile",
    zeros: Zeros = "drop",
    pairs: Sequence[tuple[str, str]] | None = None,
) -> pd.DataFrame:
    """Every pair A, B: difference, interval, tests, effect sizes; one family for Holm.

    A pair is compared on the cases of both. `difference` and `hodges_lehmann` are A − B in the metric's own sense (of
    the distances from the target where there is one); `better` names whom the mean difference favours; `p` is the
    two-sided Wilcoxon test of the cluster means, `p_bootstrap` that of the mean difference; `significant` is
    ``p_holm <= 0.05``; `rank_biserial` and `win_rate` are above 0 and 0.5 where A is better.

    Args:
        table: values.
        level: of the intervals.
        draws: bootstrap samples, the same for all pairs and those of `means`.
        seed: of the draws.
        kind: of interval.
        zeros: Wilcoxon's zero differences.
        pairs: pairs of names that make the family; None: all.

    Returns:
        One line per pair, `PAIR_COLUMNS`; none for a single method.
    """
    import pandas as pd

    if pairs is None:
        a, b = pair_indices(table.k)
    else:
        table.select([name for pair in pairs for name in pair])  # an unknown name ends here
        a = np.array([table.methods.index(x) for x, _ in pairs], dtype=np.intp)
        b = np.array([table.methods.index(y) for _, y in pairs], dtype=np.intp)
    delta = table.rounded(table.comparable[a] - table.comparable[b])
    found = _Bootstrap(table, delta, level, draws, seed, kind)
    per_cluster = table.rounded(table.cluster_means(delta))
    test = signed_rank(table.sign * per_cluster, zeros=zeros)
    adjusted = holm(test.p)
    n = (~np.isnan(delta)).sum(1)
    difference = np.where(n > 0, np.nansum(delta, 1) / np.maximum(n, 1), np.nan)
    difference = table.rounded(difference)
    names = np.array([*table.methods, ""], dtype=object)
    gain = np.nan_to_num(table.sign * difference)
    better = names[np.where(gain > 0, a, np.where(gain < 0, b, len(names) - 1))]
    columns = {
        "method_a": names[a],
        "method_b": names[b],
        "n_cases": n,
        "n_patients": found.clusters,
        "difference": difference,
        "ci_low": found.low,
        "ci_high": found.high,
        "p_bootstrap": found.p,
        "statistic": test.statistic,
        "p": test.p,
        "p_holm": adjusted,
        "better": better,
        "significant": adjusted <= ALPHA,
        "rank_biserial": test.rank_biserial,
        "win_rate": test.win_rate,
        "hodges_lehmann": [hodges_lehmann(row) for row in per_cluster],
        "note": [note or ("" if m else "no case in common") for note, m in zip(found.note, n, strict=True)],
    }
    return pd.DataFrame(columns, columns=list(PAIR_COLUMNS))


def paired_tests(table: CaseTable, a: NDArray[np.intp], b: NDArray[np.intp], zeros: Zeros = "drop") -> SignedRank:
    """Two-sided Wilcoxon tests of the cluster means of pairs of rows; effects above 0 where `a` is better."""
    delta = table.rounded(table.comparable[a] - table.comparable[b])
    return signed_rank(table.sign * table.rounded(table.cluster_means(delta)), zeros=zeros)


class _Bootstrap:
    """Intervals, two-sided p-values and notes of the means of P rows of case values."""

    def __init__(
        self, table: CaseTable, values: NDArray[np.float64], level: float, draws: int, seed: int, kind: Kind
    ) -> None:
        rows = len(values)
        sums, counts = cluster_sums(values.T, table.clusters)
        self.clusters = (counts > 0).sum(0)
        self.low, self.high, self.p = np.full(rows, np.nan), np.full(rows, np.nan), np.full(rows, np.nan)
        self.note = [
            "" if g >= MIN_CLUSTERS or g == 0 else f"no interval: {g} patients, fewer than {MIN_CLUSTERS}"
            for g in self.clusters
        ]
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        use = np.flatnonzero(self.clusters >= MIN_CLUSTERS)
        for start in range(0, len(use), _COLUMNS_AT_ONCE):
            part = use[start : start + _COLUMNS_AT_ONCE]
            s, c = sums[:, part], counts[:, part]
            drawn = bootstrap_means(s, c, draws, seed)
            quantile = np.nanquantile if np.isnan(drawn).any() else np.quantile
            if kind == "percentile":
                self.low[part], self.high[part] = quantile(drawn, tails, axis=0)
            else:
                levels = (
                    _bca_levels(drawn, s, c, tails) if kind == "bca" else expanded_levels(self.clusters[part], tails)
                )
                for i, (column, level_of) in enumerate(zip(part, levels, strict=True)):
                    self.low[column], self.high[column] = np.nanquantile(drawn[:, i], level_of)
            below, above = (drawn <= 0).sum(0), (drawn >= 0).sum(0)
            self.p[part] = np.minimum(1.0, 2 * (1 + np.minimum(below, above)) / (draws + 1))


def expanded_levels(clusters: NDArray[np.intp], tails: NDArray[np.float64]) -> NDArray[np.float64]:
    """Levels of the expanded percentile interval, K×2: Φ(√(G/(G−1)) t_{G−1}(α)) (Hesterberg 2015, section 5.2).

    Percentiles of few clusters are too narrow: resampling shrinks the variance by (G−1)/G, and the normal shape of the
    draws stands where Student's t should.
    """
    from scipy.special import ndtr, stdtrit

    g = clusters.astype(np.float64)[:, None]
    return np.asarray(ndtr(np.sqrt(g / (g - 1)) * stdtrit(g - 1, tails[None])))


def _bca_levels(
    drawn: NDArray[np.float64], sums: NDArray[np.float64], counts: NDArray[np.float64], tails: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Levels of the bias-corrected and accelerated interval, K×2 (Efron 1987; metrics.md 13.1)."""
    from scipy.special import ndtr, ndtri

    total, number = sums.sum(0), counts.sum(0)
    estimate = total / number
    # Where all draws fall on one side there is no finite correction: the outermost share stands in.
    count = len(drawn)
    share = np.clip((drawn < estimate).mean(0), 0.5 / count, 1 - 0.5 / count)
    flat = np.ptp(drawn, axis=0) == 0
    bias = np.where(flat, 0.0, ndtri(share))
    rest = np.where(number - counts > 0, (total - sums) / np.maximum(number - counts, 1), np.nan)
    away = np.nanmean(rest, axis=0) - rest
    squares = np.nansum(away**2, axis=0)
    bend = np.where(squares > 0, np.nansum(away**3, axis=0) / (6 * np.where(squares > 0, squares, 1.0) ** 1.5), 0.0)
    normal = bias[:, None] + ndtri(tails)[None]
    return np.asarray(ndtr(bias[:, None] + normal / (1 - bend[:, None] * normal)))
