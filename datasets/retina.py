"""`retina`: vessels in fundus photographs by two observers: DRIVE, CHASE_DB1, STARE."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import numpy as np

from ..core.errors import UserError
from .file_dataset import Decoded, FileDataset, RawCase, Side
from .image_files import Picture, read_picture, read_picture_bytes, to_channels
from .orders import Order
from .patterns import files_below, put_once
from .volume_dataset import need
from .volume_files import by, codes, same_size

SetName = Literal["chase_db1", "drive", "stare"]
_EXT = r"\.(?:jpe?g|png|tiff?|gif|ppm|pgm)(?:\.gz)?"
_UNPACKED = 1 << 26  # bytes of a picture of these sets: a few at most
# A palette of 3 and 253 stands for 0 and 1 where a copy was converted to grey.
_CODES = {0: 0, 3: 0, 1: 1, 253: 1, 255: 1}
_DARK = {"chase_db1": 20, "stare": 35}  # red below it lies outside the field of view


@dataclass(frozen=True)
class _Layout:
    """Patterns of one set; groups: ``case``, and in masks ``rater``, the observer as the files name it."""

    raters: tuple[str, ...]
    image: str
    mask: str
    field: str = ""
    patient: str = r"(.*)"


_LAYOUTS: Mapping[str, _Layout] = MappingProxyType(
    {
        "chase_db1": _Layout(
            ("1stHO", "2ndHO"),
            rf"(?:.*/)?Image_(?P<case>\d+[LR]){_EXT}",
            rf"(?:.*/)?Image_(?P<case>\d+[LR])_(?P<rater>1stHO|2ndHO){_EXT}",
            patient=r"(\d+)[LR]",
        ),
        "drive": _Layout(
            ("1", "2"),
            rf"(?:.*/)?images/(?P<case>\d+_(?:test|training)){_EXT}",
            rf"(?:.*/)?(?P<part>test|training)/(?:1st|2nd)_manual/(?P<case>\d+)_manual(?P<rater>[12]){_EXT}",
            rf"(?:.*/)?mask/(?P<case>\d+_(?:test|training))_mask{_EXT}",
        ),
        "stare": _Layout(
            ("ah", "vk"),
            rf"(?:.*/)?(?P<case>im\d+){_EXT}",
            rf"(?:.*/)?(?P<case>im\d+)\.(?P<rater>ah|vk){_EXT}",
        ),
    }
)


class Retina(FileDataset):
    """Retinal vessels by two observers, whose numbers mean the same person throughout a set.

    * ``chase_db1``: 28 photographs, both eyes of 14 children, who are never parted;
    * ``drive``: the 20 of the test half; with ``halves=both`` also the 20 of the training half, which the second
      observer did not see (missing, not empty);
    * ``stare``: 20 photographs.

    Pixels outside the field of view do not count (``field=all``: they do). DRIVE stores it; of the other sets it is
    what is not dark in the red channel, the largest part of it, with its holes filled.
    """

    declared = "consistent"
    class_names = ("vessel",)
    title = "Retinal vessels by two observers: CHASE_DB1, DRIVE, STARE"
    citation = (
        "CHASE_DB1: Fraz et al., An ensemble classification-based approach applied to retinal blood vessel "
        "segmentation, IEEE TBME 59(9), 2012. DRIVE: Staal et al., Ridge-based vessel segmentation in color images of "
        "the retina, IEEE TMI 23(4), 2004. STARE: Hoover, Kouznetsova, Goldbaum, Locating blood vessels in retinal "
        "images by piecewise threshold probing of a matched filter response, IEEE TMI 19(3), 2000"
    )
    licence = "CHASE_DB1: CC BY 4.0; DRIVE: research, after registration; STARE: public, without a licence text"
    how_to_get = (
        "CHASE_DB1: Kingston University research data, one flat folder; DRIVE: drive.grand-challenge.org, unpacked so "
        "that FOLDER holds test/images, test/1st_manual, test/2nd_manual, test/mask (a copy that still has the test "
        "masks); STARE: cecas.clemson.edu/~ahoover/stare, the archives stare-images, labels-ah and labels-vk unpacked "
        "into FOLDER (.ppm.gz may stay packed). Then: multirater prepare retina --root FOLDER --set set=drive. "
        "CHASE_DB1 was tried on 18 original cases, DRIVE and STARE not yet on original files"
    )
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "compat": "chase_db1: the first 20 photographs against the last 8; drive: the official halves, of which "
            "the training half has one observer; stare: the first 10 against the last 10; about one in eight training "
            "patients serves for selection",
            "compat-loo": "stare: each photograph against the 19 others, about one in eight of which serves for "
            "selection",
        }
    )
    compat_folds: ClassVar[Mapping[str, int]] = MappingProxyType({"compat-loo": 20})

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds the files of one set"] = None,
        set: Annotated[SetName, "which set"] = "chase_db1",
        halves: Annotated[Literal["test", "both"], "of drive: the half that both observers saw, or both"] = "test",
        field: Annotated[Literal["inside", "all"], "pixels that count: inside the field of view, or all"] = "inside",
        size: Annotated[Side | tuple[Side, Side] | None, "side or [height, width]; null: as stored"] = 512,
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per case"] = None,
        split: Annotated[str, "cv4, fixed, compat, or compat-loo (stare)"] = "cv4",
    ) -> None:
        super().__init__(root=root, set=set, halves=halves, field=field, size=size, identity=identity, split=split)
        self.layout = _LAYOUTS[set]
        self.rater_names = self.layout.raters
        if split == "compat-loo" and set != "stare":
            raise UserError(f"split 'compat-loo' is of stare, not of {set}; use compat, or cv4")
        if split == "compat" and set == "drive" and halves != "both":
            raise UserError("split 'compat' of drive trains on the training half; add --set dataset.halves=both")

    # -- listing --------------------------------------------------------------------------------

    def list_cases(self, root: Path) -> list[RawCase]:
        images: dict[str, Path] = {}
        fields: dict[str, Path] = {}
        masks: dict[str, dict[str, Path]] = {}
        patterns = [re.compile(p) for p in (self.layout.image, self.layout.mask, self.layout.field or r"(?!)")]
        for relative in files_below(root):
            image, mask, field = (pattern.fullmatch(relative) for pattern in patterns)
            if mask:
                parts = mask.groupdict()
                case = f"{mask['case']}_{parts['part']}" if "part" in parts else mask["case"]
                put_once(masks.setdefault(case, {}), mask["rater"], root / relative)
            elif image:
                put_once(images, image["case"], root / relative)
            elif field:
                put_once(fields, field["case"], root / relative)
        if self.options["set"] == "drive" and self.options["halves"] == "test":
            images = {case: path for case, path in images.items() if case.endswith("_test")}
            masks = {case: found for case, found in masks.items() if case.endswith("_test")}
        need(masks, f"masks of {self.options['set']} such as {_EXAMPLES[self.options['set']]}", root)
        self.unused["left_out"] = sorted(images.keys() - masks.keys())
        cases = []
        for number, (case, found) in enumerate(sorted(masks.items())):
            if case not in images:
                raise UserError(f"{next(iter(found.values()))} has no photograph; restore it or remove the mask")
            if self.layout.field and self.options["field"] == "inside" and case not in fields:
                raise UserError(
                    f"{images[case]} has no field of view in the folder mask beside it; restore it or use --set "
                    f"dataset.field=all"
                )
            cases.append(self._case(number, case, images[case], found, fields.get(case)))
        return cases

    def _case(self, number: int, case: str, image: Path, masks: dict[str, Path], field: Path | None) -> RawCase:
        patient = re.fullmatch(self.layout.patient, case)
        assert patient
        first = {"drive": case.endswith("_training"), "chase_db1": case[:2] <= "10", "stare": number < 10}
        part = "train" if first[self.options["set"]] else "test"
        chosen = [masks.get(rater) for rater in self.rater_names]
        shown = field if self.options["field"] == "inside" else None
        files = (image, *(p for p in (*chosen, shown) if p))
        return RawCase(case, patient[1], files, part=part, handle=(image, chosen, shown))

    # -- reading --------------------------------------------------------------------------------

    def decode(self, raw: RawCase) -> Decoded:
        path, masks, field = raw.handle
        values = _picture(path).values
        if values.ndim != 3 or values.dtype != np.uint8:
            raise UserError(f"{path} has shape {by(values.shape)} of {values.dtype}; expected is a colour photograph")
        labels = np.zeros((len(masks), *values.shape[:2]), np.uint8)
        for r, mask in enumerate(masks):
            if mask is not None:
                labels[r] = _binary(mask, values.shape[:2], path)
        region = None
        if self.options["field"] == "inside":
            region = _binary(field, values.shape[:2], path) > 0 if field else self._field(values[..., 0], path)
        image = to_channels(values.astype(np.float32) / np.float32(255), "rgb")
        return Decoded(image, labels, np.array([m is not None for m in masks]), region=region)

    def _field(self, red: np.ndarray, path: Path) -> np.ndarray:
        from scipy.ndimage import binary_fill_holes, label

        parts, count = label(red > _DARK[self.options["set"]])
        if not count:
            raise UserError(f"{path} is dark all over, so it has no field of view; use --set dataset.field=all")
        largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
        return np.asarray(binary_fill_holes(parts == largest))

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        if self.options["set"] == "stare" and len(self) != 20:
            raise UserError(f"split {name!r} needs the 20 photographs of stare, but {len(self)} are there; use cv4")
        if name == "compat-loo":
            train, val = self.carve([row for row in range(20) if row != fold], 8)
            return {"train": train, "val": val, "test": [fold]}
        return self.official_halves(8)


_EXAMPLES = {
    "chase_db1": "Image_01L_1stHO.png",
    "drive": "test/1st_manual/01_manual1.gif",
    "stare": "labels-ah/im0001.ah.ppm.gz",
}


def _picture(path: Path, labels: bool = False) -> Picture:
    """A picture that may be packed by gzip; nothing larger than these sets hold is unpacked."""
    if path.suffix.lower() != ".gz":
        return read_picture(path, labels)
    try:
        with gzip.open(path) as stream:
            content = stream.read(_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or not packed by gzip ({error}); restore the file") from error
    if len(content) > _UNPACKED:
        raise UserError(f"{path} unpacks to more than {_UNPACKED >> 20} MiB, which no picture of this set does")
    return read_picture_bytes(content, path, labels)


def _binary(path: Path, shape: tuple[int, ...], image: Path) -> np.ndarray:
    """Palette indices 0/1, grey 0/255 or 3/253, or bits, as uint8 in {0,1}."""
    values = _picture(path, labels=True).values
    same_size(path, values.shape, image, shape)
    return codes(values, _CODES, path)
