"""How far the raters of a data set agree, before any method: for `multirater prepare` and the data card.

The numbers are those of `multirater.metrics.agreement_cases`, which a test compares with; here they are counted for
tens of thousands of cases in seconds, and kept beside the prepared arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.cache import cache_root
from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..core.hashing import key8
from ..datasets.base import Dataset
from ..metrics.agreement import fleiss
from ..metrics.case import Undefined
from ..metrics.region import box_of
from .class_layout import ClassLayout
from .scored_cases import as_case, places, rows_of

SCHEMA = "multirater.agreement/1"
_BYTES_AT_ONCE = 16 << 20  # of masks
_PIXELS_AT_ONCE = 1 << 22  # counts of so many are exact in single precision


def agreement(dataset: Dataset, progress: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
    """Statistics of all cases; a volume is one case. Plain JSON: what is undefined is None.

    Returns:
        ======================================== =============================================================
        key                                      value
        ======================================== =============================================================
        n_cases, rater_ids, identity, classes    of what follows
        pairwise_dice                            mean over cases of the mean over the pairs of raters who saw it;
                                                 several classes: their mean; two empty masks agree (1)
        fleiss_kappa, fleiss_kappa.full          of votes pooled over all cases; in the box around the raters of a
                                                 case, and over all pixels; several classes: their mean
        vote_histogram, vote_histogram.full      shares of pixels with 0, 1, … votes, in the same two regions
        pair_dice, pair_cases                    R×R, mean over the cases both saw, and their number
        rater_cases, rater_empty, rater_area     R: cases seen, of them without any mark, mean marked pixels
        ======================================== =============================================================
    """
    described = dataset.describe()
    layout = ClassLayout.of(described)
    slots, classes = described.raters, described.classes
    votes = np.zeros((2, classes, slots + 1, slots + 1), np.int64)  # region, class, raters who saw it, votes
    dice, pairs = np.zeros((slots, slots)), np.zeros((slots, slots), np.int64)
    empty, area = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
    means = []
    for planes, valid, region, spacing in _cases(dataset, layout, progress):
        present = np.flatnonzero(valid)
        count = len(present)
        if not count:
            continue
        per_class, marked = [], np.zeros(count, np.int64)
        for k in range(classes):
            masks = planes[present, k]
            inter, histogram, inside = _counts(masks, region, spacing)
            votes[0, k, count, : count + 1] += [inside - histogram[1:].sum(), *histogram[1:]]
            votes[1, k, count, : count + 1] += histogram
            sizes = inter.diagonal()
            total = sizes[:, None] + sizes
            per_class.append(np.divide(2 * inter, total, out=np.ones(inter.shape), where=total > 0))
            marked += sizes
        together = np.mean(per_class, axis=0)
        here = np.ix_(present, present)
        dice[here] += together
        pairs[here] += 1
        empty[present] += marked == 0
        area[present] += marked
        if count > 1:
            means.append(together[np.triu_indices(count, 1)].mean())
    seen = pairs.diagonal()
    found: dict[str, Any] = {
        "n_cases": len(dataset.volumes(range(len(dataset)))),
        "rater_ids": list(described.rater_ids),
        "identity": described.identity,
        "classes": classes,
        "pairwise_dice": _plain(np.mean(means)) if means else None,
    }
    for region_votes, mark in zip(votes, ("", ".full"), strict=True):
        found["fleiss_kappa" + mark] = _plain(np.mean([_kappa(table) for table in region_votes]))
        found["vote_histogram" + mark] = _plain(
            np.mean([t.sum(0) / t.sum() if t.sum() else np.full(slots + 1, math.nan) for t in region_votes], axis=0)
        )
    found["pair_dice"] = _plain(np.divide(dice, pairs, out=np.full(dice.shape, math.nan), where=pairs > 0))
    found |= {"pair_cases": pairs.tolist(), "rater_cases": seen.tolist(), "rater_empty": empty.tolist()}
    found["rater_area"] = _plain(np.divide(area, seen, out=np.full(slots, math.nan), where=seen > 0))
    return found


def stored_agreement(dataset: Dataset, progress: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
    """`agreement`, computed once for the arrays and the order of the raters and kept beside the arrays."""
    options = {k: v for k, v in dataset.options.items() if k not in ("root", "split", "config")}
    path = dataset.prepare() / "agreement" / f"{key8(options)}.json"
    known = _record(path)
    if known is not None and known["fingerprint"] == dataset.fingerprint:
        return known["agreement"]
    found = agreement(dataset, progress)
    head = {"schema": SCHEMA, "dataset": dataset.name, "options": options, "fingerprint": dataset.fingerprint}
    write_json(path, {**head, "agreement": found})
    return found


def known_agreements(name: str) -> list[dict[str, Any]]:
    """What `stored_agreement` has kept of a data set on this machine, the newest first."""
    paths = sorted(cache_root().joinpath(name).glob("*/agreement/*.json"), key=lambda p: -p.stat().st_mtime)
    records = [record for path in paths if (record := _record(path)) is not None]
    return [{"options": r["options"], "fingerprint": r["fingerprint"], **r["agreement"]} for r in records]


def _record(path: Path) -> dict[str, Any] | None:
    """What `stored_agreement` has written; None if it is not there, damaged, or of another version."""
    try:
        record = read_json(path)
    except (OSError, UserError):
        return None
    whole = isinstance(record, dict) and {"options", "fingerprint", "agreement"} <= set(record)
    return record if whole and record.get("schema") == SCHEMA else None


def _cases(
    dataset: Dataset, layout: ClassLayout, progress: Callable[[int], None]
) -> Iterator[tuple[NDArray, NDArray, NDArray | None, tuple[float, ...] | None]]:
    """Planes R×K×…, who saw the case, the pixels that count (None: all) and the spacing, of every case."""
    cases, block, done = dataset.volumes(range(len(dataset))), [], 0
    most = max(1, _BYTES_AT_ONCE // dataset.store.masks[:1].nbytes)
    for number, case in enumerate(cases):
        block.append(case)
        if sum(len(c.rows) for c in block) < most and number + 1 < len(cases):
            continue
        rows = rows_of(block)
        masks, valid = dataset.masks(rows)
        regions = dataset.valid_region(rows)
        for one, place in zip(block, places(block), strict=True):
            planes = layout.of_case(one).planes(as_case(masks[place], one.volume))
            region = None if regions is None else as_case(regions[place], one.volume)
            yield planes, valid[place].min(0), region, one.spacing
            done += len(one.rows)
        progress(done)
        block = []


def _counts(masks: NDArray, region: NDArray | None, spacing: Any) -> tuple[NDArray, NDArray, int]:
    """Intersections of all pairs, pixels by votes over all pixels that count, and how many of those are in the box."""
    if region is not None:
        masks = masks & region
    box = box_of(masks, spacing)
    if region is not None:
        inside, total = int(region[box].sum()), int(region.sum())
    else:
        inside, total = math.prod(part.stop - part.start for part in box), masks[0].size
    # Outside the box nobody has marked anything.
    cut = np.stack([mask[box] for mask in masks]).reshape(len(masks), -1)
    inter = np.zeros((len(masks), len(masks)))
    histogram = np.zeros(len(masks) + 1, np.int64)
    for start in range(0, cut.shape[1], _PIXELS_AT_ONCE):
        part = cut[:, start : start + _PIXELS_AT_ONCE]
        flat = part.astype(np.float32)
        inter += flat @ flat.T
        histogram += np.bincount(part.sum(0, dtype=np.uint16), minlength=len(masks) + 1)
    histogram[0] = total - histogram[1:].sum()
    return np.rint(inter).astype(np.int64), histogram, inside


def _kappa(table: NDArray) -> float:
    try:
        return fleiss(table)
    except Undefined:
        return math.nan


def _plain(value: Any) -> Any:
    """Lists and numbers of JSON; nan becomes None."""
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value]
    return float(value) if math.isfinite(value) else None
