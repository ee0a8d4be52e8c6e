"""One HDF5 file of images and masks, as `multirater data convert` writes it (docs/generic.md)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np

from ..core.errors import UserError
from .base import Identity, Progress
from .file_dataset import Decoded, FileDataset, RawCase, Side
from .hdf5_files import SafeFile
from .orders import Order
from .splits import PARTS
from .store import ArrayStore
from .volume_files import by

SUFFIXES = (".h5", ".hdf5", ".he5", ".hdf")
FIELDS = ("images", "masks", "valid", "case_id", "patient_id", "rater_id")
OPTIONAL = ("part", "volume", "slice", "spacing")
_MOST = {"channels": 64, "raters": 256, "classes": 254, "side": 8192}


class Hdf5(FileDataset):
    """Arrays of one file: ``images`` (N,C,H,W), ``masks`` (N,R,H,W) or (N,R,K,H,W), ``valid`` (N,R), ids.

    Images are used as stored if they are floats, and divided by 255 if they are bytes. Masks hold class indices 0…K
    (names in the attribute ``class_names``; without it 0 and 1), or 0 and 1 for each of K overlapping classes.
    """

    version = 1
    title = "One HDF5 file of images and masks"
    licence = "as the attribute licence of the file says"
    how_to_get = (
        "write it with `multirater data convert`, or with h5py as docs/generic.md shows, then: "
        "multirater prepare hdf5 --root FILE.h5"
    )
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType({"compat": ""})

    def __init__(
        self,
        root: Annotated[str | None, "the file, or a folder with one such file"] = None,
        size: Annotated[Side | tuple[Side, Side] | None, "side or [height, width]; null: as stored"] = None,
        identity: Annotated[Order | None, "null: as the file declares; none: slots shuffled"] = None,
        split: Annotated[Literal["cv4", "fixed", "compat"], "patient-level split; compat: `part` of the file"] = "cv4",
    ) -> None:
        super().__init__(root=root, size=size, identity=identity, split=split)
        self._given = identity
        self._lock = threading.Lock()
        self._open: SafeFile | None = None

    @cached_property
    def root(self) -> Path:
        given = Path(self.options["root"] or "").expanduser()
        if not self.options["root"] or given.is_dir():
            folder = super().root
            files = sorted(p for p in folder.iterdir() if p.name.lower().endswith(SUFFIXES) and p.name[0] != ".")
            if len(files) != 1:
                raise UserError(
                    f"{folder} holds {len(files)} HDF5 files ({', '.join(SUFFIXES)}); give the file itself as "
                    f"dataset.root"
                )
            return files[0]
        return given

    # -- listing --------------------------------------------------------------------------------

    def list_cases(self, root: Path) -> list[RawCase]:
        with SafeFile(root) as file:
            return self._listed(file)

    def _listed(self, file: SafeFile) -> list[RawCase]:
        path = file.path
        unknown = [name for name in file.names() if name not in (*FIELDS, *OPTIONAL)]
        if unknown:
            raise UserError(
                f"{path} holds {unknown[0]!r}, which is no field of this format ({', '.join((*FIELDS, *OPTIONAL))}); "
                f"remove or rename it"
            )
        ids, patients, raters = (file.strings(name) for name in ("case_id", "patient_id", "rater_id"))
        self.rater_names = tuple(raters)
        for name, texts in (("case_id", ids), ("rater_id", raters)):
            seen: set[str] = set()
            for text in texts:
                if text in seen:
                    raise UserError(f"{path}: {name!r} has {text!r} twice; ids must be unique")
                seen.add(text)
        cases = len(ids)
        self._declare(file)
        self._check_arrays(file, cases, len(raters))
        valid = file.numbers("valid", "bu", (cases, len(raters)))
        if valid.max() > 1:
            raise UserError(f"{path}: 'valid' holds the value {valid.max()}; it must hold 0 and 1")
        if not valid.any(1).all():
            lost = ids[int(np.argmin(valid.any(1)))]
            raise UserError(f"{path}: case {lost!r} has no valid rater; leave that case out")
        columns = {name: self._optional(file, name, cases) for name in OPTIONAL}
        if len(patients) != cases:
            raise UserError(f"{path}: 'patient_id' has {len(patients)} rows, but 'case_id' has {cases}")
        self._check_volumes(file, columns, ids)
        common = self._spacing(file)
        listed = []
        for row in range(cases):
            meta: dict[str, Any] = {}
            if columns["volume"] is not None and columns["volume"][row]:
                meta = {"volume": columns["volume"][row], "slice": int(columns["slice"][row])}
            spacing = columns["spacing"][row] if columns["spacing"] is not None else common
            part = columns["part"][row] if columns["part"] is not None else ""
            listed.append(
                RawCase(ids[row], patients[row], (path,), part=part, handle=(row, valid[row] > 0, spacing), meta=meta)
            )
        return listed

    def _declare(self, file: SafeFile) -> None:
        """Identity, classes and licence from the attributes."""
        declared = file.attribute("identity")
        if declared not in get_args(Identity):
            raise UserError(
                f"{file.path}: attribute 'identity' is {_shown(declared)}; it must say what a rater slot means: "
                f"{', '.join(get_args(Identity))}"
            )
        self.declared = declared
        self.options["identity"] = self._given or ("none" if declared == "none" else "as_stored")
        names = file.attribute("class_names")
        names = [names] if isinstance(names, str) else names
        if names is not None and (
            not isinstance(names, list) or len(set(names)) < len(names) or not all(n and n.isprintable() for n in names)
        ):
            raise UserError(f"{file.path}: attribute 'class_names' is {_shown(names)}; give a list of different names")
        masks = file.array("masks")
        self.overlapping = masks.ndim == 5
        count = masks.shape[2] if self.overlapping else 1
        if names is not None and self.overlapping and len(names) != count:
            raise UserError(f"{file.path}: 'class_names' has {len(names)} names, but 'masks' has {count} classes")
        self.class_names = tuple(
            names or (f"class {k + 1}" for k in range(count)) if count > 1 or names else ["foreground"]
        )
        for name in ("licence", "notice"):
            text = file.attribute(name)
            if text is not None and not isinstance(text, str):
                raise UserError(f"{file.path}: attribute {name!r} is {_shown(text)}; give one text")
            setattr(self, name, " ".join((text or "").split()) or getattr(type(self), name))

    def _spacing(self, file: SafeFile) -> tuple[float, ...] | None:
        value = file.attribute("spacing")
        if value is None:
            return None
        found = tuple(float(v) for v in np.atleast_1d(value)) if isinstance(value, np.ndarray) else ()
        return _checked_spacing(found, file.path)

    def _check_arrays(self, file: SafeFile, cases: int, raters: int) -> None:
        images, masks = file.array("images"), file.array("masks")
        if images.ndim != 4 or masks.ndim not in (4, 5) or images.shape[2:] != masks.shape[-2:]:
            raise UserError(
                f"{file.path}: 'images' has shape {by(images.shape)} and 'masks' {by(masks.shape)}; they must be "
                f"N×C×H×W and N×R×H×W, or N×R×K×H×W for overlapping classes"
            )
        if images.shape[0] != cases or masks.shape[:2] != (cases, raters):
            raise UserError(
                f"{file.path}: 'images' has shape {by(images.shape)} and 'masks' {by(masks.shape)}, but there are "
                f"{cases} case ids and {raters} rater ids"
            )
        if not (images.dtype.kind == "f" or images.dtype == np.uint8):
            raise UserError(
                f"{file.path}: 'images' is of {images.dtype}; store float32 (used as it is) or uint8 (divided by 255)"
            )
        if masks.dtype not in (np.uint8, np.bool_):
            raise UserError(f"{file.path}: 'masks' is of {masks.dtype}; store uint8")
        sizes = {"channels": images.shape[1], "raters": raters, "classes": len(self.class_names)}
        for what, value in {**sizes, "side": max(images.shape[2:])}.items():
            if value > _MOST[what]:
                raise UserError(f"{file.path}: {value} is too large for {what}; at most {_MOST[what]} are read")

    def _optional(self, file: SafeFile, name: str, cases: int) -> Any:
        if name not in file.names():
            return None
        if name == "slice":
            return file.numbers(name, "iu", (cases,))
        if name == "spacing":
            array = file.array(name)
            shape = (cases, array.shape[-1]) if array.ndim else ()
            values = file.numbers(name, "f", shape)
            return [None if np.isnan(v).all() else _checked_spacing(tuple(map(float, v)), file.path) for v in values]
        texts = file.strings(name)
        if len(texts) != cases:
            raise UserError(f"{file.path}: {name!r} has {len(texts)} rows, but 'case_id' has {cases}")
        wrong = [t for t in texts if t not in (*PARTS, "")] if name == "part" else []
        if wrong:
            raise UserError(f"{file.path}: 'part' holds {wrong[0]!r}; it may be train, val, test or empty")
        return texts

    def _check_volumes(self, file: SafeFile, columns: Mapping[str, Any], ids: list[str]) -> None:
        volumes, slices = columns["volume"], columns["slice"]
        if (volumes is None) != (slices is None):
            raise UserError(f"{file.path} has only one of 'volume' and 'slice'; a slice of a volume needs both")
        if volumes is None:
            return
        places: dict[tuple[str, int], str] = {}
        for case, volume, number in zip(ids, volumes, slices, strict=True):
            other = places.setdefault((volume, int(number)), case) if volume else case
            if other != case or (volume and number < 0):
                why = f"and case {other!r} are both slice" if other != case else "is slice"
                raise UserError(f"{file.path}: case {case!r} {why} {number} of volume {volume!r}; number slices from 0")

    # -- decoding -------------------------------------------------------------------------------

    def decode(self, raw: RawCase) -> Decoded:
        row, valid, spacing = raw.handle
        path = raw.files[0]
        with self._lock:  # HDF5 has one lock of its own, so that threads gain nothing
            if self._open is None:
                self._open = SafeFile(path)
                self._arrays = self._open.array("images"), self._open.array("masks")
            with self._open.naming():
                image, masks = (array[row] for array in self._arrays)
        image = np.asarray(image, np.float32) / np.float32(255) if image.dtype == np.uint8 else image.astype(np.float32)
        if not np.isfinite(image).all():
            raise UserError(f"{path}: the image of case {raw.case_id!r} is not finite (NaN or infinite); replace it")
        masks = masks.astype(np.uint8)
        most = 1 if self.overlapping else len(self.class_names)
        if masks.max() > most:
            raise UserError(
                f"{path}: the masks of case {raw.case_id!r} hold the value {masks.max()}, but {most} is the largest "
                f"allowed; attribute 'class_names' names the classes"
            )
        drawn = masks.reshape(len(masks), -1).any(1) & ~valid
        if drawn.any():
            rater = self.rater_names[int(np.argmax(drawn))]
            raise UserError(
                f"{path}: rater {rater!r} has a mask of case {raw.case_id!r}, but is not valid there; empty the mask "
                f"or set 'valid'"
            )
        return Decoded(image, masks, valid, spacing)

    def build(self, folder: Path, progress: Progress) -> None:
        try:
            super().build(folder, progress)
        finally:
            if self._open is not None:
                self._open.close()
                self._open = None

    def rater_order(self, store: ArrayStore) -> tuple[np.ndarray, tuple[str, ...], Identity]:
        order, ids, identity = super().rater_order(store)
        made = self.declared == "synthetic" and self.options["identity"] == "as_stored"
        return order, ids, "synthetic" if made else identity

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        parts: dict[str, list[int]] = {}
        for row, record in enumerate(self.store.records):
            if part := record["meta"].get("part"):
                parts.setdefault(part, []).append(row)
        if not parts:
            raise UserError(f"{self.root} stores no 'part' of the cases; use --set dataset.split=cv4")
        return parts


def _checked_spacing(found: tuple[float, ...], path: Path) -> tuple[float, ...]:
    if len(found) not in (2, 3) or not all(np.isfinite(found)) or min(found) <= 0:
        raise UserError(
            f"{path}: the spacing is {_shown(found)}; give millimetres (row, column), or (slice, row, column)"
        )
    return found


def _shown(value: Any) -> str:
    return "missing" if value is None else ascii(value)[:60]
