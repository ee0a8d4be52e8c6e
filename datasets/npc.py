"""`npc`: nasopharyngeal carcinoma in MRI, four radiation oncologists (NPC-170 of D-Persona, MMIS-2024 task 1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ..core.errors import UserError
from .file_dataset import Decoded, RawCase
from .h5_files import h5_array, h5_keys, h5_values, open_h5
from .image_files import resize_image, resize_labels
from .orders import Order
from .patterns import natural
from .volume_dataset import SIZE_HELP, Moments, Size, TrainSlices, VolumeDataset, need
from .volume_files import by, check_finite, codes

SEQUENCES = ("t1", "t1c", "t2")
RATERS = ("a1", "a2", "a3", "a4")
_SLICE = re.compile(r"(?P<patient>.+)_slice_(?P<slice>\d+)\.h5")
_PARTS = {"training_2d": "train", "training": "train", "validation": "val", "testing": "test"}


class Npc(VolumeDataset):
    """T1, T1 with contrast and T2 as three channels; gross tumour volume by four persons (a1 to a4).

    D-Persona's folders hold the training patients as single slices (``training_2d``), the others as volumes; the
    challenge's hold volumes throughout (``training``). The slices of a patient are kept together as one volume of those
    slices. A rater whose label a file does not have is missing, which is how files with one label a case (MMIS-2024
    task 2) are read.
    """

    rater_names = RATERS
    declared = "consistent"
    class_names = ("gross tumour volume",)
    title = "NPC-170: nasopharyngeal carcinoma, MRI, four raters (MMIS-2024)"
    citation = (
        "Wu, Luo, Xu, Guo, Ju, Ge, Liao, Cai, Diversified and Personalized Multi-rater Medical Image Segmentation, "
        "CVPR 2024, pp. 11470-11479, arXiv:2403.13417"
    )
    licence = "challenge terms: after registration, no redistribution"
    how_to_get = (
        "register for MMIS-2024 (mmis2024.com), and put the h5 files into FOLDER/training_2d "
        "(Sample_<id>_slice_<k>.h5) or FOLDER/training (one volume a patient), FOLDER/validation and, if you have it, "
        "FOLDER/testing; then: multirater prepare npc --root FOLDER. The labels of the test patients are not given to "
        "everybody: without them use --set dataset.split=compat-val. Loader not yet tried on the original files"
    )
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "compat": "",
            "compat-val": "test labels are not public, so this tests on the official validation patients and selects "
            "on one in ten training patients",
        }
    )

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds training_2d or training, validation, testing"] = None,
        size: Annotated[Size, SIZE_HELP] = 128,
        intensity: Annotated[
            Literal["zscore", "as_stored"], "z-score over the non-zero voxels of a patient's slices, or D-Persona's"
        ] = "zscore",
        resize: Annotated[
            Literal["linear", "order0"],
            "linear with antialiasing, masks nearest; or D-Persona's zoom of order 0 of both",
        ] = "linear",
        drop_empty: Annotated[bool, "do not train on slices of training_2d that are empty for all raters"] = False,
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per patient"] = None,
        split: Annotated[str, "cv4, fixed, compat (the published 100/20/50) or compat-val"] = "cv4",
        train_slices: Annotated[TrainSlices, "slices of training volumes to train on"] = "foreground",
    ) -> None:
        super().__init__(
            root=root, size=size, intensity=intensity, resize=resize, drop_empty=drop_empty, identity=identity,
            split=split, train_slices=train_slices,
        )  # fmt: skip

    @property
    def build_options(self) -> dict[str, Any]:
        return {k: v for k, v in super().build_options.items() if k != "drop_empty"}

    # -- listing --------------------------------------------------------------------------------

    def list_cases(self, root: Path) -> list[RawCase]:
        found: list[RawCase] = []
        folders = [root / name for name in _PARTS if (root / name).is_dir()]
        if (root / "training_2d").is_dir():  # the same patients, cut: whoever made the cuts wants to train on them
            folders = [folder for folder in folders if folder.name != "training"]
            if self.split_name not in self.compat_splits:
                self.notice = "patients of training_2d are tested on those slices only, which are the ones with tumour"
        for folder in folders:
            groups: dict[str, list[tuple[int, Path]]] = {}
            paths = sorted(folder.glob("*.h5"), key=lambda p: natural(p.name))
            for path in paths:
                cut = _SLICE.fullmatch(path.name)
                if (cut is not None) != (folder.name == "training_2d"):
                    raise UserError(
                        f"{path} has an unexpected name: training_2d holds Sample_<id>_slice_<k>.h5, the other folders "
                        f"one file a patient; move or rename it"
                    )
                groups.setdefault(cut["patient"] if cut else path.stem, []).append(
                    (int(cut["slice"]) if cut else 0, path)
                )
            found += [self._case(folder.name, patient, sorted(files)) for patient, files in groups.items()]
        kept = [case for case in found if case.handle]
        self.unused["left_out"] = [case.case_id for case in found if not case.handle]
        return need(kept, "training_2d, training, validation or testing folder with labelled h5 files", root)

    def _case(self, folder: str, patient: str, files: list[tuple[int, Path]]) -> RawCase:
        name = f"{folder}/{patient}"
        paths = tuple(path for _, path in files)
        shape: tuple[int, ...] = ()
        raters: tuple[str, ...] = ()
        for path in paths:
            found, labels = _header(path, 2 if folder == "training_2d" else 3)
            if shape and (found[-2:] != shape[-2:] or labels != raters):
                raise UserError(
                    f"{path} has {by(found)} pixels and labels of {', '.join(labels) or 'nobody'}, but {paths[0]} of "
                    f"the same patient has {by(shape)} and {', '.join(raters) or 'nobody'}; restore the files"
                )
            shape, raters = found, labels
        depth = len(paths) if folder == "training_2d" else shape[0]
        meta: dict[str, Any] = {"numbers": [k for k, _ in files]} if folder == "training_2d" else {}
        # The official parts are different patients, whatever their numbers.
        return RawCase(name, name, paths, slices=depth, part=_PARTS[folder], handle=raters, meta=meta)

    # -- reading --------------------------------------------------------------------------------

    def decode(self, raw: RawCase) -> Decoded:
        image: np.ndarray | None = None
        masks: np.ndarray | None = None
        spacing: tuple[float, float, float] | None = None
        moments = [Moments() for _ in SEQUENCES]
        native = (1, 1)
        row = 0
        for path in raw.files:
            with open_h5(path) as file:
                planes = np.stack([_stack(file, key, path) for key in SEQUENCES], axis=1).astype(np.float32)
                labels = np.zeros((len(planes), len(RATERS), *planes.shape[2:]), np.uint8)
                for rater in raw.handle:
                    stored = _stack(file, f"label_{rater}", path)
                    labels[:, RATERS.index(rater)] = codes(stored, {0: 0, 1: 1}, path)
                spacing = spacing or _spacing(file, path)
            check_finite(planes, path)
            for c, moment in enumerate(moments):
                moment.add(planes[:, c])
            native = planes.shape[2:]
            size = self.slice_size(*native)
            if image is None or masks is None:
                image = np.zeros((raw.slices, len(SEQUENCES), *size), np.float32)
                masks = np.zeros((raw.slices, len(RATERS), *size), np.uint8)
            rows = slice(row, row + len(planes))
            row += len(planes)
            if self.options["resize"] == "order0":
                image[rows], masks[rows] = zoom_order0(planes, size), zoom_order0(labels, size)
            else:
                image[rows] = np.stack([resize_image(plane, size) for plane in planes])
                masks[rows] = resize_labels(labels, size)
        assert image is not None
        assert masks is not None
        if self.options["intensity"] == "zscore":
            for c, moment in enumerate(moments):
                image[:, c] = moment.standardise(image[:, c])
        if spacing:
            spacing = (spacing[0], spacing[1] * native[0] / image.shape[2], spacing[2] * native[1] / image.shape[3])
        return Decoded(image, masks, np.array([r in raw.handle for r in RATERS]), spacing)

    # -- parts ----------------------------------------------------------------------------------

    def training_rows(self, rows: np.ndarray) -> np.ndarray:
        metas = [self.store.records[i]["meta"] for i in rows]
        keep_empty = [
            not self.options["drop_empty"] if "numbers" in meta else self.options["train_slices"] == "all"
            for meta in metas
        ]
        kept = [i for i, meta, keep in zip(rows, metas, keep_empty, strict=True) if keep or meta["foreground"]]
        return np.array(kept, dtype=np.intp)

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        if name == "compat":
            return self.official()
        return self.official_halves(10, test="val")


def zoom_order0(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The two last axes at another size, as D-Persona does: `scipy.ndimage.zoom` of order 0, which aligns the corner
    pixels, so that inner ones are taken up to half a pixel away from their place."""
    from scipy.ndimage import zoom

    factors = [new / old for new, old in zip(size, planes.shape[-2:], strict=True)]
    return zoom(planes, [1.0] * (planes.ndim - 2) + factors, order=0)


def _header(path: Path, axes: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Shape of the arrays and the raters who labelled them, without reading values."""
    with open_h5(path) as file:
        shapes = {}
        for key in (*SEQUENCES, *(f"label_{r}" for r in RATERS)):
            found = h5_array(file, key, path)
            if found is not None:
                shapes[key] = found.shape
            elif key in SEQUENCES:
                raise UserError(f"{path} holds no {key!r}, but {h5_keys(file)}; expected are {', '.join(SEQUENCES)}")
    first = shapes["t1"]
    for key, shape in shapes.items():
        if shape != first or len(shape) != axes:
            raise UserError(
                f"{path} holds {key!r} of shape {by(shape)} beside 't1' of {by(first)}; all must have one shape of "
                f"{axes} axes"
            )
    return first, tuple(r for r in RATERS if f"label_{r}" in shapes)


def _stack(file: Any, key: str, path: Path) -> np.ndarray:
    """D×H×W of a volume or a single slice."""
    found = h5_array(file, key, path)
    if found is None:
        raise UserError(f"{path} no longer holds {key!r}; it was changed while it was read")
    values = h5_values(found)
    return values[None] if values.ndim == 2 else values


def _spacing(file: Any, path: Path) -> tuple[float, float, float] | None:
    """mm (slice, row, column), which the challenge's files give as ``voxel_spacing``."""
    found = h5_array(file, "voxel_spacing", path)
    if found is None or found.shape != (3,):
        return None
    d, h, w = (float(v) for v in h5_values(found))
    return (d, h, w) if np.isfinite([d, h, w]).all() and min(d, h, w) > 0 else None
