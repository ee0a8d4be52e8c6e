"""The cluster bootstrap against its definition, written as loops."""

from __future__ import annotations

import numpy as np
import pytest
from multirater.benchmark.bootstrap import MIN_CLUSTERS, bootstrap_means, cluster_sums, percentile_intervals


def literal(values: np.ndarray, clusters: np.ndarray, draws: int, seed: int) -> list[float]:
    """Draw clusters one sample after the other and average the cases of the drawn ones."""
    generator = np.random.Generator(np.random.PCG64(seed))
    groups = int(clusters.max()) + 1
    means = []
    for _ in range(draws):
        cases: list[float] = []
        for g in generator.integers(0, groups, size=groups):
            cases += [float(v) for v in values[clusters == g] if not np.isnan(v)]
        means.append(sum(cases) / len(cases))
    return means


@pytest.fixture
def cases() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clusters = rng.permutation(np.concatenate([np.arange(12), rng.integers(0, 12, 30)]))
    values = rng.normal(size=(42, 3))
    values[[3, 8, 20], 1] = np.nan  # undefined cases leave the ratio of sums, not their patients
    return values, clusters


def test_means_follow_the_definition(cases: tuple[np.ndarray, np.ndarray]) -> None:
    values, clusters = cases
    means = bootstrap_means(*cluster_sums(values, clusters), draws=150, seed=5)
    for column in range(3):
        np.testing.assert_allclose(means[:, column], literal(values[:, column], clusters, 150, 5), atol=1e-12)


@pytest.mark.parametrize("block", [1, 37, 500])
def test_memory_blocks_do_not_move_the_draws(cases: tuple[np.ndarray, np.ndarray], block: int) -> None:
    sums, counts = cluster_sums(*cases)
    whole = bootstrap_means(sums, counts, draws=101, seed=1)
    np.testing.assert_allclose(bootstrap_means(sums, counts, draws=101, seed=1, block=block), whole, atol=1e-13)


def test_columns_share_their_draws(cases: tuple[np.ndarray, np.ndarray]) -> None:
    values, clusters = cases
    alone = percentile_intervals(values[:, 2:], clusters, draws=400)
    together = percentile_intervals(values, clusters, draws=400)
    np.testing.assert_allclose(alone.low[0], together.low[2], atol=1e-12)
    np.testing.assert_allclose(alone.high[0], together.high[2], atol=1e-12)


def test_interval_is_the_linear_percentile_of_ten_thousand_draws() -> None:
    rng = np.random.default_rng(2)
    values, clusters = rng.normal(size=(20, 1)), np.arange(20) // 2
    means = np.sort(bootstrap_means(*cluster_sums(values, clusters), draws=10_000, seed=20240229)[:, 0])
    position = 0.025 * 9999
    low = means[int(position)] + (position % 1) * (means[int(position) + 1] - means[int(position)])
    assert percentile_intervals(values, clusters).low[0] == pytest.approx(low, abs=1e-13)


def test_slices_of_a_patient_are_no_independent_cases() -> None:
    patients = np.repeat([0.0, 1.0], 10)
    values = np.repeat(patients, 8)[:, None]
    by_case = percentile_intervals(values, np.arange(160), draws=2000)
    by_patient = percentile_intervals(values, np.repeat(np.arange(20), 8), draws=2000)
    assert by_patient.high[0] - by_patient.low[0] > 2 * (by_case.high[0] - by_case.low[0])


def test_few_patients_give_no_interval_but_a_reason() -> None:
    values = np.random.default_rng(3).normal(size=(40, 2))
    clusters = np.arange(40) % MIN_CLUSTERS
    values[clusters == 0, 1] = np.nan
    found = percentile_intervals(values, clusters, draws=100)
    assert found.low[0] < found.high[0]
    assert found.note[0] == ""
    assert np.isnan(found.low[1])
    assert np.isnan(found.high[1])
    assert found.note[1] == "no interval: 9 patients, fewer than 10"
