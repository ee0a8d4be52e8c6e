"""Rankings, their stability and their edge cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from multirater.benchmark.bootstrap import draw_counts
from multirater.benchmark.statistics import (
    SCHEMES,
    CaseTable,
    consensus,
    friedman,
    kendall_tau,
    leave_one_rater_out,
    means,
    one_sided,
    order_within,
    pairwise,
    rank_stability,
    ranking_table,
    ranks_of,
    spread,
)
from multirater.benchmark.statistics.raters import mean_without
from multirater.core.errors import UserError
from scipy import stats


def table(values: np.ndarray, clusters: np.ndarray | None = None, direction: str = "higher") -> CaseTable:
    k, n = values.shape
    return CaseTable(values, tuple("abcdefgh"[:k]), np.arange(n) if clusters is None else clusters, direction)


@pytest.fixture
def some() -> CaseTable:
    rng = np.random.default_rng(5)
    clusters = rng.permutation(np.concatenate([np.arange(16), rng.integers(0, 16, 30)]))
    values = rng.normal(size=(4, 46)) + np.array([[0.0], [0.2], [0.25], [0.8]])
    values[1, :5] = np.nan
    return table(values, clusters)


def test_schemes_by_hand() -> None:
    # a is best in most cases, b has the best mean because of one case, c is worst throughout.
    values = np.array([[0.9, 0.9, 0.9, 0.9, 0.0], [0.8, 0.8, 0.8, 0.8, 0.9], [0.1, 0.1, 0.1, 0.1, 0.0]])
    found = ranking_table(table(values)).set_index("method")
    assert list(found.index) == ["b", "a", "c"]
    assert found.loc["a", ["rank_mean", "rank_median", "rank_rank"]].tolist() == [2, 1, 1]
    assert found.loc["b", ["rank_mean", "rank_median", "rank_rank"]].tolist() == [1, 2, 2]
    assert found["moves"].tolist() == [True, True, False]
    assert found.loc["c", "rank_rank"] == 3
    lower = ranking_table(table(-values, direction="lower")).set_index("method")
    pd.testing.assert_frame_equal(found.drop(columns="value"), lower.drop(columns="value"))


def test_rank_of_test_counts_who_is_significantly_worse(some: CaseTable) -> None:
    beats = (one_sided(some) <= 0.05).sum(1)
    np.testing.assert_array_equal(ranks_of(some, "test"), stats.rankdata(-beats, method="min"))


def test_rank_of_test_where_wins_and_losses_disagree() -> None:
    """a beats c; b neither beats nor loses; so b and c, who beat nobody, share the second rank (challengeR's count)."""
    noise = np.random.default_rng(0).normal(size=30)
    values = np.array([np.full(30, 0.6), 0.6 + noise - np.median(noise), np.full(30, 0.599)])
    p = one_sided(table(values))
    assert (p <= 0.05).sum() == 1
    assert p[0, 2] <= 0.05
    assert ranks_of(table(values), "test").tolist() == [1, 2, 2]


def test_ties_share_the_smallest_rank_and_missing_come_after() -> None:
    values = np.array([[0.5, 0.7], [0.7, 0.5], [0.1, 0.1], [np.nan, np.nan]])
    assert ranks_of(table(values)).tolist() == [1, 1, 3, 4]
    one_missing = np.array([[0.5, 0.5], [0.5, 0.4], [np.nan, 0.9]])
    # Ranks in the two cases: (1, 2), (1, 3) and, one more than the largest, (2, 1).
    assert ranks_of(table(one_missing), "rank").tolist() == [1, 3, 1]


def test_a_target_is_compared_by_distance() -> None:
    gaps = table(np.array([[-0.1, 0.1], [0.05, 0.05], [0.2, -0.4]]), direction="target 0")
    assert ranks_of(gaps).tolist() == [1, 2, 3]  # the mean of a is on the target
    assert ranks_of(gaps, "rank").tolist() == [2, 1, 3]  # every case of b is nearer
    found = pairwise(gaps).set_index(["method_a", "method_b"])
    assert found.loc[("a", "b"), "difference"] == pytest.approx(0.05)
    assert found.loc[("a", "b"), "better"] == "b"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_resampled_rankings_are_rankings_of_the_resampled_cases(some: CaseTable, scheme: str) -> None:
    found = rank_stability(some, scheme, draws=25)
    times = np.concatenate(list(draw_counts(16, 25)))
    members = [np.flatnonzero(some.clusters == g) for g in range(16)]
    for b in range(25):
        drawn = [g for g in range(16) for _ in range(int(times[b, g]))]
        cases = np.concatenate([members[g] for g in drawn])
        own = np.concatenate([np.full(len(members[g]), i) for i, g in enumerate(drawn)])
        sample = CaseTable(some.values[:, cases], some.methods, own, "higher")
        np.testing.assert_array_equal(found.ranks[b], ranks_of(sample, scheme))
    np.testing.assert_array_equal(found.reference, ranks_of(some, scheme))


def test_kendalls_tau_is_scipys() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 6, (50, 7)).astype(float)
    reference = rng.integers(1, 6, 7).astype(float)
    theirs = [stats.kendalltau(row, reference).statistic for row in ranks]
    np.testing.assert_allclose(kendall_tau(ranks, reference), theirs, atol=1e-12)
    assert kendall_tau(reference[None], reference)[0] == pytest.approx(1)
    assert np.isnan(kendall_tau(np.ones((1, 7)), reference)[0])


def test_frequencies_and_intervals_of_ranks(some: CaseTable) -> None:
    found = rank_stability(some)
    shares = found.frequencies()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(shares[1], found.p_first)
    summary = found.summary().set_index("method")
    assert summary.index[0] == "d"
    assert summary.loc["d", "p_first"] > 0.9
    assert (summary["rank_low"] <= summary["rank"]).all()
    assert (summary["rank"] <= summary["rank_high"]).all()
    assert found.excluded == 0
    low, middle, high = found.tau_quartiles
    assert low <= middle <= high <= 1
    again = rank_stability(some)
    np.testing.assert_array_equal(found.ranks, again.ranks)


def test_constant_metric_has_one_rank_and_no_tau() -> None:
    same = table(np.full((3, 20), 0.7))
    for scheme in SCHEMES:
        found = rank_stability(same, scheme, draws=50)
        assert found.reference.tolist() == [1, 1, 1]
        assert found.excluded == 50
        assert np.isnan(found.tau_quartiles).all()
        assert found.p_first.tolist() == [1, 1, 1]
    pairs = pairwise(same)
    assert pairs["p"].tolist() == [1, 1, 1]
    assert pairs["p_bootstrap"].tolist() == [1, 1, 1]
    assert not pairs["significant"].any()
    assert set(pairs["better"]) == {""}
    assert friedman(same).p == 1
    assert not friedman(same).significant


def test_sums_in_another_order_do_not_break_a_tie() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.7, 0.9, 0.4])
    tied = table(np.stack([values, values[::-1]]))
    assert ranks_of(tied).tolist() == [1, 1]
    assert pairwise(tied)["difference"].tolist() == [0]
    assert pairwise(tied)["better"].tolist() == [""]


def test_one_method_one_case_and_no_case_in_common() -> None:
    alone = table(np.random.default_rng(0).normal(size=(1, 30)))
    assert len(pairwise(alone)) == 0
    assert ranks_of(alone, "test").tolist() == [1]
    assert rank_stability(alone).p_first.tolist() == [1]
    assert "1 method and 30 patients" in friedman(alone).note
    one_case = table(np.array([[0.2], [0.4]]))
    found = pairwise(one_case).iloc[0]
    assert found["difference"] == pytest.approx(-0.2)
    assert found["p"] == 1
    assert np.isnan(found["ci_low"])
    assert found["note"] == "no interval: 1 patients, fewer than 10"
    assert "no test: 2 methods and 1 patient," in friedman(one_case).note
    assert rank_stability(one_case).note == "one patient: every sample is the same"
    apart = table(np.array([[0.2] * 12 + [np.nan] * 12, [np.nan] * 12 + [0.4] * 12]))
    found = pairwise(apart).iloc[0]
    assert np.isnan(found["difference"])
    assert np.isnan(found["p"])
    assert not found["significant"]
    assert found["note"] == "no case in common"


def test_friedman_lets_a_missing_method_share_the_last_ranks() -> None:
    values = np.array([[3.0, 3.0], [2.0, np.nan], [1.0, np.nan]])
    found = friedman(table(values))
    np.testing.assert_allclose(found.mean_ranks, [1, 2.25, 2.75])


def test_friedman_with_one_order_in_all_patients() -> None:
    found = friedman(table(np.arange(3.0)[:, None] + np.random.default_rng(0).random((3, 9)) / 2))
    assert found.chi_square == pytest.approx(18)
    assert found.p == 0


def test_leaving_a_rater_out_can_turn_the_order() -> None:
    by_rater = {
        "r1": np.array([[0.9] * 6, [0.1] * 6]),
        "r2": np.array([[0.4] * 6, [0.5] * 6]),
        "r3": np.array([[0.4] * 6, [0.5] * 5 + [np.nan]]),
    }
    full = table(np.nanmean(np.stack(list(by_rater.values())), axis=0))
    found = leave_one_rater_out(full, mean_without(full, by_rater))
    assert found.reference.tolist() == [1, 2]
    assert found.ranks["r1"].tolist() == [2, 1]
    assert found.ranks["r2"].tolist() == [1, 2]
    assert found.smallest == ("r1", -1)
    assert found.frame().loc["a"].to_dict() == {"all": 1, "r1": 2, "r2": 1, "r3": 1}
    with pytest.raises(UserError, match="without rater r9 holds"):
        leave_one_rater_out(full, {"r9": full.select(["b", "a"])})


def test_consensus_places_only_methods_with_every_rank() -> None:
    ranks = pd.DataFrame({"ged": [1.0, 2, 3], "dice": [2.0, 1, np.nan]}, index=["a", "b", "c"])
    found = consensus(ranks)
    assert found.loc[["a", "b"], "rank"].tolist() == [1, 1]
    assert found.loc["a", "mean_rank"] == 1.5
    assert np.isnan(found.loc["c", "rank"])
    assert found.loc["c", "n_ranks"] == 1


@pytest.fixture
def runs() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    lines = [
        {"method": m, "seed": s, "fold": f, "case_id": f"c{f}{i}", "patient_id": f"p{f}{i}", "value": v + rng.normal()}
        for m, v in (("a", 0.0), ("b", 2.0))
        for s in (0, 1, 2)
        for f in (0, 1)
        for i in range(5 + f)
    ]
    return pd.DataFrame(lines)


def test_spread_over_seeds_and_folds(runs: pd.DataFrame) -> None:
    found = spread(runs).set_index("method")
    a = runs[runs.method == "a"]
    seeds = [a[a.seed == s].value.mean() for s in (0, 1, 2)]
    folds = [a[a.fold == f].value.mean() for f in (0, 1)]
    assert found.loc["a", "sd_seeds"] == pytest.approx(np.std(seeds, ddof=1))
    assert found.loc["a", "sd_folds"] == pytest.approx(np.std(folds, ddof=1))
    assert found.loc["a", "value"] == pytest.approx(a.value.mean())
    assert found.loc["a", ["n_seeds", "n_folds"]].tolist() == [3, 2]
    single = spread(runs[runs.seed == 0]).set_index("method")
    assert np.isnan(single.loc["a", "sd_seeds"])
    order = order_within(runs, "seed", direction="higher")
    assert order["tau"].tolist() == [1, 1, 1]
    with pytest.raises(UserError, match="lacks fold"):
        spread(runs.drop(columns="fold"))


def test_table_from_a_frame_ignores_the_order_of_lines(runs: pd.DataFrame) -> None:
    frame = runs[runs.seed == 0]
    one, two = CaseTable.from_frame(frame, "dice_soft"), CaseTable.from_frame(frame[::-1], "dice_soft")
    np.testing.assert_array_equal(one.values, two.values)
    assert (one.methods, one.cases, one.direction) == (two.methods, two.cases, "higher")
    pd.testing.assert_frame_equal(means(one), means(two))


def test_what_is_wrong_is_said(runs: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="a has two values of case c00; average over seeds"):
        CaseTable.from_frame(runs, "ged")
    one = runs[runs.seed == 0].copy()
    with pytest.raises(UserError, match="direction 'none'"):
        CaseTable.from_frame(one, "diversity_samples")
    moved = one.copy()
    moved.loc[moved.index[0], "patient_id"] = "other"
    with pytest.raises(UserError, match="case c00 belongs to two patients"):
        CaseTable.from_frame(moved, "ged")
    with pytest.raises(UserError, match="no case values"):
        CaseTable.from_frame(one[:0], "ged")
    one.loc[one.index[2], "value"] = np.inf
    with pytest.raises(UserError, match="value of a in case c02 is infinite"):
        CaseTable.from_frame(one, "ged")
    with pytest.raises(UserError, match="unknown ranking scheme 'means': did you mean 'mean'"):
        ranks_of(table(np.eye(2)), "means")
