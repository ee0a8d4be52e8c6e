"""How far the raters of one case agree, before any method (specification section 7).

Several classes count one against the rest, and a value is the mean over the list of classes. Kappas depend on how much
background is looked at: the plain ids run over the box around the raters (section 5.3), those ending in ``.full`` over
all pixels that count. For a whole data set see `multirater.metrics.agreement_cases`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from .case import CaseView, Undefined
from .inputs import array_of
from .overlap import Floats
from .patterns import Counts, VotePatterns, patterns_of
from .region import Region

_ONE_LABEL = "only one label occurs, so chance agreement is complete"

T = TypeVar("T")


# -- coefficients of counts -------------------------------------------------------------------------


def _moments(table: Counts) -> tuple[Counts, Counts, Counts]:
    """Votes k, raters n and pixels of the cells of a table [n, k] with n >= 2 raters and k <= n."""
    n, k = (axis.ravel() for axis in np.indices(table.shape))
    pixels = table.ravel()
    used = (n >= 2) & (pixels > 0)
    return k[used], n[used], pixels[used]


def fleiss(table: Counts) -> float:
    """Fleiss' kappa of counts.

    Args:
        table: (R+1)×(R+1), pixels seen by n raters of whom k marked them, at [n, k]. Pixels with fewer than two raters
            are left out. With one n this is Fleiss' kappa; with several, every pixel's observed agreement is that among
            its own raters and π is the share of marks among all answers.

    Raises:
        Undefined: no pixel with two raters, or only one label occurs.
    """
    k, n, pixels = _moments(table)
    answers, marks = int((n * pixels).sum()), int((k * pixels).sum())
    if not answers:
        raise Undefined("no pixel has two raters")
    share = marks * (answers - marks)  # π(1 − π)·answers²; Python integers do not overflow
    if not share:
        raise Undefined(_ONE_LABEL)
    # 1 − P̄ and 1 − P_e: nothing cancels, however rare the marks are.
    disagreement = float((pixels * (2 * k * (n - k) / (n * (n - 1)))).sum()) / int(pixels.sum())
    return 1.0 - disagreement / (2.0 * share / answers**2)


def krippendorff_of(table: Counts) -> float:
    """Krippendorff's alpha (nominal) of counts; see `fleiss` for the table.

    Raises:
        Undefined: no pixel with two raters, or only one label occurs.
    """
    k, n, pixels = _moments(table)
    answers, marks = int((n * pixels).sum()), int((k * pixels).sum())
    if not answers:
        raise Undefined("no pixel has two raters")
    expected = 2 * marks * (answers - marks)
    if not expected:
        raise Undefined(_ONE_LABEL)
    observed = float((pixels * (2 * k * (n - k) / (n - 1))).sum()) / answers
    return 1.0 - observed / (expected / (answers * (answers - 1)))


def krippendorff_alpha(votes: Any, raters: Any) -> float:
    """Krippendorff's alpha, nominal with two labels, where every pixel may have its own number of raters.

    D_o = 1/M Σ 2k(n−k)/(n−1) and D_e = 2·m1·m0/(M(M−1)) over pixels with n >= 2 (Krippendorff 2011, "Computing
    Krippendorff's Alpha-Reliability").

    Args:
        votes: any shape, integers: raters who marked the pixel.
        raters: the same shape or a number: raters who saw the pixel.

    Returns:
        At most 1; nan if no pixel has two raters or only one label occurs.

    Raises:
        UserError: no integers, shapes that differ, or more votes than raters.

    Example:
        >>> krippendorff_alpha([3, 0, 1], [3, 2, 3])  # D_o = 1/4, D_e = 4/7
        0.5625
    """
    k, n = array_of("votes", votes), array_of("raters", raters)
    if k.size and (k.dtype.kind not in "bui" or n.dtype.kind not in "bui"):
        raise UserError(f"votes and raters have types {k.dtype} and {n.dtype}; give integers")
    if n.shape not in ((), k.shape):
        raise UserError(f"raters has shape {n.shape}, votes {k.shape}; give the same shape or one number")
    k, n = k.astype(np.int64).ravel(), np.broadcast_to(n.astype(np.int64), k.shape).ravel()
    if ((k < 0) | (k > n)).any():
        raise UserError("votes must lie between 0 and the number of raters of the pixel")
    size = int(n.max(initial=0)) + 1
    table = np.bincount(n * size + k, minlength=size * size).reshape(size, size)
    try:
        return krippendorff_of(table)
    except Undefined:
        return math.nan


def cohen(inter: Counts, pixels: NDArray) -> Floats:
    """Cohen's kappa of every pair of raters.

    (p_o − p_e)/(1 − p_e) = 2(n·|a∩b| − |a||b|) / (|a|(n−|b|) + |b|(n−|a|)).

    Args:
        inter: R×R intersections, or 2×R×R: those of rater q with r and, in `[1]`, size of q on the pixels both saw.
        pixels: number of pixels that both saw, R×R or a number.

    Returns:
        R×R; nan where only one label occurs in a pair, or no pixel was seen by both.
    """
    both, size = (inter, np.broadcast_to(inter.diagonal()[:, None], inter.shape)) if inter.ndim == 2 else inter
    # float64 from here: a product of two counts of a large data set does not fit into 64-bit integers
    both, a, b, n = (np.asarray(x, dtype=np.float64) for x in (both, size, size.T, pixels))
    chance = a * (n - b) + b * (n - a)
    known = chance > 0
    return np.where(known, 2.0 * (n * both - a * b) / np.where(known, chance, 1.0), math.nan)


def conformity(votes: Counts) -> float:
    """Generalised conformity index of pixels with k = 0, …, R votes; 1 if nothing is marked."""
    raters = len(votes) - 1
    k = np.arange(raters + 1)
    both = int((votes * (k * (k - 1) // 2)).sum())
    either = int((votes * (raters * (raters - 1) // 2 - (raters - k) * (raters - k - 1) // 2)).sum())
    return both / either if either else 1.0


def tabled(votes: Counts) -> Counts:
    """The table of `fleiss` for pixels that all have R raters."""
    out = np.zeros((len(votes), len(votes)), np.int64)
    out[-1] = votes
    return out


# -- metrics of a case --------------------------------------------------------------------------------


def need(view: CaseView, raters: int) -> None:
    """Raise `Undefined` unless the case has so many equally weighted raters."""
    if raters > view.R:
        raise Undefined(f"needs at least {raters} raters, this case has {view.R}")
    if view.rater_weights is not None:
        raise Undefined("agreement is defined for equally weighted raters")


def each_class(view: CaseView, function: Callable[[int], T]) -> list[T]:
    """A function of every evaluated class; an undefined class is named."""
    out = []
    for label in view.classes:
        try:
            out.append(function(label))
        except Undefined as reason:
            if len(view.classes) == 1:
                raise
            raise Undefined(f"class {label}: {reason}") from reason
    return out


def _pairwise(view: CaseView, kind: str) -> float:
    need(view, 2)
    similarity = view.similarity(kind, view.convention("agreement")).rr
    value = float(similarity[np.triu_indices(view.R, 1)].mean())
    if math.isnan(value):
        raise Undefined("two raters have no similarity under this convention (both empty)")
    return value


def pairwise_dice(view: CaseView) -> float:
    """Mean Dice over unordered pairs of raters."""
    return _pairwise(view, "dice")


def pairwise_iou(view: CaseView) -> float:
    """Mean IoU over unordered pairs of raters."""
    return _pairwise(view, "iou")


def gci(view: CaseView) -> float:
    """Generalised conformity index: summed intersections over summed unions of all pairs (Kouwenhoven et al. 2009)."""
    need(view, 2)
    return float(np.mean(each_class(view, lambda label: conformity(patterns_of(view, label).votes("full")))))


def _fleiss(view: CaseView, region: Region) -> float:
    need(view, 2)
    return float(np.mean(each_class(view, lambda label: fleiss(tabled(patterns_of(view, label).votes(region))))))


def fleiss_kappa(view: CaseView) -> float:
    """Fleiss' kappa over the box around the raters."""
    return _fleiss(view, "box")


def fleiss_kappa_full(view: CaseView) -> float:
    """Fleiss' kappa over all pixels."""
    return _fleiss(view, "full")


def _cohen_of_class(found: VotePatterns, region: Region) -> float:
    pairs = cohen(found.intersections(), np.array(found.pixels[region]))
    value = float(pairs[np.triu_indices(len(pairs), 1)].mean())
    if math.isnan(value):
        raise Undefined("a pair of raters uses only one label, so chance agreement is complete")
    return value


def _cohen(view: CaseView, region: Region) -> float:
    need(view, 2)
    return float(np.mean(each_class(view, lambda label: _cohen_of_class(patterns_of(view, label), region))))


def cohen_kappa(view: CaseView) -> float:
    """Mean over pairs of raters of Cohen's kappa over the box around the raters."""
    return _cohen(view, "box")


def cohen_kappa_full(view: CaseView) -> float:
    """Mean over pairs of raters of Cohen's kappa over all pixels."""
    return _cohen(view, "full")


def _krippendorff(view: CaseView, region: Region) -> float:
    need(view, 2)
    return float(
        np.mean(each_class(view, lambda label: krippendorff_of(tabled(patterns_of(view, label).votes(region)))))
    )


def krippendorff(view: CaseView) -> float:
    """Krippendorff's alpha over the box around the raters; of one case all pixels have the same raters."""
    return _krippendorff(view, "box")


def krippendorff_full(view: CaseView) -> float:
    """Krippendorff's alpha over all pixels."""
    return _krippendorff(view, "full")


def _histogram(view: CaseView, region: Region) -> list[float]:
    need(view, 2)

    def of(label: int) -> Floats:
        found = patterns_of(view, label)
        return found.votes(region) / found.pixels[region]

    shares = np.zeros(view.slots + 1)
    shares[: view.R + 1] = np.mean(each_class(view, of), axis=0)
    return shares.tolist()


def vote_histogram(view: CaseView) -> list[float]:
    """Shares of the pixels of the box with k = 0, 1, … votes, up to the number of rater slots (0 above R)."""
    return _histogram(view, "box")


def vote_histogram_full(view: CaseView) -> list[float]:
    """Shares of all pixels with k = 0, 1, … votes, up to the number of rater slots (0 above R)."""
    return _histogram(view, "full")
