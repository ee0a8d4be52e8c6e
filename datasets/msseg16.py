"""`msseg16`: multiple sclerosis lesions in MRI, seven experts (MICCAI 2016 challenge)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ..core.errors import UserError
from .file_dataset import Decoded, RawCase
from .orders import Order
from .patterns import files_below
from .volume_dataset import SIZE_HELP, Size, TrainSlices, VolumeDataset, need

Sequence = Literal["FLAIR", "T1", "GADO", "T2", "DP"]
RATERS = tuple("1234567")
FLAT = {"FLAIR": "3DFLAIR", "T1": "3DT1", "GADO": "3DT1GADO", "T2": "T2", "DP": "DP"}
_MASK = re.compile(r"(?:(?P<folder>.*)/)?ManualSegmentation_(?P<rater>\d+)\.nii(?:\.gz)?")


class Msseg16(VolumeDataset):
    """Lesions in slices of 3D MRI, by seven experts (1 to 7); the consensus is not used.

    Two deliveries are read, also mixed: by centre and patient (``Training/Center_01/Patient_01/Masks``, with raw and
    preprocessed images), and flat (one folder a patient with ``3DFLAIR.nii``, ``ManualSegmentation_1.nii``, ...).
    Slices are axial in the patient's own axes, whatever the order of acquisition.
    """

    rater_names = RATERS
    declared = "consistent"
    class_names = ("lesion",)
    title = "MSSEG 2016: multiple sclerosis lesions, MRI, seven experts"
    citation = (
        "Commowick et al., Objective Evaluation of Multiple Sclerosis Lesion Segmentation using a Data Management and "
        "Processing Infrastructure, Scientific Reports 8:13650, 2018, doi 10.1038/s41598-018-31911-7"
    )
    licence = "on request (OFSEP, Shanoir): research use, no redistribution"
    how_to_get = (
        "ask for access at shanoir.irisa.fr (MSSEG 2016), unpack Training and Testing (or the flat folders of the "
        "patients) into FOLDER, then: multirater prepare msseg16 --root FOLDER. Loader not yet tried on the original "
        "files"
    )
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "compat": "official 15 training against 38 test patients, whose fourth centre is not in training; one in "
            "five training patients serves for selection"
        }
    )

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds Training and Testing, or the patients"] = None,
        sequences: Annotated[tuple[Sequence, ...], "channels, in this order"] = ("FLAIR", "T1", "T2"),
        images: Annotated[
            Literal["preprocessed", "raw"], "which images of the delivery by centre; raw ones share a grid only in part"
        ] = "preprocessed",
        size: Annotated[Size, SIZE_HELP] = 256,
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per patient"] = None,
        split: Annotated[str, "cv4, fixed, or compat: the challenge's"] = "cv4",
        train_slices: Annotated[TrainSlices, "slices to train on; tests use whole volumes"] = "foreground",
    ) -> None:
        super().__init__(
            root=root, sequences=sequences, images=images, size=size, identity=identity, split=split,
            train_slices=train_slices,
        )  # fmt: skip
        if not sequences or len(set(sequences)) < len(sequences):
            raise UserError(f"dataset.sequences = {list(sequences)} is not allowed: name each sequence once")

    def list_cases(self, root: Path) -> list[RawCase]:
        patients: dict[str, dict[str, Path]] = {}
        for relative in files_below(root):
            match = _MASK.fullmatch(relative)
            if match:
                masks = patients.setdefault(match["folder"] or "", {})
                if match["rater"] in masks:
                    raise UserError(f"{root / relative} lies beside {masks[match['rater']].name}; keep one of them")
                masks[match["rater"]] = root / relative
        need(patients, "ManualSegmentation_<1-7>.nii.gz", root)
        return [self._case(root, folder, masks) for folder, masks in patients.items()]

    def _case(self, root: Path, folder: str, masks: dict[str, Path]) -> RawCase:
        beyond = sorted(set(masks) - set(RATERS))
        if beyond:
            raise UserError(f"{masks[beyond[0]]} is not expected: the experts are 1 to 7; check the name of the file")
        levels = folder.split("/") if folder else []
        by_centre = bool(levels) and levels[-1] == "Masks"
        name = "/".join(levels[:-1] if by_centre else levels) or root.resolve().name
        patient = root.joinpath(*levels[:-1]) if by_centre else root.joinpath(*levels)
        images = [self._image(patient, sequence, by_centre) for sequence in self.options["sequences"]]
        stack, odd = self.place(images, [masks.get(r) for r in RATERS])
        files = (*images, *(masks[r] for r in RATERS if r in masks))
        meta: dict[str, Any] = {"header_differs": odd} if odd else {}
        return RawCase(name, name, files, slices=stack.depth, part=_part(root, levels), handle=stack, meta=meta)

    def _image(self, patient: Path, sequence: str, by_centre: bool) -> Path:
        stem = patient / FLAT[sequence]
        if by_centre and self.options["images"] == "raw":
            stem = patient / "Raw_Data" / sequence
        elif by_centre:
            stem = patient / "Preprocessed_Data" / f"{sequence}_preprocessed"
        for suffix in (".nii.gz", ".nii"):
            path = stem.with_name(stem.name + suffix)
            if path.exists():
                return path
        raise UserError(
            f"{stem}.nii.gz does not exist; restore it, or leave the sequence out with --set dataset.sequences=[...]"
        )

    def decode(self, raw: RawCase) -> Decoded:
        return self.read_stack(raw.handle, {0: 0, 1: 1}, None)

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        test = self.official(("test",))["test"]  # flat deliveries name only these
        others = np.setdiff1d(np.arange(len(self)), test).tolist()
        if not others:
            raise UserError(f"split {name!r} of {self.name} needs training patients, but all found are test patients")
        train, val = self.carve(others, 5)
        return {"train": train, "val": val, "test": test}


def _part(root: Path, levels: list[str]) -> str:
    """Part by the lowest folder above the patient that names one: ``Training``, ``Testing``, "MSSEG-1 test"."""
    own = root.resolve().name
    for level in [*reversed(levels[:-1]), own if own in ("Training", "Testing") else ""]:
        words = set(re.split(r"[^a-z]+", level.lower()))
        if words & {"test", "testing"}:
            return "test"
        if words & {"train", "training"}:
            return "train"
    return ""
