"""`bu-bil`: cells in phase contrast, annotated by several persons, each with several tools (BU-BIL data sets 1-3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import numpy as np

from ..core.errors import UserError
from .file_dataset import Decoded, FileDataset, RawCase, Side
from .image_files import read_picture, to_channels, to_unit_range
from .orders import Order
from .patterns import files_below, natural, put_once
from .volume_dataset import need
from .volume_files import same_size

SetName = Literal["1", "2A", "2B", "3"]
Tool = Literal["Amira", "ImageJ", "ImCell", "all"]
_EXPERT = re.compile(
    r"(?:.*/)?BU-BIL_Dataset(?P<set>\d)/Experts?Annotations/(?:(?P<half>2[AB])/)?(?P<rater>[A-Za-z]+\d+_[A-Za-z]+)/"
    r"seg_(?P<case>[^/]+)\.png",
    re.IGNORECASE,
)
_RAW = re.compile(r"(?:.*/)?BU-BIL_Dataset(?P<set>\d)/RawImages/(?P<case>[^/]+)\.(?:png|tif|tiff|jpg)", re.IGNORECASE)
# Folders whose masks are copies of the gold standard in the public copy; of Person3_Amira in 2B 26 of 35 are.
COPIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "1": ("Person2_Amira", "Person2_ImageJ"),
        "2A": ("Person2_ImageJ",),
        "2B": ("Person3_Amira",),
        "3": ("Person2_ImageJ",),
    }
)
_STRAY = 1e-3  # share of pixels that may be grey: Person5_Amira/seg_B04.png has one


class BuBil(FileDataset):
    """One cell a picture; a rater is a person with a tool, such as ``Person3_Amira``.

    Sets ``1``, ``2A`` and ``3`` have five persons with Amira and ImageJ, ``2B`` three persons with Amira, ImageJ and
    ImCell. ``tool=all`` gives every person several slots, which shows how far one person repeats herself. Folders that
    are copies of the gold standard in the public copy are left out (``copies=drop``), because a gold standard is no
    independent rater. The raw pictures of sets 4-6 are crops whose place in the masks is not stored: they cannot be
    read. The masks of the crowd have other sizes than the pictures and are not read.
    """

    declared = "consistent"
    class_names = ("cell",)
    title = "BU-BIL: cells in phase contrast, persons and tools"
    citation = (
        "Gurari et al., How to Collect Segmentations for Biomedical Images? A Benchmark Evaluating the Performance of "
        "Experts, Crowdsourced Non-Experts, and Algorithms, WACV 2015"
    )
    licence = "BSD-style with an acknowledgement clause, Copyright (c) 2014 Boston University: keep the notice"
    how_to_get = (
        "download the Boston University Biomedical Image Library, so that FOLDER holds BU-BIL_Dataset1/RawImages and "
        "BU-BIL_Dataset1/ExpertsAnnotations/Person1_Amira/seg_B01.png, then: multirater prepare bu-bil --root FOLDER "
        "--set set=1. Tried on 22 original cases of set 1; 2A, 2B and 3 not yet on original files"
    )

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds BU-BIL_Dataset<k>"] = None,
        set: Annotated[SetName | int, "which data set"] = "1",
        tool: Annotated[Tool, "whose masks: made with one tool, or with all (several slots a person)"] = "ImageJ",
        copies: Annotated[Literal["drop", "keep"], "folders that are copies of the gold standard"] = "drop",
        size: Annotated[Side | tuple[Side, Side] | None, "side or [height, width]; null: as stored"] = 256,
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per case"] = None,
        split: Annotated[str, "cv4 or fixed"] = "cv4",
    ) -> None:
        chosen = str(set)
        if chosen not in COPIES:
            raise UserError(f"dataset.set = {chosen} is not allowed: choose {', '.join(COPIES)}")
        super().__init__(root=root, set=chosen, tool=tool, copies=copies, size=size, identity=identity, split=split)
        if copies == "keep":
            self.notice = f"{', '.join(COPIES[chosen])} of set {chosen} copy the gold standard, in part or whole"

    def list_cases(self, root: Path) -> list[RawCase]:
        # A root inside of the library: its name is part of what the patterns look for.
        outer = root.resolve()
        while outer.name.lower().startswith(("expert", "rawimages", "bu-bil_dataset")):
            outer = outer.parent
        images: dict[str, Path] = {}
        masks: dict[str, dict[str, Path]] = {}
        number, half = self.options["set"][0], self.options["set"][1:] and self.options["set"]
        for relative in files_below(outer):
            path = outer / relative
            if (found := _EXPERT.fullmatch(relative)) and found["set"] == number:
                if half and (found["half"] or "").upper() != half:
                    continue
                if self._wanted(found["rater"]):
                    put_once(masks.setdefault(found["case"].casefold(), {}), found["rater"], path)
            elif (found := _RAW.fullmatch(relative)) and found["set"] == number:
                put_once(images, found["case"].casefold(), path)
        example = f"BU-BIL_Dataset{number}/ExpertsAnnotations/{half + '/' if half else ''}Person1_Amira/seg_B01.png"
        need(masks, f"masks of tool {self.options['tool']} such as {example}", root)
        raters = {rater for of_case in masks.values() for rater in of_case}
        self.rater_names = tuple(sorted(raters, key=natural))
        cases = []
        for case, of_case in masks.items():
            if case not in images:
                raise UserError(f"{next(iter(of_case.values()))} has no picture in RawImages; restore it")
            name = images[case].stem
            chosen = [of_case.get(rater) for rater in self.rater_names]
            cases.append(RawCase(name, name, (images[case], *(p for p in chosen if p)), handle=(images[case], chosen)))
        return cases

    def _wanted(self, rater: str) -> bool:
        tool = self.options["tool"]
        copied = self.options["copies"] == "drop" and rater in COPIES[self.options["set"]]
        return not copied and (tool == "all" or rater.rpartition("_")[2].casefold() == tool.casefold())

    def decode(self, raw: RawCase) -> Decoded:
        path, masks = raw.handle
        picture = read_picture(path)
        image = to_channels(to_unit_range(picture.values, None), "grey")
        labels = np.zeros((len(masks), *image.shape[1:]), np.uint8)
        for r, mask in enumerate(masks):
            if mask is None:
                continue
            values = read_picture(mask, labels=True).values
            same_size(mask, values.shape, path, image.shape[1:])
            labels[r] = _cell(values, mask)
        return Decoded(image, labels, np.array([mask is not None for mask in masks]))


def _cell(values: np.ndarray, path: Path) -> np.ndarray:
    """The cell is black, the background white: 0 and 255, or 0 and 1 of bits and indices."""
    if values.dtype == np.bool_ or values.max() <= 1:
        return np.asarray(values == 0, np.uint8)
    grey = np.count_nonzero((values > 0) & (values < 255))
    if values.dtype != np.uint8 or grey > _STRAY * values.size:
        raise UserError(
            f"{path} holds {grey} pixels of other values than 0 and 255 (from {values.min():g} to {values.max():g}); "
            f"a mask is black on white, so restore it"
        )
    return np.asarray(values < 128, np.uint8)
