"""Your own images and masks: a folder and a YAML with two patterns (docs/folder.md)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from .file_dataset import Side
from .folder_config import FolderConfig, read_config
from .folder_listing import Listing, list_folder
from .listed_files import ListedCase, ListedFiles, Reading
from .orders import Order
from .volume_dataset import TrainSlices


class Folder(ListedFiles):
    """Images and masks of a folder, explained by a YAML.

    A rater without a file for a case did not see it (``rater_valid`` is False); an empty mask is an answer. NIfTI
    volumes become one row a slice.
    """

    version = 2
    title = "Your own images and masks"
    licence = "yours"
    how_to_get = "put a multirater.yaml beside your files (docs/folder.md) and pass its folder as dataset.root"
    split_names = ("cv4", "fixed")

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds the files"] = None,
        config: Annotated[str | None, "YAML with the patterns; default ROOT/multirater.yaml"] = None,
        size: Annotated[Side | tuple[Side, Side] | None, "side or [height, width]; null: as stored"] = None,
        identity: Annotated[Order | None, "null: as the YAML declares; none: slots shuffled"] = None,
        split: Annotated[Literal["cv4", "fixed"], "patient-level split"] = "cv4",
        train_slices: Annotated[TrainSlices, "slices of volumes to train on: those drawn in by some rater, or all"] = (
            "foreground"
        ),
    ) -> None:
        super().__init__(root=root, config=config, size=size, split=split, train_slices=train_slices)
        self.options["identity"] = identity

    @cached_property
    def listing(self) -> tuple[FolderConfig, Listing]:
        """The checked YAML and the files that its patterns found; read once.

        Raises:
            UserError: root or YAML missing or wrong, a pattern without a match, two files for one place.
        """
        given = self.options["config"]
        config = read_config(Path(given).expanduser() if given else self.root / "multirater.yaml")
        return config, list_folder(self.root, config)

    def list_files(self, root: Path) -> tuple[Reading, list[ListedCase], tuple[str, ...]]:
        config, listing = self.listing
        alone = "" if config.patient_given else "no patient declared: every case counts as a patient of its own"
        self.notice = "; ".join(filter(None, [config.notice, alone]))
        reading = Reading(
            foreground=config.foreground,
            classes=listing.classes,
            overlapping=config.overlapping,
            channels=config.channels,
            window=config.window,
            spacing=config.spacing,
            identity=config.identity,
            where="YAML",
            meaning=config.meaning,
        )
        return reading, listing.cases, listing.raters

    def leftovers(self) -> dict[str, list[str]]:
        """`Listing.left_out` and `Listing.masks_without_image`. Asked of the folder, not of the cache: files that are
        not used are no part of the cache key."""
        listing = self.listing[1]
        return {"left_out": listing.left_out, "masks_without_image": listing.masks_without_image}
