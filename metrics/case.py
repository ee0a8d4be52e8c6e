"""One case as the metrics see it: checked arrays and everything that several metrics share, computed once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from .convention import CANONICAL, Convention
from .overlap import Floats, Mask, crop, fraction, intersections, over_classes


class Undefined(Exception):
    """A metric has no value for this case; the message is the reason. It becomes nan."""


class NotDefined(Undefined, UserError):
    """The variant has no such number, for any case or for so few samples: an error where the metric was asked for by
    name, else nan with this reason."""


class Similarity:
    """Similarities in [0, 1] under a convention: samples × raters, samples × samples, raters × raters.

    Each is computed when it is first asked for: that of hundreds of samples among themselves is most of the work.
    """

    def __init__(
        self, counts: list[Floats], blocks: tuple[slice, slice, slice], kind: str, convention: Convention
    ) -> None:
        self._counts, self._kind, self._convention = counts, kind, convention
        self._raters, self._right, self._left = blocks

    @cached_property
    def sr(self) -> Floats:
        return against(self._counts, self._kind, self._convention, self._left, self._raters)

    @cached_property
    def ss(self) -> Floats:
        return self._among(self._left, self._right)

    @cached_property
    def rr(self) -> Floats:
        return self._among(self._raters, self._raters)

    def _among(self, rows: slice, columns: slice) -> Floats:
        numerator, denominator, _ = parts(self._counts, self._kind, rows, columns)
        return over_classes(numerator, denominator, self._convention)


def parts(counts: list[Floats], kind: str, rows: slice, columns: slice) -> tuple[Floats, Floats, Floats]:
    """Numerators and denominators K×rows×columns of a similarity, and the sizes K×columns of the column masks.

    Args:
        counts: T×T intersections of each class, as `CaseView.counts` gives them.
    """
    inter = np.stack([c[rows, columns] for c in counts]) if len(counts) > 1 else counts[0][None, rows, columns]
    sizes = np.stack([c.diagonal() for c in counts])
    return *fraction(kind, inter, sizes[:, rows, None], sizes[:, None, columns]), sizes[:, columns]


def against(counts: list[Floats], kind: str, convention: Convention, rows: slice, references: slice) -> Floats:
    """Similarities rows × references, in which the latter decide where a convention has a rule for empty references."""
    numerator, denominator, sizes = parts(counts, kind, rows, references)
    return over_classes(numerator, denominator, convention, sizes[:, None])


class CaseView:
    """Arrays of one case after removal of missing raters and of pixels that do not count.

    Built by `multirater.metrics.inputs.read_case`, which checks the arrays. A metric is a function of a `CaseView`
    that returns a float (or a list) or raises `Undefined`.

    Attributes:
        slots: number of rater slots, present or not; lists per rater have this length.
        present: indices of the raters present, length R.
        classes: evaluated class labels; K of them. Masks are boolean if K = 1, else class maps.
        raters: R×spatial.
        samples: S×spatial or None; made of `probs` if only those were given.
        probs: S×spatial or S×C×spatial or None.
        rater_probs: R×spatial or R×C×spatial, probabilities meant for each rater, or None.
        rater_labels: R×spatial, hard masks meant for each rater, or None.
        mean_prob: spatial or C×spatial or None.
        mean_log: (K+1)×spatial or None: mean over the samples of log(p + 1e-8), background first.
        uncertainty: spatial or None: a predicted map of uncertainty.
        sample_weights, rater_weights: sum 1, or None for uniform.
        given_samples: number of samples asked for by the caller where none are given (human baselines).
        valid: spatial bool, or None. With it the arrays above are flat, R×N, in the order of its True pixels; `placed`
            puts them back.
        spacing: millimetres per pixel of each axis, or None.
        void: why nothing can be computed (no rater, no pixel), or an empty string.
    """

    def __init__(
        self,
        *,
        raters: NDArray,
        slots: int,
        present: NDArray[np.intp],
        classes: tuple[int, ...],
        samples: NDArray | None = None,
        probs: NDArray | None = None,
        rater_probs: NDArray | None = None,
        rater_labels: NDArray | None = None,
        mean_prob: NDArray | None = None,
        mean_log: NDArray | None = None,
        uncertainty: NDArray | None = None,
        sample_weights: Floats | None = None,
        rater_weights: Floats | None = None,
        n_samples: int | None = None,
        valid: Mask | None = None,
        spacing: tuple[float, ...] | None = None,
        void: str = "",
    ) -> None:
        self.raters = raters
        self.slots = slots
        self.present = present
        self.classes = classes
        self.probs = probs
        self.rater_probs = rater_probs
        self.rater_labels = rater_labels
        self.mean_prob = mean_prob
        self.mean_log = mean_log
        self.uncertainty = uncertainty
        self.sample_weights = sample_weights
        self.rater_weights = rater_weights
        self.valid = valid
        self.spacing = spacing
        self.void = void
        self._samples = samples
        self._n_samples = n_samples
        self.conventions: Mapping[str, Convention] = {}
        self.notes: dict[str, str] = {}
        self._similarity: dict[tuple, Similarity] = {}
        self._counts: dict[tuple, list[Floats]] = {}
        self._tallies: dict[tuple, tuple[NDArray, ...]] = {}
        self.memory: dict[tuple, object] = {}  # for modules that share further results between their metrics
        self.measured: dict[tuple, object] = {}  # the same, of results that hold under every variant

    # -- sizes ----------------------------------------------------------------------------------

    @property
    def R(self) -> int:
        return len(self.present)

    @cached_property
    def S(self) -> int:
        source = self._samples if self._samples is not None else self.probs
        return 0 if source is None else len(source)

    @property
    def n_samples(self) -> int:
        """S of the human baselines: as asked for, else that of the samples, else 16."""
        return self._n_samples or self.S or 16

    @property
    def pixels(self) -> int:
        return math.prod(self.raters.shape[1:])

    @property
    def channels(self) -> bool:
        """Whether probabilities of samples have a channel axis."""
        return self.probs is not None and self.probs.ndim > self.raters.ndim

    @property
    def personalised(self) -> bool:
        """Whether there is an output for each rater."""
        return self.rater_probs is not None or self.rater_labels is not None

    @property
    def left_differ(self) -> bool:
        """Whether CIMD's left masks are other masks than the samples."""
        return self._left_samples is not self.samples

    @property
    def given(self) -> frozenset[str]:
        """Which predictions there are, by the names of `multirater.metrics.score_case`."""
        found = {
            "samples": self._samples is not None,
            "probs": self.probs is not None,
            "rater_probs": self.personalised,
            "mean_prob": self.mean_prob is not None,
            "mean_log": self.mean_log is not None,
            "uncertainty": self.uncertainty is not None,
        }
        return frozenset(name for name, there in found.items() if there)

    def again(self) -> CaseView:
        """The same case for another variant: exact counts are shared, nothing that a convention decides is."""
        other = copy.copy(self)
        other.conventions, other.notes, other.memory = {}, {}, {}
        other._similarity = {}
        return other

    def convention(self, family: str) -> Convention:
        return self.conventions.get(family, CANONICAL)

    def spread(self, values: Floats) -> list[float]:
        """Values of the R present raters as a list over all slots, nan for missing raters."""
        out = np.full(self.slots, math.nan)
        out[self.present] = values
        return out.tolist()

    def placed(self, array: NDArray) -> NDArray:
        """An array …×N of the pixels that count, as …×spatial with zeros (False) elsewhere; as it is if all count."""
        if self.valid is None:
            return array
        out = np.zeros((*array.shape[:-1], *self.valid.shape), array.dtype)
        out[..., self.valid] = array
        return out

    # -- masks ----------------------------------------------------------------------------------

    @cached_property
    def samples(self) -> NDArray | None:
        if self._samples is not None or self.probs is None:
            return self._samples
        return self.binarised(self.probs)

    def binarised(self, probs: NDArray) -> NDArray:
        """Masks of probabilities: p > 0.5 strictly (0.5 is background); several channels: arg max, lower index wins."""
        if probs.ndim == self.raters.ndim:
            return probs > 0.5
        if len(self.classes) == 1 and probs.shape[1] == 2:
            return probs[:, 1] > probs[:, 0]
        labels = probs.argmax(axis=1)
        return labels == self.classes[0] if len(self.classes) == 1 else labels

    @cached_property
    def _left_samples(self) -> NDArray | None:
        """Left masks of CIMD: a second sigmoid, so every probability above 0 (up to rounding) is foreground."""
        if self._samples is not None or self.probs is None or self.probs.ndim > self.raters.ndim:
            return self.samples
        from scipy.special import expit

        return expit(self.probs) > 0.5

    def class_mask(self, labels: NDArray, label: int) -> Mask:
        """One-vs-rest mask; label 0 is the background: no evaluated class."""
        if len(self.classes) == 1:
            return labels if label else ~labels
        return labels == label if label else ~np.isin(labels, self.classes)

    @cached_property
    def _cropped(self) -> dict[int, list[Mask]]:
        return {}

    def cropped(self, label: int) -> list[Mask]:
        """Masks of raters and samples (if any) of one class, cut to their union's bounding box."""
        if label not in self._cropped:
            groups = [self.class_mask(self.raters, label)]
            if self.samples is not None:
                groups.append(self.class_mask(self.samples, label))
            self._cropped[label] = crop(groups)
        return self._cropped[label]

    # -- overlaps -------------------------------------------------------------------------------

    def counts(self, convention: Convention) -> list[Floats]:
        """Per evaluated class the T×T intersections of raters, samples and (CIMD only) left samples, in this order."""
        left = convention.binarise == "sigmoid_left" and self.left_differ
        labels = (0, *self.classes) if convention.classes == "with_background" else self.classes
        key = (left, labels)
        if key not in self._counts:
            self._counts[key] = [self._class_counts(label, left) for label in labels]
        return self._counts[key]

    def _class_counts(self, label: int, left: bool) -> Floats:
        if not left:
            return intersections(self.cropped(label)).astype(np.float64)
        assert self.samples is not None
        assert self._left_samples is not None
        groups = (self.raters, self.samples, self._left_samples)
        return intersections(crop([self.class_mask(g, label) for g in groups])).astype(np.float64)

    def tally(self, key: tuple, compute: Callable[[], Sequence[NDArray]]) -> tuple[NDArray, ...]:
        """Counts or sums over pixels, made once and kept by `multirater.metrics.components`.

        A metric that takes all it needs of the pixels from `counts` and `tally` can be scored from stored components;
        it is registered with ``pixels=False``.

        Args:
            key: strings, numbers, None and tuples of them that name everything the arrays depend on, a convention's
                fields included; the first is the module's name.
            compute: makes the arrays.
        """
        if key not in self._tallies:
            # One memory layout, stored or not: NumPy's sums depend on it in the last bit.
            self._tallies[key] = tuple(np.ascontiguousarray(array) for array in compute())
        return self._tallies[key]

    def one_class(self, label: int) -> CaseView:
        """Masks of one class against the rest, under the same conventions."""
        one = CaseView(
            raters=self.class_mask(self.raters, label),
            slots=self.slots,
            present=self.present,
            classes=(label,),
            samples=None if self.samples is None else self.class_mask(self.samples, label),
            sample_weights=self.sample_weights,
            rater_weights=self.rater_weights,
        )
        one.conventions = self.conventions
        return one

    def blocks(self, convention: Convention) -> tuple[slice, slice, slice]:
        """Where raters, right samples and left samples stand among the T masks, the sample cap applied."""
        count = min(self.S, convention.sample_cap or self.S)
        right = slice(self.R, self.R + count)
        if convention.binarise == "sigmoid_left" and self.left_differ:
            return slice(0, self.R), right, slice(self.R + self.S, self.R + self.S + count)
        return slice(0, self.R), right, right

    def similarity(self, kind: str, convention: Convention) -> Similarity:
        """Similarity matrices (``iou`` or ``dice``) under a convention."""
        key = (kind, convention)
        if key not in self._similarity:
            self._similarity[key] = Similarity(self.counts(convention), self.blocks(convention), kind, convention)
        return self._similarity[key]

    def weights_of_samples(self, convention: Convention) -> Floats | None:
        """Weights of the samples used, sum 1; None for uniform."""
        weights, cap = self.sample_weights, convention.sample_cap
        if weights is None or cap is None or cap >= self.S:
            return weights
        if weights[:cap].sum() <= 0:
            raise Undefined(f"the first {cap} samples have no weight")
        return weights[:cap] / weights[:cap].sum()
