"""Channels of stored maps and masks: binary, overlapping or exclusive classes seen as one plane per class.

`multirater.methods.targets` says the same of tensors in training. Scoring runs per class, one against the rest
(contracts.md 5), so here everything becomes ``…×K×H×W``, with K = 1 for binary data.

============ ================= ==================== ==================== ========================
kind         masks             probability maps     stored mean-log map  hard masks
============ ================= ==================== ==================== ========================
binary       …×H×W             …×H×W                2×H×W                p > 0.5
overlapping  …×K×H×W           …×K×H×W              K×2×H×W              p > 0.5
exclusive    …×H×W (indices)   …×(K+1)×H×W          (K+1)×H×W            arg max, the lower index winning
============ ================= ==================== ==================== ========================
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..datasets.base import DataDescription
from ..datasets.case_rows import CaseRows
from .derived import class_level_sets, level_sets

Mask = NDArray[np.bool_]
Kind = Literal["binary", "overlapping", "exclusive"]


@dataclass(frozen=True)
class ClassLayout:
    """How the arrays of a data set hold its classes.

    Attributes:
        kind: see the table above.
        classes: number of foreground classes K.
        dims: spatial dimensions; the channel axis stands right before them.
    """

    kind: Kind = "binary"
    classes: int = 1
    dims: int = 2

    @classmethod
    def of(cls, data: DataDescription) -> ClassLayout:
        kind: Kind = "overlapping" if data.overlapping else "exclusive" if data.classes > 1 else "binary"
        return cls(kind, data.classes, data.spatial_dims)

    def of_case(self, case: CaseRows) -> ClassLayout:
        """The layout of the arrays of one case, of which a volume has the axis of its slices."""
        return replace(self, dims=3) if case.volume else self

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes by the names that stand in the column ``label``: 1, 2, …"""
        return tuple(str(k + 1) for k in range(self.classes))

    @property
    def channels(self) -> tuple[int, ...]:
        """The channel axis of a probability map, empty for binary data."""
        return {"binary": (), "overlapping": (self.classes,), "exclusive": (self.classes + 1,)}[self.kind]

    def plane(self, masks: NDArray, k: int) -> Mask:
        """Masks …×H×W of the k-th class (from 0) of a data set's masks."""
        if self.kind == "overlapping":
            return np.asarray(np.take(masks, k, self._axis), dtype=bool)
        return np.asarray(masks == k + 1 if self.kind == "exclusive" else masks != 0)

    def planes(self, masks: NDArray) -> Mask:
        """Masks of a data set as …×K×H×W."""
        return np.stack([self.plane(masks, k) for k in range(self.classes)], self._axis)

    def foreground(self, maps: NDArray) -> NDArray:
        """Probabilities …×K×H×W of the classes."""
        if self.kind == "binary":
            return np.expand_dims(maps, self._axis)
        index: tuple[Any, ...] = (..., slice(1 if self.kind == "exclusive" else 0, None), *[slice(None)] * self.dims)
        return np.asarray(maps[index])

    def split(self, hard: Mask) -> Mask:
        """Stored hard masks (…×H×W if binary, else …×K×H×W) as …×K×H×W."""
        return hard if self.channels else np.expand_dims(hard, self._axis)

    def hard(self, maps: NDArray) -> Mask:
        """Hard masks …×K×H×W of probability maps."""
        if self.kind != "exclusive":
            return np.asarray(self.foreground(maps) > 0.5)
        return self.planes(maps.argmax(self._axis))

    def level_sets(self, mean: NDArray, n: int) -> Mask:
        """Nested level sets n×K×H×W of one mean map; of exclusive classes each is a class map."""
        if self.kind == "exclusive":
            return class_level_sets(mean, n)
        return np.stack([level_sets(m, n) for m in self.foreground(mean)], 1)

    def share(self, planes: Mask) -> NDArray[np.float64]:
        """The probability map that is the share of masks n×K×H×W."""
        share = planes.sum(0) / len(planes)
        if self.kind == "binary":
            return np.asarray(share[0])
        if self.kind == "overlapping":
            return np.asarray(share)
        rest = (~planes.any(1)).sum(0) / len(planes)  # counted, not 1 - sum: an exact share
        return np.concatenate([rest[None], share])

    @property
    def _axis(self) -> int:
        return -self.dims - 1
