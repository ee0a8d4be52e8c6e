"""Predictions of new images as NIfTI, PNG and npz files, and the record that says where they come from."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from ..core.files import write_bytes, write_json
from .predict_images import PERCENTILES, NewImage, Predicted, Scaling, predict_image, read_image

_EXACT = 1e-3  # a resized image may leave [0, 1] by that much
FORMATS = ("nifti", "png", "npz")


def predict_files(
    cell: Path,
    images: Sequence[Path],
    out: Path,
    *,
    n_samples: int | None = None,
    formats: Sequence[str] = (),
    window: tuple[float, float] | None = None,
    seed: int = 0,
    stretch: bool = False,
    device: str = "cpu",
    tick: Callable[[Path], None] = lambda folder: None,
    say: Callable[[str], None] = lambda sentence: None,
) -> list[Path]:
    """Predict images and write ``OUT/<image>/``: what the method gives of samples, maps for the readers, mean map.

    Args:
        cell: folder of a trained cell.
        images: files to predict.
        out: where to write; one folder an image.
        n_samples: S; None: as many as the cell's evaluation used.
        formats: of `FORMATS`; none: NIfTI for NIfTI images and PNG for others, and npz for all.
        window: grey values that become 0 and 1; None: as the cell's data set has it, else by type and values of each
            image (`Scaling`).
        seed: of the draws, which depend on it and the image's name alone.
        stretch: allow images of another shape.
        device: where to compute.
        tick: called with each folder that is finished.
        say: called with a sentence where an image was scaled by its own values.

    Returns:
        The folders written.

    Raises:
        UserError: a cell without weights, a file that cannot be read, images of one name, an unknown format, a window
            that does not rise.
    """
    import torch

    from .cell import Cell
    from .worker import load_cell

    _check(images, formats, window)
    method = load_cell(cell, device)
    spec = Cell(Path(cell)).spec
    if n_samples is None:
        n_samples = int(spec["eval"]["n_samples"])
    scaling = _scaling(spec, window)
    written = []
    for path in images:
        image = read_image(path, method.data.channels, scaling)
        if image.rule == PERCENTILES:
            both = f"grey values {image.low:g} and {image.high:g}, became 0 and 1"
            did = both if image.low < image.high else f"both grey value {image.low:g}, became 0 like all others"
            say(f"{path}: its {PERCENTILES}, {did}; --window LOW HIGH sets others")
        found = predict_image(method, image, n_samples, seed, torch.device(device), stretch)
        folder = out / image.name
        chosen = formats or ("nifti" if path.name.lower().endswith((".nii", ".nii.gz")) else "png", "npz")
        files = [name for form in chosen for name in _WRITERS[form](folder, image, found)]
        write_json(
            folder / "prediction.json",
            {
                "image": path.name,
                "cell": Cell(Path(cell).resolve()).path,
                "method": spec["method"],
                "data": {k: spec["dataset"].get(k) for k in ("name", "fingerprint", "notice", "identity")},
                "seed": seed,
                "n_samples": 0 if found.samples is None else len(found.samples),
                "raters": list(found.rater_ids),
                "window": scaling.window,
                "scaling": {"low": image.low, "high": image.high, "rule": image.rule},
                "size": {"image": list(image.planes[0].shape[1:]), "network": list(method.data.size)},
                "files": sorted(files),
            },
        )
        tick(folder)
        written.append(folder)
    return written


def _check(images: Sequence[Path], formats: Sequence[str], window: tuple[float, float] | None) -> None:
    from ..core.errors import unknown

    for form in formats:
        if form not in FORMATS:
            raise unknown("format of predictions", form, FORMATS)
    if not images:
        raise UserError("no image given; name at least one file to predict")
    if window and not window[0] < window[1]:
        raise UserError(f"--window {window[0]:g} {window[1]:g} is not allowed: give two rising numbers")
    names: dict[str, Path] = {}
    for path in images:
        if not path.is_file():
            raise UserError(f"{path} does not exist or is no file; give images to predict")
        name = NewImage(path, []).name
        if name in names:
            raise UserError(f"{names[name]} and {path} have one name; their results would overwrite each other")
        names[name] = path


def _scaling(spec: dict[str, Any], window: tuple[float, float] | None) -> Scaling:
    """What the cell's data set says of the values of its images."""
    from ..datasets import open_dataset
    from ..datasets.listed_files import ListedFiles

    dataset = open_dataset(spec["dataset"]["name"], **spec["dataset"]["options"])
    images = dataset.arrays([0, len(dataset) // 2, len(dataset) - 1])[0]
    low, high = float(images.min()), float(images.max())
    return Scaling(
        window or dataset.window,
        "--window" if window else "window of the cell's data set",
        dataset.reading.channels if isinstance(dataset, ListedFiles) else "",
        isinstance(dataset, ListedFiles),
        f"which are not in [0, 1] but reach from {low:.3g} to {high:.3g}" if low < -_EXACT or high > 1 + _EXACT else "",
    )


# -- writers ---------------------------------------------------------------------------------------


def _nifti(folder: Path, image: NewImage, found: Predicted) -> list[str]:
    """``mean``, ``samples``, ``raters`` (probabilities), ``rater_masks`` on the image's grid; S or R is axis 4."""
    arrays: dict[str, NDArray[Any]] = {"mean": _last(found.mean[None])}
    if found.samples is not None:
        arrays["samples"] = _last(found.samples)
    if found.raters is not None and found.rater_masks is not None:
        arrays |= {"raters": _last(found.raters), "rater_masks": _last(found.rater_masks)}
    for name, array in arrays.items():
        write_bytes(folder / f"{name}.nii.gz", _nifti_bytes(image, array))
    return [f"{name}.nii.gz" for name in arrays]


def _last(array: NDArray[Any]) -> NDArray[Any]:
    """N×D×[C×]H×W (or N×K×D×H×W of masks) as D×H×W×(all others)."""
    if array.ndim == 4:
        return np.moveaxis(array, 0, -1)
    if array.dtype == np.bool_:  # overlapping masks: the class stands before the slice
        array = np.moveaxis(array, 1, 2)
    moved = np.moveaxis(array, (1, 3, 4), (0, 1, 2))  # D, H, W, N, C
    return moved.reshape(*moved.shape[:3], -1)


def _nifti_bytes(image: NewImage, array: NDArray[Any]) -> bytes:
    import nibabel

    array = array.astype(np.float32 if array.dtype.kind == "f" else np.uint8)
    if image.volume is not None and image.layout is not None:
        stored = np.empty((*image.volume.stored[:3], array.shape[3]), array.dtype)
        view = stored.transpose(*image.layout.axes, 3)
        view[tuple(slice(None, None, -1 if flip else 1) for flip in image.layout.flips)] = array
        affine = image.volume.affine
    else:
        stored = array.transpose(2, 1, 0, 3)
        row, column = image.spacing or (1.0, 1.0)
        affine = np.diag([column, row, 1.0, 1.0])
    nifti = nibabel.Nifti1Image(stored if stored.shape[3] > 1 else stored[..., 0], affine)
    return gzip.compress(nifti.to_bytes(), mtime=0)  # without a date: equal predictions are equal files


def _png(folder: Path, image: NewImage, found: Predicted) -> list[str]:
    """8-bit maps (255 is probability 1) and masks (0 and 255, or class numbers), one file a slice."""
    files: dict[str, NDArray[Any]] = {}
    depth = len(found.mean)

    def add(name: str, planes: NDArray[Any]) -> None:
        """Slices D×[C×]H×W of one map or mask."""
        for d in range(depth):
            mark = f"{name}_slice{d:03d}" if depth > 1 else name
            if planes.ndim == 3:
                files[mark] = planes[d]
            else:
                files.update({f"{mark}_class{c}": plane for c, plane in enumerate(planes[d])})

    add("mean", found.mean)
    for prefix, masks, names in (
        (
            "sample",
            found.samples,
            [f"{s + 1:03d}" for s in range(len(found.samples) if found.samples is not None else 0)],
        ),
        ("rater", found.rater_masks, [_safe(r) for r in found.rater_ids]),
    ):
        if masks is not None:
            for name, mask in zip(names, masks, strict=True):
                add(f"{prefix}_{name}", np.moveaxis(mask, 0, 1) if mask.ndim == 4 else mask)
    for rater, maps in zip(found.rater_ids, () if found.raters is None else found.raters, strict=bool(found.rater_ids)):
        add(f"rater_{_safe(rater)}_probability", maps)
    for name, values in files.items():
        write_bytes(folder / f"{name}.png", _png_bytes(values))
    return [f"{name}.png" for name in files]


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name)


def _png_bytes(values: NDArray[Any]) -> bytes:
    from PIL import Image

    if values.dtype.kind == "f":
        values = np.round(values * 255)
    elif values.dtype == np.bool_:
        values = values * np.uint8(255)
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def _npz(folder: Path, image: NewImage, found: Predicted) -> list[str]:
    """``prediction.npz``: mean, samples, raters, rater_masks, rater_ids; a picture has no slice axis."""
    arrays: dict[str, NDArray[Any]] = {"mean": found.mean, "rater_ids": np.array(found.rater_ids, dtype=np.str_)}
    arrays |= {k: v for k in ("samples", "raters", "rater_masks") if (v := getattr(found, k)) is not None}
    if image.volume is None:
        axis = {"mean": 0, "samples": -3, "raters": 1, "rater_masks": -3}
        arrays = {k: v.squeeze(axis[k]) if k in axis else v for k, v in arrays.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(folder / "prediction.npz", buffer.getvalue())
    return ["prediction.npz"]


_WRITERS: dict[str, Callable[[Path, NewImage, Predicted], list[str]]] = {"nifti": _nifti, "png": _png, "npz": _npz}
