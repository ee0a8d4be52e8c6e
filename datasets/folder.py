"""Your own images and masks: a folder and a YAML with two patterns (docs/folder.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ..core.errors import UserError
from ..core.hashing import digest, file_digest
from ..core.seeding import numpy_generator
from .base import Dataset, Identity, Progress
from .folder_config import FolderConfig, read_config
from .folder_listing import WHOLE, FolderCase, Listing, list_folder
from .image_files import Picture, lossy, read_picture, resize_image, resize_labels, to_channels, to_unit_range
from .store import ArrayStore

Side = Annotated[int, Field(ge=8, le=8192)]


class Folder(Dataset):
    """Images and masks of a folder, explained by a YAML.

    A rater without a file for a case did not see it (``rater_valid`` is False); an empty mask is an answer. All arrays
    are made in memory, so cases x (channels x 4 + raters) x pixels bytes must fit.
    """

    version = 1
    title = "Your own images and masks"
    licence = "yours"
    how_to_get = "put a multirater.yaml beside your files (docs/folder.md) and pass its folder as dataset.root"
    split_names = ("cv4", "fixed")

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds the files"] = None,
        config: Annotated[str | None, "YAML with the patterns; default ROOT/multirater.yaml"] = None,
        size: Annotated[Side | tuple[Side, Side] | None, "side or [height, width]; null: as stored"] = None,
        identity: Annotated[
            Literal["none", "as_stored", "by_area"] | None, "null: as the YAML declares; none: slots shuffled"
        ] = None,
        split: Annotated[Literal["cv4", "fixed"], "patient-level split"] = "cv4",
    ) -> None:
        super().__init__(root=root, config=config, size=size, identity=identity, split=split)
        self._listing: tuple[FolderConfig, Listing] | None = None
        self._source: dict[str, Any] | None = None

    @property
    def build_options(self) -> dict[str, Any]:
        return {"size": self.options["size"]}

    # -- what is there --------------------------------------------------------------------------

    def listing(self) -> tuple[FolderConfig, Listing]:
        """The checked YAML and the files that its patterns found; read once.

        Raises:
            UserError: root or YAML missing or wrong, a pattern without a match, two files for one place.
        """
        if self._listing is None:
            if not self.options["root"]:
                raise UserError("dataset folder needs its root; give --root PATH or --set dataset.root=PATH")
            root = Path(self.options["root"]).expanduser()
            if not root.is_dir():
                raise UserError(f"dataset.root {str(root)!r} is not a folder; give the folder that holds the files")
            given = self.options["config"]
            config = read_config(Path(given).expanduser() if given else root / "multirater.yaml")
            self._listing = config, list_folder(root, config)
            if self.options["identity"] is None:  # settled, so that left out or given it is one fingerprint, one table
                self.options["identity"] = "as_stored" if config.identity == "consistent" else "none"
            alone = "" if config.patient_given else "no patient declared: every case counts as a patient of its own"
            self.notice = "; ".join(filter(None, [config.notice, alone]))
        return self._listing

    def source(self) -> dict[str, Any]:
        """Hashes of all files used, by case, rater and class: where they lie does not matter.

        Of the names only this counts: whether a mask is a JPEG, because undeclared foreground is cut in those alone.
        """
        if self._source is None:
            config, listing = self.listing()
            files = [
                [
                    case.case_id,
                    case.patient_id,
                    file_digest(case.image),
                    [
                        [rater, name, file_digest(path), lossy(path)]
                        for rater, by_class in sorted(case.masks.items())
                        for name, path in sorted(by_class.items())
                    ],
                ]
                for case in listing.cases
            ]
            self._source = {
                "files": digest(sorted(files)),
                "raters": list(listing.raters),
                "classes": list(listing.classes),
                "identity": config.identity,
                **config.meaning,
            }
        return self._source

    def leftovers(self) -> dict[str, list[str]]:
        """`Listing.left_out` and `Listing.masks_without_image`. Asked of the folder, not of the cache: files that are
        not used are no part of the cache key."""
        listing = self.listing()[1]
        return {"left_out": listing.left_out, "masks_without_image": listing.masks_without_image}

    # -- arrays ---------------------------------------------------------------------------------

    def build(self, folder: Path, progress: Progress) -> None:
        config, listing = self.listing()
        cases, raters = listing.cases, listing.raters
        planes = len(listing.classes) if config.overlapping else 0
        images: np.ndarray | None = None
        masks: np.ndarray | None = None
        valid = np.zeros((len(cases), len(raters)), bool)
        records: list[dict[str, Any]] = []
        for i, case in enumerate(cases):
            progress(i, len(cases), case.case_id)
            picture = read_picture(case.image)
            native = picture.values.shape[:2]
            image = to_channels(to_unit_range(picture.values, config.window), config.channels)
            size = self._target(native, images, case, cases[0])
            if images is None or masks is None:
                images = np.zeros((len(cases), image.shape[0], *size), np.float32)
                masks = np.zeros((len(cases), len(raters), *((planes,) if planes else ()), *size), np.uint8)
            if image.shape[0] != images.shape[1]:
                raise UserError(
                    f"{case.image} has {image.shape[0]} channels, but {cases[0].image} has {images.shape[1]}; "
                    f"set channels: grey or rgb in the YAML"
                )
            images[i] = resize_image(image, size)
            for r, rater in enumerate(raters):
                if rater in case.masks:
                    valid[i, r] = True
                    masks[i, r] = resize_labels(_labels(case, rater, config, listing.classes, native), size)
            records.append(
                {
                    "case_id": case.case_id,
                    "patient_id": case.patient_id,
                    "spacing": _spacing(config, picture, size),
                    "source": case.image.name,
                    "meta": {},
                }
            )
        assert images is not None
        assert masks is not None
        if not masks.any():
            example = next(iter(next(iter(cases[0].masks.values())).values()))
            raise UserError(
                f"no mask has any foreground, for example {example}; declare the foreground values in the YAML, "
                f"for example foreground: '> 0'"
            )
        full: np.ndarray = np.asarray(masks.reshape(*valid.shape, -1).all(axis=2))
        if len(listing.classes) == 1 and full[valid].all():
            raise UserError("every pixel of every mask is foreground; declare the foreground values in the YAML")
        ArrayStore.write(
            folder,
            images=images,
            masks=masks,
            rater_valid=valid,
            records=records,
            classes=len(listing.classes),
            rater_ids=list(raters),
            identity=config.identity,
            overlapping=config.overlapping,
            class_names=list(listing.classes),
        )
        progress(len(cases), len(cases), "done")

    def _target(
        self, native: tuple[int, ...], images: np.ndarray | None, case: FolderCase, first: FolderCase
    ) -> tuple[int, int]:
        size = self.options["size"]
        if size is None:
            if images is not None and native != images.shape[2:]:
                raise UserError(
                    f"images differ in size: {first.image} has {_by(images.shape[2:])} and {case.image} has "
                    f"{_by(native)}; choose one with --set dataset.size=N or dataset.size=[H,W]"
                )
            return native[0], native[1]
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def rater_order(self, store: ArrayStore) -> tuple[np.ndarray, tuple[str, ...], Identity]:
        """Stored order, shuffled in every case (``none``), or ascending foreground area of the valid raters.

        A case with missing raters fills the first area slots: its k-th smallest of fewer masks.
        """
        order, ids, declared = super().rater_order(store)
        chosen = self.options["identity"]
        places = tuple(str(r + 1) for r in range(order.shape[1]))
        if chosen == "none":
            for i, record in enumerate(store.records):
                order[i] = numpy_generator("folder.shuffle", case=record["case_id"]).permutation(order[i])
            return order, places, "none"
        if chosen == "by_area":
            slots = order.shape[1]
            area = np.stack([np.count_nonzero(case.reshape(slots, -1), axis=1) for case in store.masks])
            ranked = np.argsort(np.where(order < 0, np.iinfo(area.dtype).max, area), axis=1, kind="stable")
            return np.take_along_axis(order, ranked, axis=1), tuple(f"area {p}" for p in places), "derived"
        return order, ids, "consistent" if declared == "consistent" else "derived"


def _labels(
    case: FolderCase, rater: str, config: FolderConfig, classes: tuple[str, ...], native: tuple[int, ...]
) -> np.ndarray:
    """H×W class indices of a rater, or K×H×W for overlapping classes."""
    files = case.masks[rater]
    if WHOLE in files:
        return _read_mask(files[WHOLE], config, case, native)
    planes = np.stack([_read_mask(files[name], config, case, native) for name in classes])
    if config.overlapping:
        return planes
    if (planes.sum(0) > 1).any():
        raise UserError(
            f"classes {', '.join(classes)} of rater {rater!r} overlap in case {case.case_id!r}; remove "
            f"overlapping: false from the YAML"
        )
    return (planes * np.arange(1, len(planes) + 1, dtype=np.uint8)[:, None, None]).max(0)


def _read_mask(path: Path, config: FolderConfig, case: FolderCase, native: tuple[int, ...]) -> np.ndarray:
    values = read_picture(path, labels=True).values
    if values.shape != native:
        raise UserError(
            f"{path} has {_by(values.shape)} pixels, but its image {case.image} has {_by(native)}; a mask must have "
            f"the size of its image"
        )
    return config.foreground.apply(values, path)


def _spacing(config: FolderConfig, picture: Picture, size: tuple[int, int]) -> list[float] | None:
    """Millimetres per stored pixel: the declared or the file's spacing, times the shrinkage."""
    spacing = config.spacing or picture.spacing
    if spacing is None:
        return None
    return [s * old / new for s, old, new in zip(spacing, picture.values.shape, size, strict=False)]


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
