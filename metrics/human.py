"""Human baselines: the raters of a case scored by the same functions as a method (specification section 8).

None of these is a bound. rest(r) stands for all raters but r.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ..core.hashing import canonical_json
from ..core.seeding import numpy_generator
from .case import CaseView, Undefined, against
from .convention import CANONICAL, FIVE_LEVELS, Convention
from .inputs import read_case
from .matching import moved_similarity, transport
from .mean_map import passes_of_votes, votes
from .overlap import Floats, fraction, intersections, over_classes
from .variants import conventions_of

DRAWS = 200
_LARGEST_SPLIT = 20  # C(20, 10) = 184 756 halves


def human_case(
    raters: Any,
    n_samples: int,
    rater_valid: Any = None,
    seed_axes: Mapping[str, Any] | None = None,
    *,
    valid: Any = None,
    classes: Sequence[int] | None = None,
    variant: str | Convention | None = None,
) -> dict[str, float | list[float]]:
    """All human baselines of one case.

    Args:
        raters, rater_valid, valid, classes, variant: as in `multirater.metrics.score_case`.
        n_samples: S of `human.oracle_*`.
        seed_axes: named axes (JSON values) of the seed of the oracle's draws, for example ``{"case": "0017"}``. Without
            any, all cases with the same R and S share their draws, which costs nothing and compares like with like.

    Returns:
        Metric ids (``human.loo_ged``, …) to values; lists per rater slot end in ``.each``. Undefined values are nan.

    Raises:
        UserError: wrong shapes, types or values, in one sentence.

    Example:
        >>> import numpy as np
        >>> a = np.zeros((4, 4), bool); a[:, :2] = True
        >>> values = human_case(np.stack([a, a.T, a]), n_samples=16)
        >>> round(values["human.loo_ged"], 6), round(values["human.oracle_ged"], 6)
        (0.666667, 0.018519)
    """
    from .score import evaluate, names_in_group

    view = read_case(raters, rater_valid=rater_valid, valid=valid, classes=classes, n_samples=n_samples)
    view.conventions = conventions_of(variant, len(view.classes) > 1)
    if seed_axes:
        view.memory[("human", "axes")] = canonical_json(dict(seed_axes))
    return evaluate(view, names_in_group("human."))


# -- one rater left out -----------------------------------------------------------------------------


def _need(view: CaseView, raters: int) -> None:
    if raters > view.R:
        raise Undefined(f"needs at least {raters} raters, this case has {view.R}")
    if view.rater_weights is not None:
        raise Undefined("human baselines are defined for equally weighted raters")


def _vote_tables(view: CaseView) -> tuple[NDArray[np.int64], ...]:
    """Per class R×2×(R+1): pixels by rater, by that rater's own vote, and by the votes of all raters."""

    def compute() -> list[NDArray[np.int64]]:
        tables = []
        for label in view.classes:
            masks = view.cropped(label)[0]
            by_votes = votes(masks) == np.arange(view.R + 1).reshape(-1, *[1] * (masks.ndim - 1))
            counts = intersections([masks, by_votes])
            marked = counts[: view.R, view.R :]
            left_out = counts.diagonal()[view.R :] - marked
            tables.append(np.stack([left_out, marked], axis=1))
        return tables

    return view.tally(("human.votes",), compute)


def _rest_dice(view: CaseView, thresholds: tuple[float, ...], convention: Convention) -> Floats:
    """Dice of every rater's mask and 1[share of rest(r) > t], R×T; the comparison is made in integers."""
    passes = passes_of_votes(view.R - 1, thresholds).astype(np.int64)
    inter, size_map, size_rater = [], [], []
    for table in _vote_tables(view):
        without = table[:, 0, : view.R] @ passes.T  # pixels rater r left out: k votes of the rest
        within = table[:, 1, 1:] @ passes.T  # pixels rater r marked: k − 1 votes of the rest
        inter.append(within)
        size_map.append(within + without)
        size_rater.append(np.repeat(table[:, 1].sum(1)[:, None], len(thresholds), axis=1))
    numbers = [np.array(column, dtype=np.float64) for column in (inter, size_map, size_rater)]
    return over_classes(*fraction("dice", *numbers), convention, reference=numbers[2])


def _loo_majority(view: CaseView) -> Floats:
    _need(view, 2)
    return _rest_dice(view, (0.5,), view.convention("dice"))[:, 0]


def loo_majority_dice(view: CaseView) -> float:
    """Mean over r of Dice(y_r, strict majority of rest(r))."""
    return _mean(_loo_majority(view))


def loo_majority_dice_each(view: CaseView) -> list[float]:
    """Dice(y_r, strict majority of rest(r)) of every rater slot."""
    return view.spread(_loo_majority(view))


def loo_soft_dice(view: CaseView) -> float:
    """Mean over r of `dice_soft` of rest(r)'s vote share against y_r alone."""
    _need(view, 2)
    convention = view.convention("map")
    return _mean(_rest_dice(view, convention.thresholds or FIVE_LEVELS, convention).mean(axis=1))


def _others(view: CaseView) -> Floats:
    """Dice of each rater with the others, R×(R−1)."""
    _need(view, 2)
    scores = _by_raters(view)
    return scores[~np.eye(view.R, dtype=bool)].reshape(view.R, view.R - 1)


def _by_raters(view: CaseView) -> Floats:
    """Dice [r, q] of rater q's mask against rater r, the reference."""
    convention, raters = view.convention("dice"), slice(0, view.R)
    scores = against(view.counts(convention), "dice", convention, raters, raters).T
    if np.isnan(scores).any():
        raise Undefined("two raters have no similarity under this convention (both empty)")
    return scores


def loo_mean_dice(view: CaseView) -> float:
    """Mean Dice of two different raters."""
    return _mean(_others(view).mean(axis=1))


def loo_mean_dice_each(view: CaseView) -> list[float]:
    """Mean Dice of each rater with the others."""
    return view.spread(_others(view).mean(axis=1))


def loo_max_dice(view: CaseView) -> float:
    """Mean over r of the best Dice with another rater."""
    return _mean(_others(view).max(axis=1))


def _mean(values: Floats) -> float:
    out = float(values.mean())
    if math.isnan(out):
        raise Undefined("two raters have no similarity under this convention (both empty)")
    return out


# -- energy distances among raters -------------------------------------------------------------------


def _distance(view: CaseView) -> Floats:
    """Distances R×R; only for conventions in which GED is a difference of plain means."""
    convention = view.convention("ged")
    if convention.pairs != "mean" or convention.diagonal != "include":
        raise Undefined("human energy distances are defined for means over all pairs, diagonal included")
    distance = 1.0 - view.similarity(convention.distance, convention).rr
    if np.isnan(distance).any():
        raise Undefined("two raters have no similarity under this convention (both empty)")
    return distance


def _loo_ged(view: CaseView) -> Floats:
    _need(view, 2)
    distance = _distance(view)
    own = distance.diagonal()
    rows = distance.sum(axis=1)
    rest = view.R - 1
    cross = (rows - own) / rest
    within = (distance.sum() - 2.0 * rows + own) / rest**2
    return 2.0 * cross - own - within


def loo_ged(view: CaseView) -> float:
    """Mean over r of GED({y_r}, rest(r)): one human against the others, S = 1."""
    return float(_loo_ged(view).mean())


def loo_ged_each(view: CaseView) -> list[float]:
    """GED({y_r}, rest(r)) of every rater slot."""
    return view.spread(_loo_ged(view))


@lru_cache(maxsize=64)
def _halves(raters: int) -> Floats:
    """Indicators (splits × R) of the halves of ⌊R/2⌋ raters. For even R every split appears twice, once each way."""
    chosen = list(combinations(range(raters), raters // 2))
    out = np.zeros((len(chosen), raters))
    out[np.arange(len(chosen))[:, None], chosen] = 1.0
    out.flags.writeable = False
    return out


def split_ged(view: CaseView) -> float:
    """Mean over all splits of the raters into halves of GED(half, half); R ≥ 4."""
    _need(view, 4)
    if view.R > _LARGEST_SPLIT:
        raise Undefined(f"{view.R} raters have too many splits into halves (at most {_LARGEST_SPLIT} raters)")
    distance = _distance(view)
    first = _halves(view.R)
    a = first / (view.R // 2)
    b = (1.0 - first) / (view.R - view.R // 2)
    to_a, to_b = a @ distance, b @ distance
    return float((2.0 * (to_a * b).sum(1) - (to_a * a).sum(1) - (to_b * b).sum(1)).mean())


def oracle_ged(view: CaseView) -> float:
    """Expected GED of S independent uniform draws from the raters: v_R / S.

    A convention in which a mask has a distance to itself (D-Persona's empty masks) takes (v_R − its mean) / S.
    """
    _need(view, 2)
    distance = _distance(view)
    size = min(view.n_samples, view.convention("ged").sample_cap or view.n_samples)
    return float((distance.mean() - distance.diagonal().mean()) / size)


# -- draws of the oracle -----------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _draws(raters: int, n_samples: int, axes: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often each rater is drawn: the different count vectors of 200 draws and their frequencies."""
    generator = numpy_generator("human.oracle", raters=raters, n_samples=n_samples, axes=axes)
    drawn = generator.integers(0, raters, size=(DRAWS, n_samples))
    counts = (drawn[:, :, None] == np.arange(raters)).sum(axis=1)
    return _merge(counts, np.ones(DRAWS, np.int64))


def _merge(counts: NDArray, times: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    different, where = np.unique(counts, axis=0, return_inverse=True)
    return different, np.bincount(where.ravel(), weights=times).astype(np.int64)


def _oracle_draws(view: CaseView, similarity: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draws of the raters, by an order that comes from how they resemble each other: not from their slots.

    Raters that cannot be told apart by their sorted similarities may swap places; that moves no value.
    """
    axes = view.memory.get(("human", "axes"), "")
    counts, times = _draws(view.R, view.n_samples, str(axes))
    return counts[:, places(similarity)], times


def places(similarity: Floats) -> NDArray[np.intp]:
    """R: place of each rater in an order that similarities R×R define, whatever the slots.

    By the sorted similarities to all raters and those of their powers; raters that these leave equal by their
    similarity to the raters placed before, one after the other.
    """
    keys, power = [], similarity
    for _ in range(3):
        keys.append(np.sort(power, axis=1).round(9).T)
        power = power @ similarity
    kind = np.unique(np.concatenate(keys), axis=1, return_inverse=True)[1].ravel()
    order = np.argsort(kind)
    for done in range(1, len(order)):
        rest = order[done:]
        seen = similarity[np.ix_(order[:done], rest)].round(9)
        order[done:] = rest[np.lexsort([*-seen[::-1], kind[rest]])]
    return np.argsort(order)


def oracle_dice_match(view: CaseView) -> float:
    """Mean over 200 seeded draws of S masks from the raters of `dice_match`.

    A draw is described by how often each rater occurs; an assignment never uses more than R copies of one, so few
    different problems are left to solve.
    """
    _need(view, 2)
    convention = view.convention("dice")
    matrix = _by_raters(view)
    size = view.n_samples
    if size < view.R and convention.missing_sample_policy == "error":
        raise Undefined(f"{size} samples for {view.R} raters: this variant needs at least as many samples as raters")
    counts, times = _oracle_draws(view, matrix)
    serves = max(1, -(-view.R // size))
    capacity, times = _merge(np.minimum(counts * serves, view.R), times)
    values = np.empty(len(capacity))
    for i, row in enumerate(capacity):
        scores = matrix.repeat(row, axis=1)
        values[i] = scores[linear_sum_assignment(scores, maximize=True)].mean()
    return float(values @ times / times.sum())


def oracle_hm_iou(view: CaseView) -> float:
    """Mean over 200 seeded draws of S masks from the raters of `hm_iou`."""
    _need(view, 2)
    convention = view.convention("hm")
    similarity = view.similarity("iou", convention).rr
    if np.isnan(similarity).any():
        raise Undefined("two raters have no similarity under this convention (both empty)")
    counts, times = _oracle_draws(view, similarity)
    size = view.n_samples
    if convention == CANONICAL:
        # 1 − IoU is then a metric, so mass that both sides share stays where it is, and only the excess moves. In units
        # of 1/(S·R) a draw holds R·count of each mask and every rater asks for S.
        shared = np.minimum(counts * view.R, size)
        moved = moved_similarity(similarity, counts * view.R - shared, size - shared)
        values = (shared @ similarity.diagonal() + moved) / (size * view.R)
    else:
        uniform = np.full(view.R, 1.0 / view.R)
        values = np.array([transport(similarity[row > 0], row[row > 0] / size, uniform) for row in counts])
    return float(values @ times / times.sum())
