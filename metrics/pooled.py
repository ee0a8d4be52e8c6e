"""Numbers that exist for a data set only: counts of all cases are summed first (Pionono; sections 9 and 10.2).

Each is a list over the rater slots: every rater's labels against the map meant for that rater (or the common mask),
over the cases that this rater annotated. There is no value per case, so no interval and no test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from .case import CaseView
from .convention import CANONICAL, Convention
from .overlap import Floats, fraction, over_classes
from .per_rater import own_background, own_counts
from .variants import conventions_of


class Pool:
    """Sums of counts over cases, which may be added one at a time.

    Args:
        variant: a name, a `Convention` or None for canonical. It decides how `dice_rater` treats empty references.

    Raises:
        UserError: unknown variant.
    """

    def __init__(self, variant: str | Convention | None = None) -> None:
        conventions_of(variant)
        self.variant = variant
        self._convention = CANONICAL
        self._counts: Floats | None = None
        self._background = self._pixels = np.zeros(0)

    def add(self, view: CaseView) -> None:
        """Add a case; one without raters or pixels adds nothing. The view's own convention is not changed."""
        one = view.again()
        one.conventions = conventions_of(self.variant, len(view.classes) > 1)
        self._convention = one.convention("rater")
        if view.void:
            return
        counts, background = np.stack(own_counts(one)), own_background(one)
        pixels = np.zeros(view.slots)
        pixels[view.present] = view.pixels
        if self._counts is None:
            self._counts, self._background, self._pixels = counts, background, pixels
        else:
            self._counts = self._counts + counts
            self._background, self._pixels = self._background + background, self._pixels + pixels

    def dice_rater(self) -> list[float]:
        """Dice from summed counts, several classes: the mean over the list; nan for a slot that no case has."""
        if self._counts is None:
            return []
        inter, size_rater, size_map = self._counts
        values = over_classes(*fraction("dice", inter, size_rater, size_map), self._convention, reference=size_rater)
        return self._spread(values)

    def micro_miou(self) -> list[float]:
        """Pooled IoU over all labels, background included: e / (2n − e) for n pixels of which e are equal.

        It is a function of the accuracy, not a mean over classes, and close to 1 wherever background dominates.
        """
        if self._counts is None:
            return []
        equal = self._equal()
        return self._spread(equal / np.maximum(2.0 * self._pixels - equal, 1.0))

    def cohens_kappa(self) -> list[float]:
        """Cohen's kappa of all pixels, unweighted, over all labels; nan where only one label occurs at all."""
        if self._counts is None:
            return []
        _, size_rater, size_map = self._counts
        n = np.maximum(self._pixels, 1.0)
        outside = [n - size.sum(axis=0) for size in (size_rater, size_map)]
        chance = ((size_rater * size_map).sum(axis=0) + outside[0] * outside[1]) / (n * n)
        left = 1.0 - chance
        values = np.where(left > 0, (self._equal() / n - chance) / np.where(left > 0, left, 1.0), math.nan)
        return self._spread(values)

    def _equal(self) -> Floats:
        """Pixels on which a rater and its map agree, per slot."""
        assert self._counts is not None
        return self._counts[0].sum(axis=0) + self._background

    def _spread(self, values: Floats) -> list[float]:
        return np.where(self._pixels > 0, values, math.nan).tolist()


def _pool(views: Iterable[CaseView], variant: str | Convention | None) -> Pool:
    pool = Pool(variant)
    for view in views:
        pool.add(view)
    return pool


def pooled_dice_rater(views: Iterable[CaseView], variant: str | Convention | None = None) -> list[float]:
    """Dice of each rater slot from counts summed over all cases; empty list without cases, see `Pool.dice_rater`."""
    return _pool(views, variant).dice_rater()


def pooled_micro_miou(views: Iterable[CaseView], variant: str | Convention | None = None) -> list[float]:
    """`micro_miou` of each rater slot over the pixels of all cases, see `Pool.micro_miou`."""
    return _pool(views, variant).micro_miou()


def pooled_cohens_kappa(views: Iterable[CaseView], variant: str | Convention | None = None) -> list[float]:
    """`cohens_kappa` of each rater slot over the pixels of all cases, see `Pool.cohens_kappa`."""
    return _pool(views, variant).cohens_kappa()
