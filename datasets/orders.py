"""Orders of the raters that any data set can offer: as stored, shuffled, or by area."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..core.seeding import numpy_generator
from .base import Identity
from .store import ArrayStore

Order = Literal["none", "as_stored", "by_area", "by_area_slice"]


def order_raters(
    name: str, store: ArrayStore, chosen: Order, declared: Identity, ids: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...], Identity]:
    """Stored slot of each rater of each row, the rater ids and the identity, for `Dataset.rater_order`.

    ``none`` shuffles the slots of every case by a stream of its own. ``by_area`` sorts ascending by foreground area,
    summed over all classes and over all slices of a volume (one order a case); ``by_area_slice`` sorts every slice, as
    D-Persona's loader does. Ties keep the stored order. A case with missing raters fills the first places: its k-th
    smallest of fewer masks.

    Args:
        name: of the data set; names the stream of ``none``.
        declared: what the slots mean as stored.
    """
    valid = store.rater_valid
    rows, slots = valid.shape
    order = np.where(valid, np.arange(slots), -1)
    if chosen == "as_stored":
        return order, ids, "consistent" if declared == "consistent" else "derived"
    places = tuple(str(k + 1) for k in range(slots))
    cases = [record["meta"].get("volume", record["case_id"]) for record in store.records]
    if chosen == "none":
        shuffled = {c: numpy_generator(f"{name} rater order", case=c).permutation(slots) for c in set(cases)}
        moved = np.stack([shuffled[c] for c in cases])
        return np.take_along_axis(order, moved, axis=1), places, "none"
    area = np.stack([np.count_nonzero(masks.reshape(slots, -1), axis=1) for masks in store.masks])
    if chosen == "by_area":
        group = np.unique(np.array(cases), return_inverse=True)[1]
        total = np.zeros((group.max() + 1, slots), area.dtype)
        np.add.at(total, group, area)
        area = total[group]
    ranked = np.argsort(np.where(valid, area, np.iinfo(area.dtype).max), axis=1, kind="stable")
    assert len(ranked) == rows
    return np.take_along_axis(order, ranked, axis=1), tuple(f"area{p}" for p in places), "derived"
