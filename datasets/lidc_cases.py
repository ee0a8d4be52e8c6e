"""One LIDC nodule as a source of cases: its readers, its frame, its slices, and what the case list says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.seeding import numpy_generator
from .base import Identity
from .contours import ContourTable, Volume
from .nodules import READERS, Nodule, group_nodules, reading_group
from .simulated_ct import FRAME, RECIPE, Scene, frame_shift

UID_ROOT = "1.3.6.1.4.1.14519.5.2.1.6279.6001."
GROUPS = ("I", "M", "N", "S")
SPARSE = (*GROUPS, "L1", "L2")


@dataclass(frozen=True)
class NoduleCases:
    """A nodule whose slices are cases.

    Attributes:
        scene: what its image depends on besides the masks.
        readers: voxels of each reader who outlined it, in database order.
        groups: reading group of each of them.
        slices: slices that are cases, counted from the nodule's first.
        areas: 4×D pixels of each reader on each slice, also outside the frame; absent readers last.
        corner: (row, column) in the scan of the frame's first pixel.
        facts: what all its cases have in common in the case list.
        z: position of each slice, mm.
    """

    scene: Scene
    readers: Sequence[Volume]
    groups: Sequence[str]
    slices: Sequence[int]
    areas: np.ndarray
    corner: tuple[int, int]
    facts: Mapping[str, Any]
    z: Mapping[int, float]

    @classmethod
    def of(
        cls, table: ContourTable, nodule: Nodule, groups: Sequence[str], volumes: Mapping[int, Volume], set_name: str
    ) -> NoduleCases:
        readers = [volumes[a] for a in nodule.annotations]
        start, end = np.min([v.origin for v in readers], 0).tolist(), np.max([v.end for v in readers], 0).tolist()
        box = tuple(e - s for s, e in zip(start, end, strict=True))
        whole = np.stack([v.window(tuple(start), box) for v in readers])
        areas = np.zeros((READERS, box[0]), int)
        areas[: len(readers)] = whole.sum((2, 3))
        rows, columns = (np.flatnonzero(whole.any((0, 1, axis))) for axis in (3, 2))

        scan = nodule.scan
        scene = Scene(
            scan=table.scan_series[scan].decode(),
            nodule=int(table.annotation_id[nodule.annotations[0]]),
            spacing=float(table.scan_spacing[scan]),
            thickness=float(table.scan_thickness[scan]),
            distance=float(table.scan_distance[scan]),
            ratings=table.ratings(nodule.annotations),
            first_slice=start[0],
        )
        shift = frame_shift(scene.scan, scene.nodule)
        corner = (
            start[1] + int(rows[0] + rows[-1] + 1) // 2 - FRAME // 2 + shift[0],
            start[2] + int(columns[0] + columns[-1] + 1) // 2 - FRAME // 2 + shift[1],
        )
        contours = np.flatnonzero(np.isin(table.contour_annotation, nodule.annotations))
        ranks = (table.contour_slice[contours] - start[0]).tolist()
        positions = np.round(table.contour_z[contours].astype(float), 3).tolist()
        facts = {
            "nodule": scene.nodule,
            "annotations": [int(table.annotation_id[a]) for a in nodule.annotations],
            "study_uid": UID_ROOT + table.scan_study[scan].decode(),
            "series_uid": UID_ROOT + scene.scan,
            "slice_thickness": scene.thickness,
            "slice_distance": scene.distance,
            "corner": list(corner),
            "nodule_slices": int(np.count_nonzero(areas.any(0))),
            "groups": list(groups),
            "volumes": areas.sum(1).tolist(),
            "ratings": scene.ratings,
        }
        chosen = choose_slices(areas, set_name)
        return cls(scene, readers, groups, chosen, areas, corner, facts, dict(zip(ranks, positions, strict=True)))

    def masks(self) -> np.ndarray:
        """4×D×128×128 bool in the frame; absent readers last and empty."""
        framed = np.zeros((READERS, self.areas.shape[1], FRAME, FRAME), bool)
        for slot, volume in enumerate(self.readers):
            framed[slot] = volume.window((self.scene.first_slice, *self.corner), framed.shape[1:])
        return framed

    def record(self, patient: str, index: int, source: str, simulated: bool = True) -> dict[str, Any]:
        """Row of the case list for one slice; the same slice has the same case id in every set."""
        rank = self.scene.first_slice + index
        image: dict[str, Any] = {"simulated": simulated}
        if simulated:
            seed = {"recipe": RECIPE, "scan": self.scene.scan, "nodule": self.scene.nodule, "slice": rank}
            image |= {"recipe": RECIPE, "seed": seed}
        return {
            "case_id": f"{patient}-n{self.scene.nodule:04d}-s{rank:03d}",
            "patient_id": patient,
            "spacing": [self.scene.spacing, self.scene.spacing],
            "source": source,
            "meta": {
                **self.facts,
                "slice": rank,
                "z": self.z[index],
                "drawn": int(np.count_nonzero(self.areas[:, index])),
                "areas": self.areas[:, index].tolist(),
                **image,
            },
        }


def restriction(identity: str, set_name: str) -> str:
    """Which nodules of a set an identity needs: all, those with readers of I, M, N and S, or with some known group."""
    if identity == "group":
        return "identified"
    # elsewhere than in `detect` every nodule has a reader of some group
    return "some-group" if identity == "group_sparse" and set_name == "detect" else "all"


def select_nodules(
    table: ContourTable, volumes: Mapping[int, Volume], set_name: str, kept: str
) -> Iterator[tuple[str, NoduleCases]]:
    """Patient and cases of each nodule of a set; `kept` is what `restriction` says."""
    for nodule in group_nodules(table, volumes):
        groups = [reading_group(table.annotation_mark[a].decode()) for a in nodule.annotations]
        if len(groups) > READERS or (len(groups) < READERS and set_name != "detect"):
            continue
        if (kept == "identified" or set_name == "group4") and sorted(groups) != sorted(GROUPS):
            continue
        if kept == "some-group" and max(slots_of(groups, SPARSE)) < 0:
            continue
        if set_name == "mm-patients" and not table.scan_matting[nodule.scan]:
            continue
        cases = NoduleCases.of(table, nodule, groups, volumes, set_name)
        if cases.slices:
            yield table.patient_id(nodule.scan), cases


def reader_order(
    identity: str, metas: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, tuple[str, ...], Identity] | None:
    """What `Dataset.rater_order` gives for an identity, from the meta of the case list; None: as stored."""
    if identity == "group":
        return np.array([slots_of(meta["groups"], GROUPS) for meta in metas]), GROUPS, "consistent"
    if identity == "group_sparse":
        return np.array([slots_of(meta["groups"], SPARSE) for meta in metas]), SPARSE, "consistent"
    if identity in ("by_area", "by_area_slice"):
        sizes = np.array([meta["volumes" if identity == "by_area" else "areas"] for meta in metas])
        names = tuple(f"area{k}" for k in range(1, READERS + 1))
        return np.argsort(sizes, axis=1, kind="stable"), names, "derived"
    if identity == "none":
        permuted = {nodule: _permutation(nodule) for nodule in {meta["nodule"] for meta in metas}}
        return np.array([permuted[meta["nodule"]] for meta in metas]), tuple("1234"), "none"
    return None


def _permutation(nodule: int) -> list[int]:
    return numpy_generator("lidc-contours reader order", nodule=nodule).permutation(READERS).tolist()


def choose_slices(areas: np.ndarray, set_name: str) -> list[int]:
    """Slices of a nodule that belong to a set; one that nobody drew is never a case.

    Args:
        areas: 4×D pixels of each reader on each slice.
        set_name: ``mid``: the slice with pixels of all four and the largest mean area (the first of equals);
            ``all4`` and ``mm-patients``: pixels of all four; otherwise pixels of any.
    """
    drawn = np.count_nonzero(areas, axis=0)
    if set_name == "mid":
        size = np.where(drawn == READERS, areas.sum(0), 0)
        return [int(size.argmax())] if size.any() else []
    wanted = drawn == READERS if set_name in ("all4", "mm-patients") else drawn > 0
    return np.flatnonzero(wanted).tolist()


def slots_of(groups: Sequence[str], names: Sequence[str]) -> list[int]:
    """Stored slot of each named group, -1 where the nodule has none; the readers of L become L1, L2, … as stored."""
    labels = [f"L{list(groups[: slot + 1]).count('L')}" if group == "L" else group for slot, group in enumerate(groups)]
    return [labels.index(name) if name in labels else -1 for name in names]
