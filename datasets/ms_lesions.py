"""`msseg2` (new lesions, four experts) and `isbi2015` (two raters, several visits): further MS lesion sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from ..core.errors import UserError
from .file_dataset import Decoded, RawCase
from .orders import Order
from .patterns import files_below
from .volume_dataset import SIZE_HELP, Size, TrainSlices, VolumeDataset, need

_EXPERT = re.compile(r"(?:(?P<folder>.*)/)?ground_truth_expert(?P<rater>\d+)\.nii\.gz")
_VISIT = re.compile(
    r"(?:(?P<above>.*)/)?(?P<patient>training\d+)/masks/(?P=patient)_(?P<visit>\d+)_mask(?P<rater>\d+)\.nii(?P<gz>\.gz)?"
)
Channel = Literal["flair", "mprage", "t2", "pd"]


class _Lesions(VolumeDataset):
    declared = "consistent"
    class_names = ("lesion",)

    def decode(self, raw: RawCase) -> Decoded:
        return self.read_stack(raw.handle, {0: 0, 1: 1}, None)

    def lesion_case(
        self, name: str, patient: str, images: list[Path], masks: dict[str, Path], part: str = ""
    ) -> RawCase:
        beyond = sorted(set(masks) - set(self.rater_names))
        if beyond:
            allowed = ", ".join(self.rater_names)
            raise UserError(f"{masks[beyond[0]]} is not expected: the raters are {allowed}; check the name of the file")
        for path in images:
            if not path.exists():
                raise UserError(f"{path} does not exist, but {next(iter(masks.values()))} does; restore the image")
        stack, odd = self.place(images, [masks.get(r) for r in self.rater_names])
        meta: dict[str, Any] = {"header_differs": odd} if odd else {}
        return RawCase(name, patient, (*images, *masks.values()), stack.depth, part, stack, meta)


class Msseg2(_Lesions):
    """Lesions that are new in the second of two FLAIR scans, by four experts; the fused mask is not used.

    Channels are the two scans. Many patients have no new lesion by some or all experts: an empty mask is an answer.
    """

    rater_names = ("1", "2", "3", "4")
    class_names = ("new lesion",)
    title = "MSSEG-2: new multiple sclerosis lesions between two MRI scans, four experts"
    citation = "Commowick, Cervenansky, Cotton, Dojat, MSSEG-2 challenge proceedings, MICCAI 2021"
    licence = "on request (Shanoir): research use, no redistribution"
    how_to_get = (
        "ask for access at shanoir.irisa.fr (MSSEG-2), unpack the training patients into FOLDER, so that it holds "
        "<id>/flair_time01_on_middle_space.nii.gz and <id>/ground_truth_expert1.nii.gz, then: multirater prepare "
        "msseg2 --root FOLDER. Loader not yet tried on the original files"
    )

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds the patients"] = None,
        size: Annotated[Size, SIZE_HELP] = 256,
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per patient"] = None,
        split: Annotated[str, "cv4 or fixed"] = "cv4",
        train_slices: Annotated[TrainSlices, "slices to train on; tests use whole volumes"] = "foreground",
    ) -> None:
        super().__init__(root=root, size=size, identity=identity, split=split, train_slices=train_slices)

    def list_cases(self, root: Path) -> list[RawCase]:
        patients: dict[str, dict[str, Path]] = {}
        for relative in files_below(root):
            if found := _EXPERT.fullmatch(relative):
                patients.setdefault(found["folder"] or "", {})[found["rater"]] = root / relative
        need(patients, "<patient>/ground_truth_expert<1-4>.nii.gz", root)
        cases = []
        for folder, masks in patients.items():
            images = [root / folder / f"flair_time0{t}_on_middle_space.nii.gz" for t in (1, 2)]
            name = folder.split("/")[-1] or root.resolve().name
            cases.append(self.lesion_case(name, name, images, masks))
        return cases


class Isbi2015(_Lesions):
    """Lesions of five patients at four to six visits, by two raters; the visits of a patient stay together."""

    rater_names = ("1", "2")
    title = "ISBI 2015 longitudinal multiple sclerosis lesions: MRI, two raters"
    citation = (
        "Carass et al., Longitudinal multiple sclerosis lesion segmentation: Resource and challenge, NeuroImage "
        "148:77-102, 2017, doi 10.1016/j.neuroimage.2016.12.064"
    )
    licence = "challenge terms: research use after registration, no redistribution"
    how_to_get = (
        "register for the ISBI 2015 longitudinal MS lesion challenge (iacl.jhu.edu), unpack the training data into "
        "FOLDER, so that it holds training01/masks/training01_01_mask1.nii and "
        "training01/preprocessed/training01_01_flair_pp.nii, then: multirater prepare isbi2015 --root FOLDER. Loader "
        "not yet tried on the original files"
    )

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds training01 to training05"] = None,
        sequences: Annotated[tuple[Channel, ...], "channels, in this order"] = ("flair", "mprage", "t2"),
        size: Annotated[Size, SIZE_HELP] = 192,
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per visit"] = None,
        split: Annotated[str, "cv4 or fixed"] = "cv4",
        train_slices: Annotated[TrainSlices, "slices to train on; tests use whole volumes"] = "foreground",
    ) -> None:
        super().__init__(
            root=root, sequences=sequences, size=size, identity=identity, split=split, train_slices=train_slices
        )
        if not sequences or len(set(sequences)) < len(sequences):
            raise UserError(f"dataset.sequences = {list(sequences)} is not allowed: name each sequence once")

    def list_cases(self, root: Path) -> list[RawCase]:
        visits: dict[tuple[Path, str, str, str], dict[str, Path]] = {}
        for relative in files_below(root):
            if found := _VISIT.fullmatch(relative):
                folder = root / (found["above"] or "") / found["patient"]
                key = (folder, found["patient"], found["visit"], ".nii" + (found["gz"] or ""))
                visits.setdefault(key, {})[found["rater"]] = root / relative
        need(visits, "training<NN>/masks/training<NN>_<visit>_mask<1-2>.nii", root)
        cases = []
        for (folder, patient, visit, suffix), masks in visits.items():
            images = [folder / "preprocessed" / f"{patient}_{visit}_{s}_pp{suffix}" for s in self.options["sequences"]]
            cases.append(self.lesion_case(f"{patient}_{visit}", patient, images, masks))
        return cases
