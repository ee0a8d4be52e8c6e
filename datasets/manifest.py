"""Your own images, volumes and masks by a JSON list, as MONAI's decathlon reader knows it (docs/generic.md)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from ..core.errors import UserError
from .file_dataset import Side
from .listed_files import ListedCase, ListedFiles, Reading
from .manifest_files import Manifest as Listing
from .manifest_files import read_manifest
from .orders import Order
from .splits import PARTS
from .volume_dataset import TrainSlices


class Manifest(ListedFiles):
    """Pictures and NIfTI volumes with one mask a rater, listed in a JSON file.

    The file holds a list of ``{image, labels: {rater: path}, patient, split}``, or an object with such lists named
    ``training``, ``validation`` and ``test`` beside the keys of the folder data set. All paths stay below its folder.
    """

    version = 1
    title = "Your own images and masks, by a JSON list"
    licence = "yours"
    how_to_get = (
        "write a JSON list of {image, labels: {rater: path}, patient, split} into the folder of the files "
        "(docs/generic.md), then: multirater prepare manifest --root FILE.json"
    )
    split_names = ("cv4", "fixed")
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType({"compat": ""})

    def __init__(
        self,
        root: Annotated[str | None, "the JSON file, or a folder with one JSON file"] = None,
        size: Annotated[Side | tuple[Side, Side] | None, "side or [height, width]; null: as stored"] = None,
        identity: Annotated[Order | None, "null: as the file declares; none: slots shuffled"] = None,
        split: Annotated[
            Literal["cv4", "fixed", "compat"], "patient-level split; compat: the parts that the file gives"
        ] = "cv4",
        train_slices: Annotated[TrainSlices, "slices of volumes to train on: those drawn in by some rater, or all"] = (
            "foreground"
        ),
    ) -> None:
        super().__init__(root=root, size=size, split=split, train_slices=train_slices)
        self.options["identity"] = identity

    @cached_property
    def root(self) -> Path:
        given = Path(self.options["root"] or "").expanduser()
        if not self.options["root"] or given.is_dir():
            folder = super().root
            files = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".json" and p.name[0] != ".")
            if len(files) != 1:
                raise UserError(f"{folder} holds {len(files)} JSON files; give the manifest itself as dataset.root")
            return files[0]
        return given

    @cached_property
    def listing(self) -> Listing:
        return read_manifest(self.root)

    def list_files(self, root: Path) -> tuple[Reading, list[ListedCase], tuple[str, ...]]:
        found = self.listing
        alone = "" if found.patients else "no patient declared: every case counts as a patient of its own"
        self.notice = "; ".join(filter(None, [found.notice, alone]))
        return found.reading, found.cases, found.raters

    def leftovers(self) -> dict[str, list[str]]:
        return {"left_out": self.listing.left_out, "masks_without_image": []}

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        rows = {part: self.rows_of(part) for part in PARTS}
        if not any(rows.values()):
            raise UserError(f"{self.root} gives no case a split; use --set dataset.split=cv4")
        return rows
