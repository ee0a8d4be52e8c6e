"""`curvas24` and `curvas-pdacvi`: abdominal CT read by several radiologists (CURVAS challenges 2024 and 2025)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..core.errors import UserError
from .file_dataset import Decoded, RawCase
from .orders import Order
from .patterns import files_below
from .volume_dataset import SIZE_HELP, SOFT_TISSUE, Size, TrainSlices, VolumeDataset, need

_FILE = re.compile(r"(?:(?P<above>.*)/)?(?P<case>[^/]+)/(?P<name>image|annotation_(?P<rater>\d+))\.nii\.gz")
_PARTS = {"training_set": "train", "validation_set": "val", "testing_set": "test"}
# Reader 3 left out the pancreas and part of the liver.
FAULTY = {"UKCHLL082": "reader 3"}

Window = Annotated[tuple[float, float], "HU that become 0 and 1; beyond them clipped"]
Step = Annotated[int, Field(ge=1, le=50), "keep every n-th slice; 1: all"]


class Curvas(VolumeDataset):
    """What the two challenges share: ``<case>/image.nii.gz`` and ``<case>/annotation_<reader>.nii.gz``.

    The masks of a case whose header disagrees with its image are matched voxel by voxel, and named in the case list
    (``header_differs``).
    """

    declared = "consistent"
    codes: ClassVar[Mapping[int, int]]
    expected = ""

    def list_cases(self, root: Path) -> list[RawCase]:
        found: dict[tuple[str, str], dict[str, Path]] = {}
        for relative in files_below(root):
            match = _FILE.fullmatch(relative)
            if match:
                files = found.setdefault((match["above"] or "", match["case"]), {})
                files[match["rater"] or "image"] = root / relative
        cases = [self._case(root, above, case, files) for (above, case), files in found.items() if self.wanted(case)]
        return need([case for case in cases if case], f"{self.expected} with image.nii.gz and annotations", root)

    def wanted(self, case: str) -> bool:
        return True

    def _case(self, root: Path, above: str, case: str, files: dict[str, Path]) -> RawCase:
        image = files.pop("image", None)
        example = next(iter(files.values()), None)
        if image is None or example is None:
            there, lacking = (image, "annotation") if image else (example, "image.nii.gz")
            raise UserError(f"{there} lies in a folder without {lacking}; restore it or remove the folder")
        beyond = sorted(set(files) - set(self.rater_names))
        if beyond:
            raise UserError(
                f"{files[beyond[0]]} is not expected: the readers are {', '.join(self.rater_names)}; check the name"
            )
        masks = [files.get(r) for r in self.rater_names]
        stack, odd = self.place([image], masks)
        step = self.options["slice_step"]
        level = (above or root.resolve().name).split("/")[-1]
        meta: dict[str, Any] = {"header_differs": odd} if odd else {}
        used = (image, *(path for path in masks if path))
        depth = len(range(0, stack.depth, step))
        return RawCase(case, case, used, slices=depth, part=_PARTS.get(level, ""), handle=stack, meta=meta)

    def decode(self, raw: RawCase) -> Decoded:
        return self.read_stack(raw.handle, self.codes, self.window, self.options["slice_step"])

    def check_window(self, window: tuple[float, float]) -> None:
        if not window[0] < window[1]:
            raise UserError(f"dataset.window = {list(window)} is not allowed: give two rising numbers")


class Curvas24(Curvas):
    """Pancreas, kidney and liver in 90 contrast CT scans, by three radiologists (1 to 3).

    Known faults of the files: in UKCHLL007 the header of reader 2 gives 0.7 instead of 1 mm between slices (matched
    voxel by voxel); in UKCHLL082 reader 3 left out the pancreas and part of the liver. ``faulty=keep`` takes that as
    an answer, as the challenge does; ``faulty=drop`` leaves the case out. Some masks are stored scaled, so that their
    codes are not exact.
    """

    rater_names = ("1", "2", "3")
    class_names = ("pancreas", "kidney", "liver")
    codes: ClassVar[Mapping[int, int]] = MappingProxyType({0: 0, 1: 1, 2: 2, 3: 3})
    expected = "{training,validation,testing}_set/UKCHLL<NNN>"
    title = "CURVAS 2024: pancreas, kidney and liver in CT, three radiologists"
    citation = (
        "Riera-Marín et al., Calibration and Uncertainty for multiRater Volume Assessment in multiorgan Segmentation "
        "(CURVAS) challenge results, arXiv:2505.08685, 2025; data: doi 10.5281/zenodo.13767408"
    )
    licence = "CC BY 4.0"
    how_to_get = (
        "download training_set.zip, validation_set.zip and testing_set.zip of Zenodo record 13767408 (30 GB; the "
        "training set alone: 11147560), unpack them into FOLDER, then: multirater prepare curvas24 --root FOLDER. The "
        "prepared arrays take about 0.3 MB a slice at 256 pixels. Loader not yet tried on the original files"
    )
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType({"compat": ""})

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds training_set, validation_set, testing_set"] = None,
        size: Annotated[Size, SIZE_HELP] = 256,
        window: Window = SOFT_TISSUE,
        slice_step: Step = 1,
        faulty: Annotated[Literal["keep", "drop"], "UKCHLL082, which reader 3 did not finish"] = "keep",
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per case"] = None,
        split: Annotated[str, "cv4, fixed, or compat: the challenge's 20/5/65"] = "cv4",
        train_slices: Annotated[TrainSlices, "slices to train on; tests use whole volumes"] = "foreground",
    ) -> None:
        super().__init__(
            root=root, size=size, window=window, slice_step=slice_step, faulty=faulty, identity=identity, split=split,
            train_slices=train_slices,
        )  # fmt: skip
        self.check_window(window)

    def wanted(self, case: str) -> bool:
        if case not in FAULTY:
            return True
        if self.options["faulty"] == "keep":
            self.notice = f"{case}: {FAULTY[case]} left out the pancreas and part of the liver"
        return self.options["faulty"] == "keep"

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        return self.official()


class CurvasPdacvi(Curvas):
    """Pancreatic ductal adenocarcinoma in 40 public CT scans of PANORAMA, by five readers.

    Reader 1 is PANORAMA's own label and followed another protocol than readers 2 to 5.
    """

    rater_names = ("1", "2", "3", "4", "5")
    class_names = ("PDAC",)
    codes: ClassVar[Mapping[int, int]] = MappingProxyType({0: 0, 1: 1})
    expected = "<case> folders"
    notice = "reader 1 is PANORAMA's label, drawn by another protocol than readers 2-5"
    title = "CURVAS-PDACVI 2025: pancreatic tumour in CT, PANORAMA's label and four readers"
    citation = "CURVAS-PDACVI challenge, MICCAI 2025, doi 10.5281/zenodo.15401568"
    licence = "see Zenodo record 15401568"
    how_to_get = (
        "download Zenodo record 15401568, unpack it into FOLDER, so that it holds <case>/image.nii.gz and "
        "<case>/annotation_1.nii.gz to annotation_5.nii.gz, then: multirater prepare curvas-pdacvi --root FOLDER. "
        "Loader not yet tried on the original files"
    )

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds the cases"] = None,
        size: Annotated[Size, SIZE_HELP] = 256,
        window: Window = SOFT_TISSUE,
        slice_step: Step = 1,
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per case"] = None,
        split: Annotated[str, "cv4 or fixed"] = "cv4",
        train_slices: Annotated[TrainSlices, "slices to train on; tests use whole volumes"] = "foreground",
    ) -> None:
        super().__init__(
            root=root, size=size, window=window, slice_step=slice_step, identity=identity, split=split,
            train_slices=train_slices,
        )  # fmt: skip
        self.check_window(window)
