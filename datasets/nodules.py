"""Which outlines show the same nodule, and which group of readers drew them.

LIDC gives no nodule id that the readers share. Two annotations of one scan are joined if they share a voxel, or if
their centroids are closer than half the larger equivalent diameter; a nodule is a connected component. Where one
has more than four members (neighbouring nodules, bridged by one generous outline), the required overlap - intersection
over the smaller volume - rises from 0.05 to 0.95 in steps of 0.05 until no part has more than four. Six parts of five
members remain; they are left as they are, to be dropped by whoever needs one mask per reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .contours import ContourTable, Volume

READERS = 4  # a scan was read by four radiologists; more members in a nodule mean that two nodules are entangled
OVERLAPS = np.arange(1, 20) / 20

_FORMS = {
    "N": re.compile(r"Nodule \d+"),
    "I": re.compile(r"IL057_\d+"),
    "M": re.compile(r"MI014_\d+"),
    "S": re.compile(r"\d{1,2}"),
    "L": re.compile(r"\d{3,}"),
}


def reading_group(mark: str) -> str:
    """Group of the reader, from how the workstation named the mark.

    N is ``Nodule NNN``, I ``IL057_…``, M ``MI014_…``, S one or two digits, L more digits; O are the twelve others
    (``CA006_…``, ``NIHCA_…``).

    The groups differ in contours and ratings by many standard errors, so they are real; that they are sites is an
    inference, documented nowhere, and a group may hold several people.
    """
    return next((group for group, form in _FORMS.items() if form.fullmatch(mark)), "O")


@dataclass(frozen=True)
class Nodule:
    """Annotations (rows of the table, ascending) that outline one nodule; at most one of each reader."""

    scan: int
    annotations: tuple[int, ...]


def group_nodules(table: ContourTable, volumes: Mapping[int, Volume]) -> list[Nodule]:
    """All nodules of all scans, ordered by first annotation; those with more than four members are unresolved."""
    nodules = []
    order = np.argsort(table.annotation_scan, kind="stable")
    bounds = np.flatnonzero(np.diff(table.annotation_scan[order])) + 1
    for members in np.split(order, bounds):
        scan = int(table.annotation_scan[members[0]])
        voxel = np.array([table.scan_distance[scan], table.scan_spacing[scan], table.scan_spacing[scan]])
        for part in _components_of_scan([volumes[a] for a in members.tolist()], voxel):
            nodules.append(Nodule(scan, tuple(sorted(members[part].tolist()))))
    return sorted(nodules, key=lambda nodule: nodule.annotations[0])


def _components_of_scan(volumes: Sequence[Volume], voxel: np.ndarray) -> list[np.ndarray]:
    size = np.array([np.count_nonzero(v.voxels) for v in volumes])
    centre = np.array([(np.mean(np.nonzero(v.voxels), axis=1) + v.origin) * voxel for v in volumes])
    diameter = 2 * (3 * size * np.prod(voxel) / (4 * np.pi)) ** (1 / 3)
    distance = np.linalg.norm(centre[:, None] - centre[None], axis=-1)
    near = distance < np.maximum(diameter[:, None], diameter[None]) / 2
    overlap = _overlaps(volumes) / np.minimum(size[:, None], size[None])
    todo = [np.array(part) for part in _components(near | (overlap > 0))]
    done = [part for part in todo if len(part) <= READERS]
    for part in (p for p in todo if len(p) > READERS):
        done.extend(_resolve(part, overlap))
    return done


def _resolve(part: np.ndarray, overlap: np.ndarray) -> list[np.ndarray]:
    """Raise the required overlap inside a component until its parts have at most four members or 0.95 is reached."""
    inner = overlap[np.ix_(part, part)]
    parts = [np.arange(len(part))]
    for threshold in OVERLAPS:
        parts = _components(inner >= threshold)
        if max(map(len, parts)) <= READERS:
            break
    return [part[p] for p in parts]


def _components(joined: np.ndarray) -> list[np.ndarray]:
    count, label = connected_components(coo_array(joined), directed=False)
    return [np.flatnonzero(label == k) for k in range(count)]


def _overlaps(volumes: Sequence[Volume]) -> np.ndarray:
    """Voxels shared by each pair; only pairs whose boxes meet are compared."""
    start = np.array([v.origin for v in volumes])
    end = np.array([v.end for v in volumes])
    low, high = np.maximum(start[:, None], start[None]), np.minimum(end[:, None], end[None])
    shared = np.zeros((len(volumes), len(volumes)))
    for i, j in zip(*np.nonzero(np.triu((low < high).all(-1), 1)), strict=True):
        at, shape = tuple(low[i, j].tolist()), tuple((high[i, j] - low[i, j]).tolist())
        shared[i, j] = shared[j, i] = np.count_nonzero(volumes[i].window(at, shape) & volumes[j].window(at, shape))
    return shared
