"""`riga`: optic disc and cup in fundus photographs by six ophthalmologists, in the form of MR-Net (DiscRegion)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import numpy as np

from ..core.errors import UserError
from .file_dataset import Decoded, FileDataset, RawCase, Side
from .image_files import distinct, target_size
from .orders import Order
from .patterns import files_below
from .photographs import Source, read_colour, read_mask, shrunk
from .tables import read_table
from .volume_dataset import need

SOURCES = ("BinRushed", "MESSIDOR", "Magrabia")
RATERS = ("1", "2", "3", "4", "5", "6")
COLUMNS = ("imgName", "maskName", "rater")
FINAL = "FinalLabel"
_MEAN, _DEVIATION = (np.array(v, np.float32).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


class Riga(FileDataset):
    """Crops around the optic disc; two overlapping classes, disc and cup; raters 1 to 6.

    A mask is grey: 0 background, one value between (128) the rim of the disc, 255 the cup. Both classes are taken from
    the stored values, and only then resized. ``resize=mrnet`` does it the other way round, as MR-Net's loader does
    under Pillow 7 and later: smoothing first loses the edge of the cup (fewer pixels are exactly 255) and makes
    background beside the disc part of it.

    The rows of the tables are found by their column ``rater``, never by their order. A rater without a row did not see
    the image.
    """

    rater_names = RATERS
    declared = "consistent"
    class_names = ("disc", "cup")
    overlapping = True
    title = "RIGA: optic disc and cup in fundus photographs, six ophthalmologists"
    citation = (
        "Almazroa et al., Retinal fundus images for glaucoma analysis: the RIGA dataset, Proc. SPIE 10579, 2018, doi "
        "10.7302/Z23R0R29; form: Ji et al., Learning Calibrated Medical Image Segmentation via Multi-rater Agreement "
        "Modeling, CVPR 2021"
    )
    licence = "CC BY-NC 4.0"
    how_to_get = (
        "from the raw release (doi 10.7302/Z23R0R29) masks would have to be rebuilt from outlines drawn into pictures, "
        "which loses about 70 of 750; get the processed DiscRegion folder of MR-Net (github.com/jiwei0921/MRNet), so "
        "that FOLDER holds Glaucoma_multirater_BinRushed.csv, _MESSIDOR.csv, _Magrabia.csv and the pictures that they "
        "name; then: multirater prepare riga --root FOLDER. Loader not yet tried on the original files"
    )
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "compat": "MR-Net's: BinRushed and MESSIDOR for training, Magrabia for testing; it has no validation part, "
            "here about one in ten training images serves for selection"
        }
    )

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds Glaucoma_multirater_<source>.csv"] = None,
        size: Annotated[Side | tuple[Side, Side] | None, "side or [height, width]; null: as stored"] = 256,
        intensity: Annotated[Literal["unit", "imagenet"], "0 to 1, or ImageNet's mean and deviation (MR-Net)"] = "unit",
        resize: Annotated[
            Literal["nearest", "mrnet"], "masks: classes first, then nearest; or cubic first, then classes (a fault)"
        ] = "nearest",
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per case"] = None,
        split: Annotated[str, "cv4, fixed, or compat: BinRushed and MESSIDOR against Magrabia"] = "cv4",
    ) -> None:
        super().__init__(root=root, size=size, intensity=intensity, resize=resize, identity=identity, split=split)
        if resize == "mrnet":
            self.notice = "resize=mrnet: masks were smoothed before disc and cup were read, which shrinks the cup"

    # -- listing --------------------------------------------------------------------------------

    def list_cases(self, root: Path) -> list[RawCase]:
        tables = {}
        for relative in files_below(root):
            name = relative.rpartition("/")[2]
            if name.startswith("Glaucoma_multirater_") and name.endswith(".csv"):
                tables[root / relative] = name.removeprefix("Glaucoma_multirater_").removesuffix(".csv")
        need(tables, "Glaucoma_multirater_BinRushed.csv, _MESSIDOR.csv or _Magrabia.csv (the DiscRegion form)", root)
        cases: list[RawCase] = []
        for path, source in tables.items():
            if source not in SOURCES:
                raise UserError(f"{path} is not expected: the sources are {', '.join(SOURCES)}; rename or remove it")
            cases += _cases(path, source)
        return cases

    def decode(self, raw: RawCase) -> Decoded:
        image_path, masks = raw.handle
        image_source, size = Source(image_path), self.options["size"]
        cubic = self.options["resize"] == "mrnet"
        image, native = read_colour(image_source, None if cubic else size)
        target = target_size(size, native)
        if cubic:
            image = _cubic((np.moveaxis(image, 0, -1) * 255).round().astype(np.uint8), target)
            image = np.moveaxis(image, -1, 0).astype(np.float32) / np.float32(255)
        labels = np.zeros((len(RATERS), 2, *target), np.uint8)
        for r, path in enumerate(masks):
            if path is None:
                continue
            values = _grey(read_mask(Source(path), native, image_source), path)
            if cubic:
                values = _cubic(values, target)
            planes = np.stack([values > 0, values == 255]).astype(np.uint8)
            labels[r] = planes if cubic else shrunk(planes, size)
        if self.options["intensity"] == "imagenet":
            image = (image - _MEAN) / _DEVIATION
        return Decoded(image, labels, np.array([path is not None for path in masks]))

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        return self.official_halves(10)


def _cases(table: Path, source: str) -> list[RawCase]:
    rows = _rows(table)
    images: dict[str, set[str]] = {}
    finals: dict[str, str] = {}
    for row in rows:
        rater = row["rater"].strip().removesuffix(".0")
        if rater not in ("0", *RATERS):
            raise UserError(f"{table} holds the rater {row['rater']!r}; expected are 0 (final label) and 1 to 6")
        if rater == "0":
            if row["imgName"] in finals:
                raise UserError(f"{table} holds two rows of rater 0 for {row['imgName']!r}; keep one")
            finals[row["imgName"]] = row["maskName"]
        images.setdefault(row["imgName"], set()).add(rater)
    cases = []
    for name, raters in images.items():
        if name not in finals:
            raise UserError(f"{table} holds no row of rater 0 (final label) for {name!r}; restore the table")
        if FINAL not in finals[name]:
            raise UserError(f"{table} names the final label {finals[name]!r}, which does not contain {FINAL}")
        image = _below(table, name)
        masks = [_below(table, finals[name].replace(FINAL, f"Rater{r}")) if r in raters else None for r in RATERS]
        if not any(masks):
            continue
        case = str(PurePosixPath(name.replace("\\", "/")).with_suffix(""))
        part = "test" if source == "Magrabia" else "train"
        files = (image, *(p for p in masks if p))
        # The tables do not say which images are of one patient.
        cases.append(RawCase(f"{source}/{case}", f"{source}/{case}", files, part=part, handle=(image, masks)))
    return cases


def _rows(table: Path) -> list[dict[str, str]]:
    rows = read_table(table, COLUMNS, encoding="gbk")
    for row in rows:
        if not all(row[c] for c in COLUMNS):
            shown = ascii(list(row.values())[:4])[:200]
            raise UserError(f"{table} holds a row without {', '.join(COLUMNS)}: {shown}; restore it")
    return rows


def _below(table: Path, name: str) -> Path:
    """The file that a table names by a relative path with backslashes; it must lie beside the table."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in name:
        raise UserError(f"{table} names {ascii(name)[:200]}, which does not lie beside it; correct the table")
    places = [table.parent / pure]
    if pure.parts[:1] == (table.parent.name,):
        places.append(table.parent.parent / pure)  # written as seen from above DiscRegion
    for path in places:
        try:
            if path.is_file():
                return path
        except OSError:  # a name that no file can have
            break
    raise UserError(f"{table} names {ascii(name)[:200]}, but that file does not exist beside it; restore it")


def _grey(values: np.ndarray, path: Path) -> np.ndarray:
    found = distinct(values)
    between = found[(found > 0) & (found < 255)]
    if values.dtype != np.uint8 or len(between) > 1 or (len(between) and not 64 <= between[0] <= 192):
        shown = ", ".join(f"{v:g}" for v in found[:8]) + (", …" if len(found) > 8 else "")
        raise UserError(f"{path} holds the values {shown}; a mask holds 0, one grey near 128 for the rim, and 255")
    return values


def _cubic(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BICUBIC))
