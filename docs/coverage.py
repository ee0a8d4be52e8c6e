"""Coverage of 95 % intervals in 2,000 simulated benchmarks by number of patients: ``python docs/coverage.py``.

Patients have 1 to 9 cases that share most of their variance; the mean is that of a normal metric, and of a skewed one
(a Dice of 0.75 with a long left tail). Prints the table of docs/statistics.md.
"""

from __future__ import annotations

import numpy as np
from multirater.benchmark.bootstrap import bootstrap_means, cluster_sums
from multirater.benchmark.statistics.differences import expanded_levels
from multirater.core.seeding import numpy_generator
from scipy import stats

PATIENTS = (10, 15, 20, 30, 40, 60, 100, 156)
BENCHMARKS, DRAWS = 2000, 2000
TAILS = np.array([0.025, 0.975])


def coverage(patients: int) -> list[float]:
    """Shares for normal percentile, normal expanded, skewed percentile, skewed expanded."""
    rng = numpy_generator("simulation", subject="cov", g=patients)
    sizes = 1 + rng.integers(0, 9, patients)
    clusters = np.repeat(np.arange(patients), sizes)
    shared = rng.normal(size=(patients, BENCHMARKS))[clusters]
    normal = 0.8 * shared + 0.6 * rng.normal(size=(len(clusters), BENCHMARKS))
    found = []
    for values, truth in ((normal, 0.0), (stats.beta.ppf(stats.norm.cdf(normal), 6, 2), 0.75)):
        drawn = bootstrap_means(*cluster_sums(values, clusters), DRAWS)
        for levels in (TAILS, expanded_levels(np.array([patients]), TAILS)[0]):
            low, high = np.quantile(drawn, levels, axis=0)
            found.append(float(np.mean((low <= truth) & (truth <= high))))
    return found


if __name__ == "__main__":
    print("| patients | normal: percentile | expanded | skewed: percentile | expanded |")
    print("|---:|---:|---:|---:|---:|")
    for count in PATIENTS:
        print(f"| {count} | " + " | ".join(f"{100 * share:.1f} %" for share in coverage(count)) + " |")
