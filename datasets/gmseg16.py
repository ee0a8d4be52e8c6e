"""`gmseg16`: grey and white matter of the spinal cord in MRI, four raters (ISMRM challenge 2016)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ..core.errors import UserError
from .file_dataset import Decoded, RawCase
from .orders import Order
from .patterns import files_below
from .volume_dataset import SIZE_HELP, Size, TrainSlices, VolumeDataset, need

_FILE = re.compile(r"(?:.*/)?(?P<case>site\d+-sc\d+)-(?:image|mask-r(?P<rater>\d+))\.nii(?:\.gz)?")


class Gmseg16(VolumeDataset):
    """Axial slices of the cervical cord of 40 healthy subjects at four sites, by four raters (r1 to r4).

    The sites differ in resolution. The cord is small and in the middle, so by default the middle 50 mm of each slice
    are taken and brought to one size, which gives all sites one pixel size.
    """

    rater_names = ("r1", "r2", "r3", "r4")
    declared = "consistent"
    class_names = ("grey matter", "white matter")
    title = "Spinal cord grey matter challenge 2016: MRI of four sites, four raters"
    citation = (
        "Prados et al., Spinal cord grey matter segmentation challenge, NeuroImage 152:312-329, 2017, "
        "doi 10.1016/j.neuroimage.2017.03.010"
    )
    licence = "on request: research use"
    how_to_get = (
        "ask for the training data at the page of the challenge (niftyweb.cs.ucl.ac.uk), unpack them into FOLDER, so "
        "that it holds site1-sc01-image.nii.gz and site1-sc01-mask-r1.nii.gz to -r4, then: multirater prepare gmseg16 "
        "--root FOLDER. The 40 test subjects have no masks and are left out. Loader not yet tried on the original files"
    )

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds the files"] = None,
        size: Annotated[Size, SIZE_HELP] = 192,
        field: Annotated[
            Annotated[float, Field(ge=5, le=500)] | None, "side in mm of the middle of a slice; null: whole slices"
        ] = 50.0,
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per subject"] = None,
        split: Annotated[str, "cv4 or fixed"] = "cv4",
        train_slices: Annotated[TrainSlices, "slices to train on; tests use whole volumes"] = "foreground",
    ) -> None:
        super().__init__(root=root, size=size, field=field, identity=identity, split=split, train_slices=train_slices)

    def list_cases(self, root: Path) -> list[RawCase]:
        found: dict[str, dict[str, Path]] = {}
        for relative in files_below(root):
            match = _FILE.fullmatch(relative)
            if not match:
                continue
            name = f"r{match['rater']}" if match["rater"] else "image"
            files = found.setdefault(match["case"], {})
            if name in files:
                raise UserError(f"{root / relative} and {files[name]} are the same file of one subject; keep one")
            if name not in ("image", *self.rater_names):
                raise UserError(f"{root / relative} is not expected: the raters are r1 to r4; check the name")
            files[name] = root / relative
        self.unused["left_out"] = [case for case, files in found.items() if len(files) == 1 and "image" in files]
        labelled = {case: files for case, files in found.items() if case not in self.unused["left_out"]}
        need(labelled, "site<N>-sc<NN>-image.nii.gz with masks -mask-r<1-4>.nii.gz", root)
        return [self._case(case, files) for case, files in labelled.items()]

    def _case(self, case: str, files: dict[str, Path]) -> RawCase:
        if "image" not in files:
            raise UserError(f"{next(iter(files.values()))} has no {case}-image.nii.gz beside it; restore the image")
        stack, odd = self.place([files["image"]], [files.get(r) for r in self.rater_names])
        meta: dict[str, Any] = {"site": case.split("-")[0], **({"header_differs": odd} if odd else {})}
        return RawCase(case, case, tuple(files.values()), slices=stack.depth, handle=stack, meta=meta)

    def decode(self, raw: RawCase) -> Decoded:
        return self.read_stack(raw.handle, {0: 0, 1: 1, 2: 2}, None, field=self.options["field"])
