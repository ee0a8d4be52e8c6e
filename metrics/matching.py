"""Assignments and transport between samples and raters."""

from __future__ import annotations

from math import lcm

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float64]

# Above this size of the replicated square problem the transport problem is faster (at 350: 4.5 against 2.9 ms).
_LARGEST_ASSIGNMENT = 256
# Where one set is a multiple of the other, from this size on prices find the matching sooner than the square problem.
_WORTH_PRICES = 40
_FEW_PRICES = 8
_PRICE_SWEEPS = 6


def balanced_match(similarity: Floats, weights_a: Floats | None = None, weights_b: Floats | None = None) -> float:
    """Largest mean similarity of a balanced matching of two whole sets (specification 2.3).

    Both sides are replicated to the least common multiple of their sizes and assigned one to one; for large multiples
    and for weights the transport problem with the same value is solved instead.

    Args:
        similarity: A×B, without nan.
        weights_a, weights_b: probabilities of the members; None: uniform.
    """
    a, b = similarity.shape
    size = lcm(a, b)
    if weights_a is None and weights_b is None:
        if a == 1 or b == 1:
            return float(similarity.mean())
        if size == max(a, b) and (size > _LARGEST_ASSIGNMENT or (size >= _WORTH_PRICES and min(a, b) <= _FEW_PRICES)):
            return _priced_match(similarity if a >= b else similarity.T)
        if size <= _LARGEST_ASSIGNMENT:
            # Rows are the larger set: several times faster in SciPy than the transposed problem.
            square = similarity.repeat(size // a, axis=0).repeat(size // b, axis=1)
            if b > a:
                square = square.T
            rows, columns = linear_sum_assignment(square, maximize=True)
            return float(square[rows, columns].mean())
    uniform_a, uniform_b = np.full(a, 1.0 / a), np.full(b, 1.0 / b)
    return transport(
        similarity, uniform_a if weights_a is None else weights_a, uniform_b if weights_b is None else weights_b
    )


def _priced_match(similarity: Floats) -> float:
    """`balanced_match` of many rows with few columns, each of which serves rows/columns rows.

    Exact: subtracting a price from a column moves no optimum, since every column is used equally often. Where each row
    can have the column it prefers at some prices, no assignment is better; three sweeps usually find such prices
    (500 × 4: 0.4 ms, against 11 ms for the plain assignment and 20 ms for the transport problem). Where none are found,
    as with equal rows, the assignment is solved at the prices, which leave it little to do (2 ms).
    """
    rows, columns = similarity.shape
    share = rows // columns
    prices = np.zeros(columns)
    for _ in range(_PRICE_SWEEPS):
        for column in range(columns):
            others = similarity - prices
            others[:, column] = -np.inf
            lead = np.partition(similarity[:, column] - others.max(axis=1), [rows - share - 1, rows - share])
            prices[column] = lead[rows - share - 1 : rows - share + 1].mean()
        reduced = similarity - prices
        preferred = reduced.argmax(axis=1)
        if (np.bincount(preferred, minlength=columns) == share).all():
            return float(similarity[np.arange(rows), preferred].mean())
    reduced -= reduced.max(axis=1, keepdims=True)
    row, place = linear_sum_assignment(reduced.repeat(share, axis=1), maximize=True)
    return float(similarity[row, place // share].mean())


def transport(similarity: Floats, supply: Floats, demand: Floats) -> float:
    """Largest Σ P·similarity over plans P ≥ 0 with row sums `supply` and column sums `demand` (HiGHS)."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    a, b = similarity.shape
    cells = np.arange(a * b)
    rows = np.concatenate([np.repeat(np.arange(a), b), a + np.tile(np.arange(b), a)])
    matrix = csr_array((np.ones(2 * a * b), (rows, np.tile(cells, 2))), shape=(a + b, a * b))
    result = linprog(
        -similarity.ravel(), A_eq=matrix, b_eq=np.concatenate([supply, demand]), bounds=(0, None), method="highs"
    )
    if not result.success:  # cannot happen for weights that sum to 1 on both sides
        raise RuntimeError(f"transport problem {a}x{b} not solved: {result.message}")
    return float(result.x @ similarity.ravel())


def distinct_match(scores: Floats, weights: Floats | None = None) -> float:
    """Largest mean over rows of scores[r, σ(r)] over one-to-one maps σ of rows to columns.

    With fewer columns (samples) than rows (raters) each column may serve up to ⌈rows/columns⌉ rows (specification 2.4).

    Args:
        scores: R×S, without nan.
        weights: probabilities of the rows; None: uniform.
    """
    rows, columns = scores.shape
    if columns < rows:
        scores = scores.repeat(-(-rows // columns), axis=1)
    if weights is None:
        picked = scores[linear_sum_assignment(scores, maximize=True)]
        return float(picked.mean())
    weighted = scores * weights[:, None]
    return float(weighted[linear_sum_assignment(weighted, maximize=True)].sum())


def moved_similarity(similarity: Floats, excess: NDArray[np.int64], deficit: NDArray[np.int64]) -> Floats:
    """Largest total similarity of moving whole units from masks in excess to masks in deficit, for many draws.

    Args:
        similarity: R×R.
        excess, deficit: N×R; in each row their sums are equal, and no mask is in both.

    Returns:
        N totals. One source or one sink leaves a single plan, two of each leave one free number; these (all that occur
        for R ≤ 4) are solved at once, the others one by one.
    """
    sources, sinks = (excess > 0).sum(axis=1), (deficit > 0).sum(axis=1)
    units = excess.sum(axis=1)
    out = ((excess @ similarity) * deficit).sum(axis=1) / np.maximum(units, 1)  # the only plan if one side is single
    pairs = (sources == 2) & (sinks == 2)
    if pairs.any():
        out[pairs] = _two_by_two(similarity, excess[pairs], deficit[pairs])
    for i in np.flatnonzero((np.minimum(sources, sinks) >= 2) & ~pairs):
        out[i] = _move(similarity, excess[i], deficit[i])
    return out


def _two_by_two(similarity: Floats, excess: NDArray[np.int64], deficit: NDArray[np.int64]) -> Floats:
    row = np.arange(len(excess))
    a, b = np.argsort(-excess, axis=1, kind="stable")[:, :2].T
    c, d = np.argsort(-deficit, axis=1, kind="stable")[:, :2].T
    gain = similarity[a, c] + similarity[b, d] - similarity[a, d] - similarity[b, c]
    from_a, to_c, to_d = excess[row, a], deficit[row, c], deficit[row, d]
    most, least = np.minimum(from_a, to_c), np.maximum(0, from_a - to_d)
    a_to_c = np.where(gain > 0, most, least)  # the total is linear in the units moved from a to c
    a_to_d, b_to_c = from_a - a_to_c, to_c - a_to_c
    b_to_d = to_d - a_to_d
    return a_to_c * similarity[a, c] + a_to_d * similarity[a, d] + b_to_c * similarity[b, c] + b_to_d * similarity[b, d]


def _move(similarity: Floats, excess: NDArray[np.int64], deficit: NDArray[np.int64]) -> float:
    supply, demand = excess[excess > 0], deficit[deficit > 0]
    block = similarity[np.ix_(excess > 0, deficit > 0)]
    unit = int(np.gcd.reduce(np.concatenate([supply, demand])))
    total = int(supply.sum())
    if total // unit > _LARGEST_ASSIGNMENT:
        return transport(block, supply / total, demand / total) * total
    square = block.repeat(supply // unit, axis=0).repeat(demand // unit, axis=1)
    return float(square[linear_sum_assignment(square, maximize=True)].sum()) * unit
