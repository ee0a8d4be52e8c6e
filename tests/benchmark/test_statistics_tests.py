"""Tests, corrections and effect sizes against SciPy, statsmodels, scikit-posthocs and their definitions as loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from multirater.benchmark.statistics import (
    CaseTable,
    friedman,
    groups_by_distance,
    groups_by_tests,
    holm,
    nemenyi_distance,
    one_sided,
    signed_rank,
)
from multirater.benchmark.statistics.location import hodges_lehmann
from multirater.benchmark.statistics.order import tied_ranks
from multirater.benchmark.statistics.signed_rank import resampled_better
from scipy import stats
from statsmodels.stats.multitest import multipletests

RNG = np.random.default_rng(7)
CONTINUOUS = RNG.normal(0.2, 1, (3, 24))
TIED = RNG.integers(-3, 5, (3, 40)) / 2.0
LARGE = RNG.normal(0.05, 1, (2, 180))


def alone(values: np.ndarray, direction: str = "higher") -> CaseTable:
    """Every case a patient of its own."""
    k, n = values.shape
    return CaseTable(values, tuple(f"m{i}" for i in range(k)), np.arange(n), direction)


@pytest.mark.parametrize("ties", ["min", "average"])
@pytest.mark.parametrize("values", [CONTINUOUS, TIED])
def test_ranks_are_scipys(values: np.ndarray, ties: str) -> None:
    np.testing.assert_array_equal(tied_ranks(values, ties)[0], stats.rankdata(values, method=ties, axis=1))


@pytest.mark.parametrize("delta", [CONTINUOUS, TIED, LARGE], ids=["exact", "tied", "large"])
@pytest.mark.parametrize("zeros", ["drop", "pratt"])
def test_signed_rank_is_scipys(delta: np.ndarray, zeros: str) -> None:
    found = signed_rank(delta, zeros=zeros)
    for i, row in enumerate(delta):
        exact = len(row) <= 50 and len(set(np.abs(row))) == len(row) and (row != 0).all()
        theirs = stats.wilcoxon(
            row,
            zero_method="wilcox" if zeros == "drop" else "pratt",
            correction=True,
            method="exact" if exact else "asymptotic",
        )
        assert found.exact[i] == exact
        assert found.p[i] == pytest.approx(theirs.pvalue, abs=1e-12)
        assert min(found.statistic[i], _total(row, zeros) - found.statistic[i]) == pytest.approx(theirs.statistic)


def _total(row: np.ndarray, zeros: str) -> float:
    used = row if zeros == "pratt" else row[row != 0]
    ranks = stats.rankdata(np.abs(used))
    return float(ranks[used != 0].sum())


@pytest.mark.parametrize("delta", [CONTINUOUS, TIED, LARGE])
def test_one_sided_test_is_challengers(delta: np.ndarray) -> None:
    found = signed_rank(delta, "better")
    for i, row in enumerate(delta):
        row = row[row != 0]  # SciPy's own count of n keeps zeros out only of the ranks
        theirs = stats.wilcoxon(row, alternative="greater", correction=True, method="asymptotic")
        assert found.p[i] == pytest.approx(theirs.pvalue, abs=1e-12)
    assert not found.exact.any()


def test_exact_distribution_by_counting_all_signs() -> None:
    row = np.array([0.3, -1.1, 0.7, 2.0, -0.2, 0.9])
    ranks = stats.rankdata(np.abs(row))
    sums = [float(np.dot(ranks, signs)) for signs in itertools.product([0, 1], repeat=6)]
    observed = ranks[row > 0].sum()
    tail = min(np.mean(np.array(sums) >= observed), np.mean(np.array(sums) <= observed))
    assert signed_rank(row[None]).p[0] == pytest.approx(min(1, 2 * tail), abs=1e-15)


def test_effect_sizes_from_their_definitions() -> None:
    row = np.array([1.0, -2.0, 3.0, 0.0, 4.0, np.nan])
    found = signed_rank(row[None])
    assert found.n[0] == 4
    assert found.statistic[0] == 1 + 3 + 4
    assert found.rank_biserial[0] == pytest.approx((2 * 8 - 10) / 10)
    assert found.win_rate[0] == pytest.approx((3 + 0.5) / 5)


def test_nothing_differs_and_nothing_there() -> None:
    found = signed_rank(np.array([[0.0, 0.0, 0.0], [np.nan, np.nan, np.nan]]))
    assert found.p[0] == 1
    assert found.rank_biserial[0] == 0
    assert found.win_rate[0] == 0.5
    assert np.isnan([found.p[1], found.rank_biserial[1], found.win_rate[1]]).all()


@pytest.mark.parametrize("n", [1, 2, 9, 299, 301, 640])
@pytest.mark.parametrize("kind", ["continuous", "tied", "constant", "heavy", "mostly zero"])
def test_hodges_lehmann_is_the_median_of_all_means_of_two(n: int, kind: str) -> None:
    rng = np.random.default_rng(n)
    x = {
        "continuous": rng.normal(size=n),
        "tied": rng.integers(-3, 9, n) / 7,
        "constant": np.full(n, 0.3),
        "heavy": rng.standard_cauchy(n),
        "mostly zero": np.where(np.arange(n) < 5, rng.normal(size=n), 0.0),
    }[kind]
    i, j = np.triu_indices(n)
    assert hodges_lehmann(np.append(x, np.nan)) == pytest.approx(np.median(x[i] + x[j]) / 2, rel=1e-14, abs=1e-16)


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_statsmodels(seed: int) -> None:
    p = np.random.default_rng(seed).random(9) ** 3
    p[3] = p[5]
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-15)
    assert (holm(p) >= p).all()
    assert (np.diff(holm(p)[np.argsort(p)]) >= 0).all()


def test_holm_counts_only_the_tests_that_were_made() -> None:
    np.testing.assert_allclose(holm([0.01, np.nan, 0.02]), [0.02, np.nan, 0.02])
    assert holm([]).shape == (0,)
    np.testing.assert_allclose(holm([[0.03, 0.01], [0.5, np.nan]]), [[0.03, 0.02], [0.5, np.nan]])


def test_all_pairs_one_sided_keep_their_places() -> None:
    values = RNG.normal(size=(4, 30))
    values[2, :9] = np.nan
    p = one_sided(alone(values, "lower"))
    assert np.isnan(np.diag(p)).all()
    for a, b in itertools.permutations(range(4), 2):
        delta = values[b] - values[a]  # lower is better: positive where a wins
        theirs = stats.wilcoxon(delta[~np.isnan(delta)], alternative="greater", correction=True, method="asymptotic")
        assert p[a, b] == pytest.approx(theirs.pvalue, abs=1e-12)
    corrected = one_sided(alone(values, "lower"), correct=True)
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(corrected[off], multipletests(p[off], method="holm")[1])


@pytest.mark.parametrize("kind", ["continuous", "tied", "with zeros and missing"])
def test_resampled_test_is_the_test_of_the_sample(kind: str) -> None:
    rng = np.random.default_rng(3)
    delta = rng.normal(0.1, 1, 40)
    if kind == "tied":
        delta = np.round(delta * 3) / 3 + 0.1
    if kind == "with zeros and missing":
        delta[:6], delta[6:9] = 0.0, np.nan
    drawn = rng.integers(0, 40, (60, 40))
    times = np.stack([np.bincount(d, minlength=40) for d in drawn]).astype(np.int32)
    better, worse = resampled_better(delta, times, (times.astype(float) ** 3).sum(1))
    np.testing.assert_allclose(better, signed_rank(delta[drawn], "better").p, atol=1e-12)
    np.testing.assert_allclose(worse, signed_rank(-delta[drawn], "better").p, atol=1e-12)


@pytest.mark.parametrize("direction", ["higher", "lower"])
@pytest.mark.parametrize("tied", [False, True])
def test_friedman_is_scipys_and_its_f_the_two_way_anova_of_ranks(direction: str, tied: bool) -> None:
    rng = np.random.default_rng(11)
    values = rng.normal(size=(5, 26)) + np.linspace(0, 0.6, 5)[:, None]
    values = np.round(values) if tied else values
    found = friedman(alone(values, direction))
    theirs = stats.friedmanchisquare(*values)
    assert found.chi_square == pytest.approx(theirs.statistic, rel=1e-12)
    assert found.p_chi_square == pytest.approx(theirs.pvalue, rel=1e-10)
    # Independent of the formula: F of the methods in the analysis of variance of the ranks with patients as blocks.
    ranks = stats.rankdata(values if direction == "lower" else -values, axis=0)
    between = 26 * ((ranks.mean(1) - 3) ** 2).sum()
    within = ((ranks - ranks.mean(1, keepdims=True)) ** 2).sum()
    anova = (between / 4) / (within / (4 * 25))
    assert found.statistic == pytest.approx(anova, rel=1e-10)
    assert found.p == pytest.approx(stats.f.sf(anova, 4, 100), rel=1e-9)
    np.testing.assert_allclose(found.mean_ranks, ranks.mean(1))


def test_friedman_ranks_patients_not_cases() -> None:
    values = RNG.normal(size=(3, 12))
    table = CaseTable(np.repeat(values, 4, axis=1), ("a", "b", "c"), np.repeat(np.arange(12), 4), "higher")
    assert friedman(table).chi_square == pytest.approx(friedman(alone(values)).chi_square)
    assert friedman(table).n == 12


def test_critical_difference_has_the_published_quantiles() -> None:
    table = [1.960, 2.344, 2.569, 2.728, 2.850, 2.948, 3.031, 3.102, 3.164]
    for k, q in enumerate(table, start=2):
        assert nemenyi_distance(k, 30) / np.sqrt(k * (k + 1) / 180) == pytest.approx(q, abs=1.1e-3)


def test_nemenyi_joins_the_pairs_of_scikit_posthocs() -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    values = RNG.normal(size=(5, 40)) + np.linspace(0, 1.2, 5)[:, None]
    found = friedman(alone(values))
    p = posthocs.posthoc_nemenyi_friedman(-values.T).to_numpy()
    names = np.array(found.methods)
    joined = groups_by_distance(found.methods, found.mean_ranks, nemenyi_distance(5, 40))
    for a, b in itertools.combinations(range(5), 2):
        together = any({names[a], names[b]} <= set(group) for group in joined)
        assert together == (p[a, b] > 0.05)


def test_bars_are_the_maximal_runs_without_a_significant_pair() -> None:
    p = np.ones((4, 4))
    p[0, 3] = p[3, 0] = 0.01
    assert groups_by_tests("abcd", np.array([1.0, 2.0, 3.0, 4.0]), p) == [("a", "b", "c"), ("b", "c", "d")]
    p[1, 2] = p[2, 1] = 0.01
    assert groups_by_tests("abcd", np.array([1.0, 2.0, 3.0, 4.0]), p) == [("a", "b"), ("c", "d")]
    assert groups_by_tests("ab", np.array([1.0, 2.0]), np.full((2, 2), np.nan)) == []
