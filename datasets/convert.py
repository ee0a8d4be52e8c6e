"""Pickles of the Probabilistic U-Net and MedicalMatting kinds as one HDF5 file of the `hdf5` data set.

Nothing of a pickle is executed (`safe_pickle`). A file of that kind is a dict of cases, each a dict with ``image``,
``masks`` (one a rater) and mostly ``series_uid``; further keys (``alpha``) are left out.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import replacing
from ..core.hashing import file_digest
from .case_pickles import case_entries
from .lidc_pickles import known_scans
from .safe_pickle import StoredArray
from .volume_files import by, codes

Progress = Callable[[int, int, str], None]
_MOST_RATERS = 256


@dataclasses.dataclass(frozen=True)
class Entry:
    """One case of a pickle, its arrays still in the file."""

    path: Path
    key: str
    image: StoredArray
    masks: tuple[StoredArray, ...] | StoredArray
    patient: str
    spacing: float | None


def convert_pickles(
    paths: Sequence[Path],
    out: Path,
    *,
    identity: str = "none",
    licence: str = "",
    progress: Progress = lambda done, total, what: None,
) -> dict[str, Any]:
    """Write the cases of `paths`, in their order, as one HDF5 file.

    Images of bytes stay bytes, others become float32. The patient is the LIDC patient where ``series_uid`` is one of a
    known scan, else its part before the first ``_``, else the case itself.

    Args:
        identity: what a rater slot means: ``none`` or ``consistent``.

    Returns:
        Numbers of cases, raters, patients, the shape of an image, keys left out with their counts, and cases without
        ``series_uid``.

    Raises:
        UserError: what is wrong with which file and case. Nothing is written then.
    """
    import h5py

    entries, ignored, nameless = _list(paths)
    first, planes = _read(entries[0])
    raters, shape = len(planes), first.shape
    with replacing(out) as temporary, h5py.File(temporary, "w") as file:
        kind = np.uint8 if first.dtype == np.uint8 else np.float32
        packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        images = file.create_dataset("images", (len(entries), *shape), kind, chunks=(1, *shape), **packed)
        size = (raters, *shape[1:])
        masks = file.create_dataset("masks", (len(entries), *size), np.uint8, chunks=(1, *size), **packed)
        for row, entry in enumerate(entries):
            progress(row, len(entries), entry.key)
            image, planes = (first, planes) if row == 0 else _read(entry)
            _check(entry, image, planes, first, raters, entries[0])
            images[row], masks[row] = image.astype(kind, copy=False), planes
        file["valid"] = np.ones((len(entries), raters), bool)
        ids = {"case_id": [e.key for e in entries], "patient_id": [e.patient for e in entries]}
        for name, texts in {**ids, "rater_id": [str(r + 1) for r in range(raters)]}.items():
            file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
        if any(e.spacing for e in entries):
            spacing = [[e.spacing or np.nan] * 2 for e in entries]
            file["spacing"] = np.array(spacing, np.float64)
        file.attrs["identity"] = identity
        if licence:
            file.attrs["licence"] = licence
        file.attrs["source"] = [f"{path.name} sha256 {file_digest(path)}" for path in paths]
    progress(len(entries), len(entries), "done")
    return {
        "file": str(out),
        "cases": len(entries),
        "patients": len(set(ids["patient_id"])),
        "raters": raters,
        "image": list(shape),
        "dtype": np.dtype(kind).name,
        "left_out_keys": dict(sorted(ignored.items())),
        "cases_without_series_uid": nameless,
    }


def _list(paths: Sequence[Path]) -> tuple[list[Entry], Counter[str], int]:
    entries: dict[str, Entry] = {}
    ignored: Counter[str] = Counter()
    nameless = 0
    for path in paths:
        for key, value in case_entries(path):
            if key in entries:
                raise UserError(
                    f"case {key!r} is in {entries[key].path} and again in {path}; convert them apart, or remove one"
                )
            masks = value["masks"]
            stack = tuple(masks) if isinstance(masks, (list, tuple)) else masks
            one_each = isinstance(stack, tuple) and 0 < len(stack) <= _MOST_RATERS
            arrays = (value["image"], *stack) if one_each else (value["image"], stack)
            if not all(isinstance(array, StoredArray) for array in arrays):
                raise UserError(f"{path} holds case {key!r} whose image or masks are no arrays; restore the file")
            uid = value.get("series_uid")
            nameless += not uid
            if uid is not None and (not isinstance(uid, str) or not uid.isprintable() or len(uid) > 255):
                raise UserError(f"{path} holds case {key!r} with the series_uid {ascii(uid)[:60]}; it must be a text")
            entries[key] = Entry(path, key, value["image"], stack, *_patient(uid, key))
            ignored.update(str(k) for k in value if k not in ("image", "masks", "series_uid"))
    return list(entries.values()), ignored, nameless


def _patient(uid: str | None, key: str) -> tuple[str, float | None]:
    """Patient and pixel size: of the scan, if it is one of LIDC."""
    if not uid:
        return key, None
    scans: Mapping[str, tuple[str, float]] = known_scans()
    return scans.get(uid.rpartition(".")[2].partition("_")[0], (uid.partition("_")[0] or uid, None))


def _read(entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    """Image C×H×W and masks R×H×W in {0, 1}."""
    image = entry.image.read()
    stacked = [entry.masks.read()] if isinstance(entry.masks, StoredArray) else [m.read() for m in entry.masks]
    where = f"{entry.path} holds"
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)) or not image.size:
        raise UserError(
            f"{where} an image of shape {by(image.shape) or '()'} in case {entry.key!r}; H×W or H×W×3 are read"
        )
    if image.dtype.kind not in "buif" or (image.dtype.kind == "f" and not np.isfinite(image).all()):
        what = "values that are not finite" if image.dtype.kind == "f" else f"values of {image.dtype}"
        raise UserError(f"{where} an image with {what} in case {entry.key!r}; restore the file")
    size = image.shape[:2]
    planes = list(stacked[0]) if isinstance(entry.masks, StoredArray) and stacked[0].ndim == 3 else stacked
    for plane in planes:
        if plane.shape != size or plane.dtype.kind not in "buif":
            raise UserError(
                f"{where} a mask of shape {by(plane.shape) or '()'} and {plane.dtype} for an image of {by(size)} in "
                f"case {entry.key!r}; a mask must have the size of its image"
            )
        if plane.dtype.kind == "f" and not np.isfinite(plane).all():
            raise UserError(f"{where} a mask with values that are not finite in case {entry.key!r}; restore the file")
    try:
        labels = np.stack([codes(plane, {0: 0, 1: 1}, entry.path) for plane in planes])
    except UserError as error:
        raise UserError(f"{error} (case {entry.key!r})") from error
    return np.moveaxis(image[..., None] if image.ndim == 2 else image, 2, 0), labels


def _check(entry: Entry, image: np.ndarray, masks: np.ndarray, first: np.ndarray, raters: int, other: Entry) -> None:
    for what, found, wanted in (
        ("image", by(image.shape), by(first.shape)),
        ("number of masks", len(masks), raters),
        ("type of image", image.dtype, first.dtype),
    ):
        if found != wanted:
            raise UserError(
                f"{entry.path}: {what} of case {entry.key!r} is {found}, but of case {other.key!r} it is {wanted}; one "
                f"file holds cases of one kind"
            )
