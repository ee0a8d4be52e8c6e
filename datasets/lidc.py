"""`lidc`: LIDC-IDRI in the preparations that the field has passed around, each as it lies on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np

from ..core.errors import UserError
from .base import Dataset, Identity, Progress
from .contours import DATA_SHA256
from .file_dataset import Decoded, FileDataset, RawCase, Side
from .lidc_arrays import PhisegFile, decode_npy, list_npy
from .lidc_cases import reader_order
from .lidc_contours import IdentityName, SetName
from .lidc_dicom import DicomCases
from .lidc_personas import PERSONAS
from .lidc_pickles import decode_pickle, list_matting, list_pickles
from .lidc_pictures import decode_jpg, decode_png, list_jpg, list_png
from .orders import Order
from .store import ArrayStore

Preparation = Literal["mm", "pickle", "hdf5", "npy", "png", "jpg", "dicom"]
SEEDS = {"compat-dpersona": 1337, "compat-dpersona-val": 1337, "compat-medicalmatting": 2}
_FILES = ("mm", "pickle", "hdf5")  # preparations that are one file, which may be given itself
_STORED = ("hdf5", "npy", "png", "jpg")  # those whose files say what is training and test
_READERS_ONLY = ("group", "group_sparse", "persona")
_NAMELESS = "patients are not recorded, so slices of one nodule may stand in several parts and scores may be too high"


class Lidc(FileDataset):
    """2D crops of lung nodules, each with the masks of four anonymous readers; empty masks are answers.

    ``preparation`` says which of the files in circulation lies under ``root``. They hold different slices and crops, so
    that their scores never compare; every one has a fingerprint of its own.

    * ``mm``: MedicalMatting's ``lidc_attributes.pkl`` (D-Persona, DiffOSeg): 1,609 slices of 214 patients;
    * ``pickle``: the Probabilistic U-Net's ``data_lidc.pickle``: 15,096 slices;
    * ``hdf5``: PHiSeg's ``data_lidc.hdf5``, made of the pickle; patients are known by a number only;
    * ``npy``: MoSE's folders ``lidc_npy``, made of that; patients are not known;
    * ``png``: crops of the Hierarchical Probabilistic U-Net, 180×180 at 0.5 mm, with patients;
    * ``jpg``: CIMD's folders ``training/<n>``; patients are not known;
    * ``dicom``: the CT of TCIA under the outlines that come with the package: the nodules, sets, masks, identities and
      splits of ``lidc-contours``, with the real crop of 128×128 pixels as image.

    The slots carry no identity: four readers of a scan are not the four of the next one, so the default is
    ``identity=none``; ``by_area`` is the order of D-Persona, in which the k-th slot is the k-th smallest mask.
    """

    rater_names = ("1", "2", "3", "4")
    declared: Identity = "none"
    class_names = ("nodule",)
    title = "LIDC-IDRI: lung nodules in CT, four anonymous readers"
    citation = (
        "Armato et al., The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI), "
        "Medical Physics 38(2):915-931, 2011; Armato et al., Data From LIDC-IDRI, The Cancer Imaging Archive, 2015, "
        "doi 10.7937/K9/TCIA.2015.LO9QL9SX; and the authors of the preparation"
    )
    licence = "CC BY 3.0 (LIDC-IDRI)"
    how_to_get = (
        "mm: dataset/lidc_attributes.zip of the MedicalMatting repository, unpacked; pickle: data_lidc.pickle from the "
        "links of the Probabilistic U-Net ports; hdf5: data_lidc.hdf5 as PHiSeg makes it of that pickle; npy: lidc_npy "
        "as MoSE makes it of that; png: lidc_crops of the Hierarchical Probabilistic U-Net; jpg: data of the CIMD "
        "repository; dicom: the collection LIDC-IDRI of TCIA, doi 10.7937/K9/TCIA.2015.LO9QL9SX (125 GB; part of it "
        "will do), as its retriever leaves it, and pip install 'multirater[dicom]'. Put it into FOLDER, then: "
        "multirater prepare lidc --root FOLDER --set preparation=mm. Pickles are read without executing anything in "
        "them. jpg was tried on 19 original cases, the other preparations not yet on original files"
    )
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "compat": "the parts that the files are stored in; where they have no validation part, about one in ten "
            "training cases serves for selection",
            "compat-dpersona": "D-Persona's four folds (seed 1337), which select the model on the test fold",
            "compat-dpersona-val": "D-Persona's four folds (seed 1337), with about one in eight training patients for "
            "selection",
            "compat-medicalmatting": "MedicalMatting's four folds (seed 2), which select the model on the test fold",
            "compat-slices": "a random tenth of the slices for testing and none for selection, as in the PyTorch port "
            "of the Probabilistic U-Net (which has no seed; here 0)",
        }
    )
    compat_folds: ClassVar[Mapping[str, int]] = MappingProxyType(dict.fromkeys(SEEDS, 4))

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds the files; of mm, pickle and hdf5 also the file"] = None,
        preparation: Annotated[Preparation, "which of the files in circulation"] = "mm",
        crop: Annotated[Side | None, "side of the centre of the stored crop that is kept; null: all"] = None,
        size: Annotated[
            Side | tuple[Side, Side] | None, "side or [height, width] after the crop; null: as it is"
        ] = None,
        intensity: Annotated[
            Literal["unit", "zscore"], "0 to 1, or mean 0 and deviation 1 of each slice (MoSE)"
        ] = "unit",
        set: Annotated[SetName | None, "of dicom: which slices; null: mid, with identity=group group4"] = None,
        identity: Annotated[
            IdentityName | None, "null: none (slots shuffled); by_area: as in D-Persona; group and persona: of dicom"
        ] = None,
        split: Annotated[
            str | None, "cv4, fixed, or a published one: compat and its kinds; null: cv4, of dicom fixed"
        ] = None,
    ) -> None:
        dicom = preparation == "dicom"
        if not dicom and (set is not None or identity not in (None, *get_args(Order))):
            raise UserError(
                f"dataset.set and identity={'|'.join(_READERS_ONLY)} are of preparation dicom (and of lidc-contours): "
                f"{preparation} does not say which nodule or reader a mask is of"
            )
        if dicom and not (crop in (None, 64, 128) and size is None):
            raise UserError("preparation=dicom has crops of 128 or 64 pixels; set dataset.crop, not dataset.size")
        split = split or ("fixed" if dicom else "cv4")
        if split == "compat":
            split = {"mm": "compat-dpersona", "pickle": "compat-slices"}.get(preparation, split)
        super().__init__(
            root=root, preparation=preparation, crop=crop, size=size, intensity=intensity,
            set=(set or ("group4" if identity == "group" else "mid")) if dicom else None,
            identity=identity, split=split,
        )  # fmt: skip
        needs = {**dict.fromkeys(SEEDS, ("mm",)), "compat-slices": ("pickle",), "compat": _STORED}.get(split)
        if needs and preparation not in needs:
            raise UserError(
                f"split {split!r} is of preparation {' or '.join(needs)}, not of {preparation}; use compat for that of "
                f"{preparation}, or cv4"
            )
        if preparation == "jpg" or (preparation == "npy" and split != "compat"):
            self.notice = _NAMELESS
        if preparation == "hdf5" and split == "compat":
            self.notice = "the parts of data_lidc.hdf5 were drawn without a seed: other copies of the file have others"
        self._hdf5 = PhisegFile()

    @cached_property
    def root(self) -> Path:
        given = Path(self.options["root"] or "").expanduser()
        if self.options["preparation"] in _FILES and given.is_file():
            return given
        return super().root

    def list_cases(self, root: Path) -> list[RawCase]:
        if self.options["preparation"] == "dicom":
            return self._list_dicom(root)
        listers: dict[str, Callable[[Path], list[RawCase]]] = {
            "mm": list_matting, "pickle": list_pickles, "hdf5": self._hdf5.list_cases, "npy": list_npy,
            "png": list_png, "jpg": list_jpg,
        }  # fmt: skip
        return listers[self.options["preparation"]](root)

    def decode(self, raw: RawCase) -> Decoded:
        decoders: dict[str, Callable[[RawCase], Decoded]] = {
            "mm": decode_pickle, "pickle": decode_pickle, "hdf5": self._hdf5.decode, "npy": decode_npy,
            "png": decode_png, "jpg": decode_jpg, "dicom": lambda case: self._dicom.decode(case),
        }  # fmt: skip
        found = decoders[self.options["preparation"]](raw)
        if self.options["crop"] is not None:
            found.image, found.masks = (_centre(a, self.options["crop"], raw) for a in (found.image, found.masks))
        if self.options["intensity"] == "zscore":
            found.image = _standardised(found.image)
        return found

    def _list_dicom(self, root: Path) -> list[RawCase]:
        self._dicom = DicomCases(root, self.options["set"], self.options["identity"])
        if self.options["identity"] == "persona":
            self.rater_names, self.declared = PERSONAS, "synthetic"
            self.notice = "masks: synthetic personas from LIDC readers"
        cases = self._dicom.list_cases()
        if self._dicom.lacking:
            some = f"the CT of {len(self._dicom.lacking)} scans of the set {self.options['set']} is not below the root"
            self.notice = "; ".join(filter(None, [self.notice, some]))
        return cases

    @property
    def build_options(self) -> dict[str, Any]:
        if self.options["preparation"] != "dicom":
            return {k: v for k, v in super().build_options.items() if k != "set"}
        return {**super().build_options, "masks": "persona" if self.options["identity"] == "persona" else "readers"}

    def source(self) -> dict[str, Any]:
        outlines = {"contours": DATA_SHA256} if self.options["preparation"] == "dicom" else {}
        return {**super().source(), **outlines}

    def rater_order(self, store: ArrayStore) -> tuple[np.ndarray, tuple[str, ...], Identity]:
        if self.options["preparation"] == "dicom":
            found = reader_order(self.options["identity"], [record["meta"] for record in store.records])
            return found or Dataset.rater_order(self, store)  # as_stored, persona
        return super().rater_order(store)

    def build(self, folder: Path, progress: Progress) -> None:
        try:
            super().build(folder, progress)
        finally:
            self._hdf5.close()

    # -- published splits -----------------------------------------------------------------------

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        if name == "compat":
            rows = self.official(("train", "test"))
            return rows if rows["val"] else self.official_halves(10)
        order = sorted(range(len(self)), key=lambda row: self.store.records[row]["meta"]["order"])
        if name == "compat-slices":
            shuffled = _legacy_shuffle(order, 0)
            tenth = len(order) // 10
            return {"train": shuffled[tenth:], "test": shuffled[:tenth]}
        groups = {row: self.store.records[row]["meta"]["group"] for row in order}
        shuffled_groups = _legacy_shuffle(list(dict.fromkeys(groups.values())), SEEDS[name])
        if len(shuffled_groups) < 4:
            raise UserError(
                f"split {name!r} has 4 folds, but only {len(shuffled_groups)} patients are there; use fixed"
            )
        held_out = set(np.array_split(np.arange(len(shuffled_groups)), 4)[fold].tolist())
        chosen = {group for k, group in enumerate(shuffled_groups) if k in held_out}
        test = [row for row in order if groups[row] in chosen]
        train = [row for row in order if groups[row] not in chosen]
        if name == "compat-dpersona-val":
            train, val = self.carve(train, 8)
            return {"train": train, "val": val, "test": test}
        return {"train": train, "val": test, "test": test}


def _legacy_shuffle(items: list[Any], seed: int) -> list[Any]:
    """What ``numpy.random.seed(seed); numpy.random.shuffle(items)`` does, without touching the global state."""
    shuffled = list(items)
    np.random.RandomState(seed).shuffle(shuffled)  # on this generator the published splits hang
    return shuffled


def _centre(values: np.ndarray, side: int, raw: RawCase) -> np.ndarray:
    height, width = values.shape[-2:]
    if side > min(height, width):
        raise UserError(
            f"dataset.crop = {side} is larger than {raw.files[0]}, which has {height}×{width} pixels; give less"
        )
    top, left = (height - side) // 2, (width - side) // 2
    return values[..., top : top + side, left : left + side]


def _standardised(image: np.ndarray) -> np.ndarray:
    deviation = float(image.std())
    return (image - image.mean()) / deviation if deviation > 0 else np.zeros_like(image)
