"""`gleason2019`: cores of prostate tissue graded by six pathologists (Gleason 2019 challenge)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import numpy as np

from ..core.errors import UserError
from .file_dataset import Decoded, FileDataset, RawCase, Side
from .orders import Order
from .patterns import files_below, put_once
from .photographs import Source, read_colour, read_mask, shrunk
from .volume_dataset import need
from .volume_files import codes

RATERS = ("1", "2", "3", "4", "5", "6")
# Index of each stored value: 0 background, 1 benign, 2-4 Gleason patterns 3-5.
ORIGINAL = {0: 0, 1: 1, 6: 1, 3: 2, 4: 3, 5: 4, 2: 0}
PIONONO = {4: 0, 0: 1, 1: 2, 2: 3, 3: 4}
_STRAY = 1e-3  # share of pixels that may hold the unused value 2
_IMAGE = re.compile(r"(?:.*/)?train[ _]imgs/(?:.*/)?(?P<case>slide\d+_core\d+)\.(?:jpe?g|png|tiff?)", re.IGNORECASE)
_MAP = re.compile(
    r"(?:.*/)?Maps(?P<rater>[1-6])_T/(?:.*/)?(?P<case>slide\d+_core\d+)(?:_classimg_nonconvex)?\.png", re.IGNORECASE
)
# Cores with pattern 5, which Pionono spreads evenly over its folds.
_GRADE_5 = (
    "slide001_core145", "slide007_core005", "slide007_core044", "slide003_core068", "slide007_core016",
    "slide002_core073", "slide002_core144", "slide001_core010", "slide002_core009", "slide005_core092",
    "slide002_core074", "slide002_core140", "slide002_core143", "slide002_core010", "slide003_core096",
    "slide007_core043",
)  # fmt: skip


class Gleason2019(FileDataset):
    """Benign tissue and Gleason patterns 3, 4, 5 in 244 cores, each read by three to six of six pathologists.

    A pathologist without a map did not read the core. Background and tissue that nobody graded are one value in the
    files, and one here: index 0, which the metrics of the classes leave out, but which a method is trained on. The
    value 2 means nothing; where a few pixels hold it they are background, and their number is kept in the case list
    (``stray_pixels``).

    The files do not say which cores are of one patient (there are fewer patients than cores). Splits by rule go by
    slide and never part one; with ``group=core`` they go by core, which may part a patient.
    """

    rater_names = RATERS
    declared = "consistent"
    class_names = ("benign", "pattern 3", "pattern 4", "pattern 5")
    title = "Gleason 2019: prostate tissue cores, six pathologists"
    citation = (
        "Nir et al., Automatic grading of prostate cancer in digitized histopathology images: Learning from multiple "
        "experts, Medical Image Analysis 50:167-180, 2018; Karimi et al., Deep learning-based Gleason grading of "
        "prostate cancer from histopathology images, IEEE JBHI 24(5), 2020"
    )
    licence = "challenge terms: after registration, no redistribution"
    how_to_get = (
        "register at gleason2019.grand-challenge.org, and unpack images and maps (the archive of maps holds six "
        "archives) into FOLDER, so that it holds 'Train Imgs/slide001_core003.jpg' (or Train_imgs) and "
        "Maps1_T/slide001_core003_classimg_nonconvex.png to Maps6_T; then: multirater prepare gleason2019 --root "
        "FOLDER. Loader not yet tried on the original files"
    )
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "compat": "Pionono's four folds by cores, not patients, with its seed and its even spread of pattern 5, of "
            "the sorted names (its own order is that of a file system and cannot be had again); it selects nothing, "
            "here about one in eight training slides serves for selection"
        }
    )
    compat_folds: ClassVar[Mapping[str, int]] = MappingProxyType({"compat": 4})

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds Train Imgs (or Train_imgs) and Maps1_T to Maps6_T"] = None,
        values: Annotated[
            Literal["original", "pionono"], "what the maps hold: 0, 1, 3-6, or 0-4 as Pionono's script leaves them"
        ] = "original",
        group: Annotated[Literal["slide", "core"], "what a split never parts"] = "slide",
        size: Annotated[
            Side | tuple[Side, Side] | None, "side or [height, width]; null: as stored, 5000 a side"
        ] = 1024,
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per case"] = None,
        split: Annotated[str, "cv4, fixed, or compat: Pionono's"] = "cv4",
    ) -> None:
        super().__init__(root=root, values=values, group=group, size=size, identity=identity, split=split)
        if group == "core" or split == "compat":
            self.notice = "the patients of the cores are not recorded: a split by cores may part a patient"

    def list_cases(self, root: Path) -> list[RawCase]:
        images: dict[str, Path] = {}
        maps: dict[str, dict[str, Path]] = {}
        for relative in files_below(root):
            path = root / relative
            if found := _MAP.fullmatch(relative):
                put_once(maps.setdefault(found["case"].lower(), {}), found["rater"], path)
            elif found := _IMAGE.fullmatch(relative):
                put_once(images, found["case"].lower(), path)
        need(maps, "Maps1_T/slide001_core003_classimg_nonconvex.png", root)
        self.unused["left_out"] = sorted(images.keys() - maps.keys())
        cases = []
        for core, of_core in maps.items():
            if core not in images:
                raise UserError(
                    f"{next(iter(of_core.values()))} has no image in 'Train Imgs' or Train_imgs; restore it"
                )
            chosen = [of_core.get(rater) for rater in RATERS]
            patient = core.partition("_")[0] if self.options["group"] == "slide" else core
            files = (images[core], *(p for p in chosen if p))
            cases.append(RawCase(core, patient, files, handle=(images[core], chosen)))
        return cases

    def decode(self, raw: RawCase) -> Decoded:
        path, maps = raw.handle
        size = self.options["size"]
        image, native = read_colour(Source(path), size)
        labels = np.zeros((len(RATERS), *image.shape[1:]), np.uint8)
        stray = 0
        for r, stored in enumerate(maps):
            if stored is None:
                continue
            values = read_mask(Source(stored), native, Source(path))
            if self.options["values"] == "pionono":
                labels[r] = shrunk(codes(values, PIONONO, stored), size)
                continue
            unused = int(np.count_nonzero(values == 2))
            if unused > _STRAY * values.size:
                raise UserError(
                    f"{stored} holds the value 2 in {unused} pixels, which means nothing in the original maps; of maps "
                    f"that Pionono's script made use --set dataset.values=pionono"
                )
            stray += unused
            labels[r] = shrunk(codes(values, ORIGINAL, stored), size)
        if stray:
            raw.meta["stray_pixels"] = stray
        return Decoded(image, labels, np.array([stored is not None for stored in maps]))

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        cores = sorted(self._ids[0])
        kept = [core for core in cores if core not in _GRADE_5]
        np.random.RandomState(0).shuffle(kept)  # the generator behind numpy.random.seed(0)
        grade5 = [core for core in _GRADE_5 if core in cores]
        for i, core in enumerate(grade5):
            kept.insert(int(len(cores) / len(grade5) * i), core)
        quarter = len(cores) / 4
        held_out = set(kept[int(quarter * fold) : int(quarter * (fold + 1))])
        test = [row for row, core in enumerate(self._ids[0]) if core in held_out]
        train, val = self.carve([row for row, core in enumerate(self._ids[0]) if core not in held_out], 8)
        return {"train": train, "val": val, "test": test}
