"""`refuge-mr` and `chaksu`: optic disc and cup in fundus photographs, a mask file for each rater and structure."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import numpy as np

from ..core.errors import UserError
from .file_dataset import Decoded, FileDataset, RawCase, Side
from .orders import Order
from .photographs import Source, binary, read_colour, read_mask, shrunk, sources_below
from .splits import PARTS
from .volume_dataset import need

STRUCTURES = ("disc", "cup")
SIZE_HELP = "side or [height, width]; null: as stored"


@dataclass
class _Found:
    image: Source | None = None
    masks: dict[tuple[str, str], Source] = field(default_factory=dict)  # (rater, structure)


class DiscCup(FileDataset):
    """What the two sets share: photographs, and binary masks of disc and cup, which may overlap in any way.

    A rater with only one of the two structures counts as missing, because the other is not known to be empty; the case
    list names those (``incomplete``).
    """

    declared = "consistent"
    class_names = STRUCTURES
    overlapping = True
    archives: ClassVar[tuple[str, ...]] = ()
    expected = ""

    @abstractmethod
    def sort(self, relative: str) -> tuple[str, str, tuple[str, str] | None] | None:
        """Part (or another level that keeps cases apart), case and, of a mask, (rater, structure); None: not used."""

    def patient_of(self, part: str, case: str) -> str:
        return _named(part, case)

    def list_cases(self, root: Path) -> list[RawCase]:
        found: dict[tuple[str, str], _Found] = {}
        names: dict[tuple[str, str], str] = {}
        for relative, source in sources_below(root, self.archives):
            place = self.sort(relative)
            if place is None:
                continue
            part, case, mask = place
            key = (part, case.casefold())
            of_case = found.setdefault(key, _Found())
            other = of_case.image if mask is None else of_case.masks.get(mask)
            if other is not None:
                raise UserError(f"{other.shown} and {source.shown} are the same picture twice; keep one of them")
            if mask is None:
                of_case.image = source
                names[key] = case
            else:
                of_case.masks[mask] = source
        need([f for f in found.values() if f.masks], self.expected, root)
        self.unused["left_out"] = [_named(*key) for key, f in found.items() if not f.masks]
        cases = [self._case(key, names, of_case) for key, of_case in found.items() if of_case.masks]
        self.unused["left_out"] += [case.case_id for case in cases if not any(case.handle[1])]
        return [case for case in cases if any(case.handle[1])]

    def _case(self, key: tuple[str, str], names: Mapping[tuple[str, str], str], found: _Found) -> RawCase:
        if found.image is None:
            raise UserError(
                f"{next(iter(found.masks.values())).shown} has no photograph; restore it or remove the mask"
            )
        part, name = key[0], names[key]
        chosen, incomplete = [], []
        for rater in self.rater_names:
            planes = [found.masks.get((rater, structure)) for structure in STRUCTURES]
            chosen.append(planes if all(planes) else None)
            incomplete += [rater] * (any(planes) and not all(planes))
        sources = [found.image, *(plane for planes in chosen if planes for plane in planes if plane)]
        files = tuple(sorted({source.path for source in sources}))
        meta: dict[str, Any] = {"incomplete": incomplete} if incomplete else {}
        known = part if part in PARTS else ""
        handle = (found.image, chosen)
        return RawCase(_named(part, name), self.patient_of(part, name), files, part=known, handle=handle, meta=meta)

    def decode(self, raw: RawCase) -> Decoded:
        source, chosen = raw.handle
        size = self.options["size"]
        image, native = read_colour(source, size)
        labels = np.zeros((len(chosen), len(STRUCTURES), *image.shape[1:]), np.uint8)
        for r, planes in enumerate(chosen):
            for k, plane in enumerate(planes or ()):
                labels[r, k] = shrunk(binary(read_mask(plane, native, source), plane), size)
        return Decoded(image, labels, np.array([planes is not None for planes in chosen]))


def _named(part: str, case: str) -> str:
    return f"{part}/{case}" if part else case


_REFUGE = re.compile(
    r"(?:(?:.*/)?(?P<level>[^/]+)/)?(?P<case>[^/]+)/(?P=case)(?:\.jpg|_seg_(?P<structure>disc|cup)_(?P<rater>[1-7])\.png)",
    re.IGNORECASE,
)
_LEVELS = (("train", "train"), ("val", "val"), ("test", "test"))


class RefugeMr(DiscCup):
    """REFUGE's 1,200 photographs with the masks of seven glaucoma specialists, who are said to be the same throughout.

    Pictures ``<id>_cropped.jpg``, which are turned, and the fused ``.bmp`` masks are not used.
    """

    rater_names = ("1", "2", "3", "4", "5", "6", "7")
    expected = "Training-400/<id>/<id>_seg_disc_1.png with <id>.jpg beside it"
    title = "REFUGE with seven raters: optic disc and cup"
    citation = (
        "Orlando et al., REFUGE Challenge: A unified framework for evaluating automated methods for glaucoma "
        "assessment from fundus photographs, Medical Image Analysis 59, 2020; Fang et al., REFUGE2 Challenge, "
        "arXiv:2202.08994"
    )
    licence = "non-commercial research"
    how_to_get = (
        "unpack the community package REFUGE-MultiRater into FOLDER, so that it holds "
        "Training-400/<id>/<id>.jpg with <id>_seg_disc_1.png to _7.png and <id>_seg_cup_1.png to _7.png "
        "(Validation-400 and Test-400 likewise), then: multirater prepare refuge-mr --root FOLDER. That a number is "
        "the same person everywhere is claimed, not documented. Loader not yet tried on the original files"
    )
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"compat": "the challenge's parts; without its validation part, about one in ten training images for selection"}
    )

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds Training-400, Validation-400, Test-400"] = None,
        size: Annotated[Side | tuple[Side, Side] | None, SIZE_HELP] = 256,
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per case"] = None,
        split: Annotated[str, "cv4, fixed, or compat: the challenge's 400/400/400"] = "cv4",
    ) -> None:
        super().__init__(root=root, size=size, identity=identity, split=split)

    def sort(self, relative: str) -> tuple[str, str, tuple[str, str] | None] | None:
        found = _REFUGE.fullmatch(relative)
        if not found:
            return None
        level = found["level"] or self.root.resolve().name
        part = next((part for start, part in _LEVELS if level.casefold().startswith(start)), "")
        mask = (found["rater"], found["structure"].lower()) if found["rater"] else None
        return part or found["level"] or "", found["case"], mask

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        rows = self.official(("train", "test"))
        return rows if rows["val"] else self.official_halves(10)


_CHAKSU_IMAGE = re.compile(
    r"(?:.*/)?(?P<part>train|test)/1\.0_Original_Fundus_Images/(?P<camera>[^/]+)/(?P<case>[^/]+)\.(?:jpe?g|png)",
    re.IGNORECASE,
)
_CHAKSU_MASK = re.compile(
    r"(?:.*/)?(?P<part>train|test)/3\.0_Doctors_Annotations_Binary_OD_OC/Expert[ _]*(?P<rater>[1-5])/(?P<camera>[^/]+)/"
    r"(?P<structure>disc|cup)/(?P<case>[^/]+)\.tiff?",
    re.IGNORECASE,
)
_PATIENT = re.compile(r"p(\d+)[_-]", re.IGNORECASE)


class Chaksu(DiscCup):
    """1,345 photographs of three cameras with the masks of five ophthalmologists.

    The masks are read where they lie in ``Train.zip`` and ``Test.zip`` (70 GB unpacked) or from unpacked folders. Some
    photographs of the Bosch camera name their patient (``P11_image_1``), who is never parted; of the others nothing is
    known. The cup is not always inside the disc.
    """

    rater_names = ("1", "2", "3", "4", "5")
    archives = ("Train.zip", "Test.zip")
    expected = "Train.zip, or Train/3.0_Doctors_Annotations_Binary_OD_OC/Expert 1/<camera>/Disc/<name>.tif"
    title = "Chákṣu: optic disc and cup in fundus photographs of three cameras, five ophthalmologists"
    citation = "Kumar et al., Chákṣu: A glaucoma specific fundus image database, Scientific Data 10:70, 2023"
    licence = "CC BY 4.0"
    how_to_get = (
        "download Train.zip and Test.zip of figshare record 20123135 (11 GB) into FOLDER and leave them packed, then: "
        "multirater prepare chaksu --root FOLDER. Loader not yet tried on the original files"
    )
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"compat": "official, 1,009 against 336; about one in ten training images serves for selection"}
    )

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds Train.zip and Test.zip, or Train and Test"] = None,
        size: Annotated[Side | tuple[Side, Side] | None, SIZE_HELP] = 256,
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per case"] = None,
        split: Annotated[str, "cv4, fixed, or compat: the official halves"] = "cv4",
    ) -> None:
        super().__init__(root=root, size=size, identity=identity, split=split)

    def sort(self, relative: str) -> tuple[str, str, tuple[str, str] | None] | None:
        found = _CHAKSU_IMAGE.fullmatch(relative) or _CHAKSU_MASK.fullmatch(relative)
        if not found:
            return None
        camera = found["camera"].strip().casefold()
        camera = "remidio" if camera.startswith("rem") else camera  # Remidio and Remedio
        groups = found.groupdict()
        mask = (groups["rater"], groups["structure"].lower()) if "rater" in groups else None
        return found["part"].lower(), f"{camera}/{found['case'].strip()}", mask

    def patient_of(self, part: str, case: str) -> str:
        camera, _, name = case.partition("/")
        found = _PATIENT.match(name)
        return f"{camera}/P{int(found[1])}" if found else f"{part}/{case}"

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        return self.official_halves(10)
