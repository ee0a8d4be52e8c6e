"""`imapp`: skin lesions in dermoscopy, sixteen and more annotators of whom each image has few (ISIC MultiAnnot++)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from ..core.errors import UserError
from .file_dataset import Decoded, FileDataset, RawCase, Side
from .orders import Order
from .patterns import natural
from .photographs import Source, binary, read_colour, read_mask, shrunk, sources_below
from .tables import read_table

TABLE = "seg_metadata.csv"
COLUMNS = ("ISIC_id", "seg_filename", "annotator")
CONSENSUS = ("ST", "MV")  # STAPLE and majority vote are no annotators
_PARTS = {"train": "train.csv", "val": "val.csv", "test": "test.csv"}
_PICTURES = (".jpg", ".jpeg", ".png")


class Imapp(FileDataset):
    """Masks of real, named annotators, most of whom share few images: sparse raters.

    ``images=several`` keeps the images that at least two kept annotators outlined (about 2,400), ``all`` also those
    with one. Nothing can be said of a rater from a few images: ``min_images=20`` leaves out annotators with fewer. An
    annotator without a mask did not see the image. Rows of a consensus are not used.
    """

    declared = "consistent"
    class_names = ("lesion",)
    title = "IMA++: ISIC MultiAnnot++, skin lesions in dermoscopy, sparse annotators"
    citation = "Abhishek, Kawahara, Hamarneh, ISIC MultiAnnot++ (IMA++), Zenodo record 14201692"
    licence = "CC BY-NC 4.0 (masks); the images of the ISIC archive have licences of their own"
    how_to_get = (
        "download seg_metadata.csv, img_metadata.csv, train.csv, val.csv, test.csv and segs.zip of Zenodo record "
        "14201692 into FOLDER (segs.zip may stay packed), and the images that img_metadata.csv names from the ISIC "
        "archive into FOLDER/images, then: multirater prepare imapp --root FOLDER. Loader not yet tried on the "
        "original files"
    )
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType({"compat": "train.csv, val.csv, test.csv"})

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds seg_metadata.csv, segs.zip (or segs) and images"] = None,
        images: Annotated[Literal["several", "all"], "images of at least two annotators, or all"] = "several",
        min_images: Annotated[int, Field(ge=1), "annotators with fewer images are left out"] = 1,
        size: Annotated[Side | tuple[Side, Side] | None, "side or [height, width]; null: as stored"] = 256,
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per case"] = None,
        split: Annotated[str, "cv4, fixed, or compat: the published lists"] = "cv4",
    ) -> None:
        super().__init__(root=root, images=images, min_images=min_images, size=size, identity=identity, split=split)

    def list_cases(self, root: Path) -> list[RawCase]:
        table = root / TABLE
        if not table.is_file():
            raise UserError(f"{root} holds no {TABLE}; see how_to_get of `multirater info imapp`")
        sources = dict(sources_below(root, ("segs.zip",)))
        files: dict[str, Source] = {}
        for name, source in sources.items():
            files.setdefault(PurePosixPath(name).name, source)
        masks = _masks(table, files)
        pictures = {
            PurePosixPath(name).stem: source
            for name, source in files.items()
            if name.lower().endswith(_PICTURES) and PurePosixPath(name).stem in masks
        }
        self.unused["masks_without_image"] = sorted(i for i in masks if i not in pictures)
        masks = {image: of_image for image, of_image in masks.items() if image in pictures}
        masks = self._kept(masks)
        if not masks:
            raise UserError(
                f"{root} holds no image of which {'two annotators' if self.options['images'] == 'several' else 'one'} "
                f"with at least {self.options['min_images']} images made masks; add images or set dataset.min_images"
            )
        self.rater_names = tuple(sorted({a for of_image in masks.values() for a in of_image}, key=natural))
        groups, parts = _groups(root / "img_metadata.csv"), _parts(root)
        cases = []
        for image, of_image in masks.items():
            chosen = [of_image.get(rater) for rater in self.rater_names]
            paths = tuple(sorted({s.path for s in (pictures[image], *chosen) if s}))
            patient = groups.get(image) or image
            handle = (pictures[image], chosen)
            cases.append(RawCase(image, patient, paths, part=parts.get(image, ""), handle=handle))
        return cases

    def _kept(self, masks: dict[str, dict[str, Source]]) -> dict[str, dict[str, Source]]:
        """Frequent annotators only, and the images that they outlined often enough."""
        wanted = 2 if self.options["images"] == "several" else 1
        masks = {image: of_image for image, of_image in masks.items() if len(of_image) >= wanted}
        counts = Counter(annotator for of_image in masks.values() for annotator in of_image)
        often = {a for a, n in counts.items() if n >= self.options["min_images"]}
        masks = {image: {a: s for a, s in of_image.items() if a in often} for image, of_image in masks.items()}
        return {image: of_image for image, of_image in masks.items() if len(of_image) >= wanted}

    def decode(self, raw: RawCase) -> Decoded:
        source, chosen = raw.handle
        size = self.options["size"]
        image, native = read_colour(source, size)
        labels = np.zeros((len(chosen), *image.shape[1:]), np.uint8)
        for r, mask in enumerate(chosen):
            if mask is not None:
                labels[r] = shrunk(binary(read_mask(mask, native, source), mask), size)
        return Decoded(image, labels, np.array([mask is not None for mask in chosen]))

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        return self.official()


def _masks(table: Path, files: Mapping[str, Source]) -> dict[str, dict[str, Source]]:
    """Mask of each annotator of each image, by the table."""
    found: dict[str, dict[str, Source]] = {}
    for row in read_table(table, COLUMNS):
        annotator = row["annotator"].strip()
        if annotator in CONSENSUS:
            continue
        image, name = _stem(row["ISIC_id"]), row["seg_filename"].strip()
        if not image or not annotator or name not in files:
            raise UserError(
                f"{table} names the mask {name!r} of image {row['ISIC_id']!r} by {annotator!r}, but "
                f"{'that file is not there; unpack segs.zip or put it beside the table' if image else 'no image'}"
            )
        of_image = found.setdefault(image, {})
        if annotator in of_image:
            raise UserError(f"{table} names two masks of image {image!r} by {annotator!r}; keep one of them")
        of_image[annotator] = files[name]
    return found


def _groups(table: Path) -> dict[str, str]:
    """Patient of each image, else its lesion, as far as the table knows them."""
    if not table.is_file():
        return {}
    groups = {}
    for row in read_table(table, ("ISIC_id",)):
        for column in ("patient_id", "lesion_id"):
            if (row.get(column) or "").strip():
                groups[_stem(row["ISIC_id"])] = f"{column[:-3]} {row[column].strip()}"
                break
    return groups


def _parts(root: Path) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part, name in _PARTS.items():
        if (root / name).is_file():
            for row in read_table(root / name):
                image = _stem(row.get("ISIC_id") or row.get("image") or "")
                if parts.setdefault(image, part) != part:
                    raise UserError(f"{root / name} names image {image!r}, which {_PARTS[parts[image]]} names too")
    return parts


def _stem(name: str) -> str:
    return PurePosixPath(name.strip()).stem
