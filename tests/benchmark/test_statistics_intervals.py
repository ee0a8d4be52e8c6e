"""Intervals and differences against their definitions, and coverage and family error where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from multirater.benchmark.bootstrap import bootstrap_means, cluster_sums, draw_counts, percentile_intervals
from multirater.benchmark.statistics import CaseTable, holm, means, pairwise, signed_rank
from multirater.benchmark.statistics.differences import expanded_levels
from multirater.benchmark.statistics.table import pair_indices
from multirater.core.seeding import numpy_generator
from scipy import stats

BENCHMARKS = 2000


@pytest.fixture
def some() -> CaseTable:
    rng = np.random.default_rng(5)
    clusters = rng.permutation(np.concatenate([np.arange(16), rng.integers(0, 16, 30)]))
    values = rng.gamma(2, size=(3, 46))
    values[1, :5] = np.nan
    return CaseTable(values, ("a", "b", "c"), clusters, "lower")


def test_means_are_those_of_the_leaderboard(some: CaseTable) -> None:
    found = means(some)
    board = percentile_intervals(some.values.T, some.clusters)
    np.testing.assert_array_equal(found["ci_low"], board.low)
    np.testing.assert_array_equal(found["ci_high"], board.high)
    np.testing.assert_allclose(found["value"], np.nanmean(some.values, axis=1))
    np.testing.assert_allclose(found["sd_cases"], np.nanstd(some.values, axis=1, ddof=1))
    assert found["n_cases"].tolist() == [46, 41, 46]


def test_differences_by_definition(some: CaseTable) -> None:
    found = pairwise(some, draws=400).set_index(["method_a", "method_b"])
    times = np.concatenate(list(draw_counts(16, 400)))
    for (a, b), line in found.iterrows():
        x, y = some.values[some.methods.index(a)], some.values[some.methods.index(b)]
        delta = x - y
        use = ~np.isnan(delta)
        drawn = []
        for row in times:
            weight = row[some.clusters] * use
            drawn.append(np.nansum(weight * np.nan_to_num(delta)) / weight.sum())
        low, high = np.percentile(drawn, [2.5, 97.5])
        assert line["ci_low"] == pytest.approx(low, abs=1e-9)
        assert line["ci_high"] == pytest.approx(high, abs=1e-9)
        below, above = (1 + np.sum(np.array(drawn) <= 0)) / 401, (1 + np.sum(np.array(drawn) >= 0)) / 401
        assert line["p_bootstrap"] == pytest.approx(min(1, 2 * min(below, above)))
        patients = np.unique(some.clusters[use])  # one patient has a value of one method only
        of_clusters = np.array([delta[(some.clusters == g) & use].mean() for g in patients])
        assert line["n_patients"] == len(patients)
        assert line["p"] == pytest.approx(stats.wilcoxon(of_clusters).pvalue)
        assert line["win_rate"] == pytest.approx((of_clusters < 0).mean())  # lower is better
        assert line["better"] == (a if delta[use].mean() < 0 else b)
        assert line["n_cases"] == use.sum()
    np.testing.assert_allclose(found["p_holm"], holm(found["p"].to_numpy()))


def test_bca_by_its_formulas_and_near_scipys() -> None:
    rng = np.random.default_rng(2)
    x = rng.gamma(0.7, size=40)
    table = CaseTable(x[None], ("a",), np.arange(40))
    found = means(table, kind="bca").iloc[0]
    drawn = bootstrap_means(*cluster_sums(x[:, None], np.arange(40)))[:, 0]
    z0 = stats.norm.ppf((drawn < x.mean()).mean())
    rest = np.array([np.delete(x, i).mean() for i in range(40)])
    a = ((rest.mean() - rest) ** 3).sum() / (6 * ((rest.mean() - rest) ** 2).sum() ** 1.5)
    levels = [stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))) for z in stats.norm.ppf([0.025, 0.975])]
    np.testing.assert_allclose([found["ci_low"], found["ci_high"]], np.quantile(drawn, levels), rtol=1e-12)
    theirs = stats.bootstrap((x,), np.mean, method="BCa", n_resamples=9999, rng=np.random.default_rng(0))
    width = found["ci_high"] - found["ci_low"]
    assert found["ci_low"] == pytest.approx(theirs.confidence_interval.low, abs=0.04 * width)
    assert found["ci_high"] == pytest.approx(theirs.confidence_interval.high, abs=0.04 * width)


def test_bca_of_a_constant_is_the_constant() -> None:
    found = means(CaseTable(np.full((1, 20), 0.25), ("a",), np.arange(20)), kind="bca").iloc[0]
    assert (found["ci_low"], found["ci_high"]) == (0.25, 0.25)


def test_fewer_draws_are_the_first_of_more() -> None:
    whole = np.concatenate(list(draw_counts(23, 900)))
    np.testing.assert_array_equal(np.concatenate(list(draw_counts(23, 300))), whole[:300])
    np.testing.assert_array_equal(np.concatenate(list(draw_counts(23, 900, block=50))), whole)
    assert (whole.sum(1) == 23).all()


def clustered(rng: np.random.Generator, patients: int, benchmarks: int) -> tuple[np.ndarray, np.ndarray]:
    """Deviations of cases in patients of 1 to 9 cases that share most of their variance, and the patients."""
    sizes = 1 + rng.integers(0, 9, patients)
    clusters = np.repeat(np.arange(patients), sizes)
    shared = rng.normal(size=(patients, benchmarks))[clusters]
    return 0.8 * shared + 0.6 * rng.normal(size=(len(clusters), benchmarks)), clusters


def test_intervals_cover_the_truth_in_simulated_benchmarks() -> None:
    """2,000 benchmarks of two methods on 60 patients: means that are skewed as Dice is, and their difference."""
    rng = numpy_generator("simulation", subject="coverage")
    common, clusters = clustered(rng, 60, BENCHMARKS)
    inside = {}
    for name, transform, truth in (
        ("normal", lambda z: 0.7 + 0.1 * z, 0.7),
        ("skewed", lambda z: stats.beta.ppf(stats.norm.cdf(z), 6, 2), 0.75),  # a Dice of 0.75 with a long left tail
    ):
        found = percentile_intervals(transform(common), clusters)
        inside[name] = np.mean((found.low <= truth) & (truth <= found.high))
    # Two methods see the same patients: their case values go together, and so do their patients' effects.
    own, other = (
        np.sqrt(0.5) * (0.8 * rng.normal(size=(60, BENCHMARKS))[clusters] + 0.6 * rng.normal(size=common.shape))
        for _ in range(2)
    )
    base = np.sqrt(0.5) * common
    delta = (0.72 + 0.1 * (base + own)) - (0.70 + 0.1 * (base + other))
    found = percentile_intervals(delta, clusters)
    inside["difference"] = np.mean((found.low <= 0.02) & (found.high >= 0.02))
    for name, share in inside.items():
        assert 0.93 <= share <= 0.97, (name, share)


def test_expanded_percentiles_cover_with_few_patients() -> None:
    """Plain percentiles of 12 patients cover too little; the expanded ones come near to what they promise."""
    common, clusters = clustered(numpy_generator("simulation", subject="few patients"), 12, 1000)
    table = CaseTable(common.T, tuple(f"m{i}" for i in range(1000)), clusters)
    share = {}
    for kind in ("percentile", "expanded"):
        found = means(table, draws=1000, kind=kind)
        share[kind] = float(np.mean((found["ci_low"] <= 0) & (found["ci_high"] >= 0)))
    assert share["percentile"] < 0.91
    assert max(0.915, share["percentile"] + 0.02) < share["expanded"] <= 0.97


def test_expanded_levels_by_their_formula_and_in_the_limit() -> None:
    found = expanded_levels(np.array([10, 10_000]), np.array([0.025, 0.975]))
    assert found[0, 0] == pytest.approx(stats.norm.cdf(np.sqrt(10 / 9) * stats.t.ppf(0.025, 9)))
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(found[1], [0.025, 0.975], atol=1e-4)


def test_intervals_that_take_cases_for_patients_do_not_cover() -> None:
    """What the clusters are for: the same simulation with every case as a patient of its own."""
    common, clusters = clustered(numpy_generator("simulation", subject="unclustered"), 60, 500)
    found = percentile_intervals(common, np.arange(len(clusters)), draws=1000)
    assert np.mean((found.low <= 0) & (found.high >= 0)) < 0.80


@pytest.mark.parametrize("equal", [6, 4], ids=["all equal", "two differ"])
def test_holm_keeps_the_family_error(equal: int) -> None:
    """2,000 benchmarks of 6 methods on 40 patients; an error is any significant pair among methods that are equal."""
    rng = numpy_generator("simulation", subject="family", equal=equal)
    base, clusters = clustered(rng, 40, BENCHMARKS)
    patients = 40
    a, b = pair_indices(6)
    methods = np.empty((6, patients, BENCHMARKS))
    for m in range(6):
        effect = 0.0 if m < equal else 0.3 * (m - equal + 1)
        noise = 0.8 * rng.normal(size=(patients, BENCHMARKS))[clusters] + 0.6 * rng.normal(size=base.shape)
        sums, counts = cluster_sums(base + noise + effect, clusters)
        methods[m] = sums / counts
    delta = (methods[a] - methods[b]).transpose(2, 0, 1).reshape(-1, patients)
    p = holm(signed_rank(delta).p.reshape(BENCHMARKS, -1))
    null = (a < equal) & (b < equal)
    error = np.mean((p[:, null] <= 0.05).any(1))
    assert 0.005 < error < 0.05, error  # near 0 would mean a test that never finds anything
    if equal < 6:
        assert np.mean(p[:, (a < equal) & (b == 5)] <= 0.05) > 0.2


def test_bootstrap_p_holds_its_level() -> None:
    rng = numpy_generator("simulation", subject="p of the mean difference")
    delta, clusters = clustered(rng, 60, 400)
    table = CaseTable(
        np.concatenate([delta.T, np.zeros((1, len(delta)))]),
        (*(f"d{i}" for i in range(400)), "zero"),
        clusters,
    )
    found = pairwise(table, draws=2000, pairs=[(f"d{i}", "zero") for i in range(400)])
    assert 0.02 < np.mean(found["p_bootstrap"] <= 0.05) < 0.09
