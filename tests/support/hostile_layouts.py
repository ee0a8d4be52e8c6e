"""Miniatures of every layout for the attacks of ``test_hostile_files.py``: how each is written and prepared.

Those of the challenges are the miniatures of the tests of these data sets.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as remembered
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
from PIL import Image

TESTS = Path(__file__).parents[1] / "datasets"


@remembered
def writers(name: str) -> Any:
    """The module of the tests of a data set, for its miniatures."""
    spec = importlib.util.spec_from_file_location(f"writers_of_{name}", TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def image(seed: int, shape: tuple[int, ...] = (20, 24)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def mask(seed: int, shape: tuple[int, ...] = (20, 24)) -> np.ndarray:
    out = np.zeros(shape, np.uint8)
    out[..., 4 : 9 + seed % 5, 5:14] = 1
    return out


def pictures(root: Path, suffix: str) -> None:
    for i in range(4):
        for name, values in (("image", image(i)), ("rater_1", mask(i + 1)), ("rater_2", mask(i + 2))):
            path = root / f"c{i}" / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix == ".npy":
                np.save(path, values)
            elif suffix.startswith(".nii"):
                nibabel.save(nibabel.Nifti1Image(values.T, np.diag([0.5, 0.5, 1, 1])), path)
            else:
                Image.fromarray(values if name == "image" else values * 255).save(path)
    patterns = f"image: '{{case}}/image{suffix}'\nmask: '{{case}}/rater_{{rater}}{suffix}'\n"
    (root / "multirater.yaml").write_text(patterns + "identity: consistent\n")


def volumes(root: Path) -> None:
    for i in range(3):
        (root / f"v{i}").mkdir(parents=True)
        for name, values in (("image", image(i, (24, 20, 4))), ("rater_1", mask(1, (4, 20, 24)).T)):
            nibabel.save(nibabel.Nifti1Image(values, np.diag([0.5, 0.5, 3, 1])), root / f"v{i}" / f"{name}.nii.gz")
    (root / "multirater.yaml").write_text("image: '{case}/image.nii.gz'\nmask: '{case}/rater_{rater}.nii.gz'\n")


def listed(root: Path) -> None:
    entries = []
    root.mkdir(exist_ok=True)
    for i in range(4):
        Image.fromarray(image(i)).save(root / f"{i}.png")
        Image.fromarray(mask(i)).save(root / f"{i}_m.png")
        entries.append({"image": f"{i}.png", "labels": {"a": f"{i}_m.png"}, "patient": f"p{i}"})
    (root / "cases.json").write_text(json.dumps(entries))


def one_file(root: Path) -> None:
    root.mkdir(exist_ok=True)
    with h5py.File(root / "data.h5", "w") as file:
        file.create_dataset("images", data=np.stack([image(i) for i in range(5)])[:, None], chunks=(1, 1, 20, 24))
        masks = np.stack([[mask(i), mask(i + 1)] for i in range(5)])
        file.create_dataset("masks", data=masks, chunks=(1, 2, 20, 24), compression="gzip")
        file["valid"] = np.ones((5, 2), bool)
        for name, ids in (("case_id", "abcde"), ("patient_id", "abcde"), ("rater_id", "xy")):
            file.create_dataset(name, data=list(ids), dtype=h5py.string_dtype())
        file.attrs["identity"] = "none"


def npc(root: Path) -> None:
    module = writers("test_npc_dataset")
    for patient in range(3):
        module.h5(root / f"training_2d/Sample_{patient}_slice_9.h5", (20, 16))
    module.h5(root / "validation/7.h5", (4, 20, 16))
    module.h5(root / "testing/8.h5", (4, 20, 16))


def lidc(writer: str, file: str = "", **options: Any) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        root.mkdir(exist_ok=True)
        getattr(writers("test_lidc_preparations"), writer)(root / file if file else root, **options)

    return write


def mose(root: Path) -> None:
    root.mkdir(exist_ok=True)
    module = writers("test_lidc_preparations")
    module.mose(root, module.phiseg(root / "source.h5"))
    (root / "source.h5").unlink()


def riga(root: Path) -> None:
    root.mkdir(exist_ok=True)
    for source, numbers in (("BinRushed", range(2)), ("MESSIDOR", range(10, 12)), ("Magrabia", range(20, 22))):
        writers("test_riga_dataset").discregion(root, source, numbers)


def curvas(root: Path) -> None:
    for part, number in (("training", 1), ("validation", 2), ("testing", 3)):
        writers("test_curvas_dataset").case(root, part, number)


def matting(root: Path) -> None:
    root.mkdir(exist_ok=True)
    writers("test_qubiq_dataset")._matting(root / "brain_growth_alpha.pkl")


@dataclass(frozen=True)
class Layout:
    """A miniature: how it is written, how it is prepared, and which files are damaged."""

    write: Callable[[Path], None]
    dataset: str
    files: str  # pattern of the files to damage
    options: tuple[str, ...] = ()
    root: str = ""

    @property
    def suffix(self) -> str:
        """Of the files to damage."""
        return ".nii.gz" if self.files.endswith(".nii.gz") else Path(self.files).suffix


LAYOUTS = {
    **{
        f"folder {s}": Layout(lambda root, s=s: pictures(root, s), "folder", f"*/*{s}")
        for s in (".png", ".tif", ".jpg", ".bmp", ".gif", ".npy", ".nii", ".nii.gz")
    },
    "folder yaml": Layout(lambda root: pictures(root, ".png"), "folder", "multirater.yaml"),
    "volumes": Layout(volumes, "folder", "*/*.nii.gz"),
    "manifest": Layout(listed, "manifest", "cases.json", root="cases.json"),
    "manifest png": Layout(listed, "manifest", "*.png", root="cases.json"),
    "hdf5": Layout(one_file, "hdf5", "data.h5", root="data.h5"),
    "npc": Layout(npc, "npc", "*/*.h5", ("size=null",)),
    "lidc mm": Layout(lidc("matting_pickle", "lidc_attributes.pkl"), "lidc", "*.pkl"),
    "lidc pickle": Layout(lidc("unet_pickle", "data.pickle", count=4), "lidc", "*.pickle", ("preparation=pickle",)),
    "lidc hdf5": Layout(lidc("phiseg", "data_lidc.hdf5"), "lidc", "*.hdf5", ("preparation=hdf5",)),
    "lidc npy": Layout(mose, "lidc", "*/*/*.npy", ("preparation=npy",)),
    "lidc png": Layout(lidc("crops"), "lidc", "**/*.png", ("preparation=png", "crop=null")),
    "lidc jpg": Layout(lidc("cimd"), "lidc", "**/*.jpg", ("preparation=jpg",)),
    "qubiq": Layout(lambda r: writers("test_qubiq_dataset").brain_growth(r), "qubiq", "**/*.nii.gz", ("size=null",)),
    "qubiq pickle": Layout(matting, "qubiq", "*.pkl", ("size=null",)),
    "curvas24": Layout(curvas, "curvas24", "**/*.nii.gz", ("size=null",)),
    "riga": Layout(riga, "riga", "**/Rater*/*.tif", ("size=null",)),
    "riga csv": Layout(riga, "riga", "*.csv", ("size=null",)),
    "gleason2019": Layout(
        lambda r: writers("test_gleason2019_dataset").challenge(r, slides=(1, 2)), "gleason2019", "**/*.png",
        ("size=null",),
    ),
    "bu-bil": Layout(
        lambda r: writers("test_bu_bil_dataset").library(r), "bu-bil", "**/ExpertsAnnotations/Person[134]_ImageJ/*.png",
        ("size=null",),
    ),
    "chase_db1": Layout(
        lambda r: writers("test_retina_dataset").chase(r, children=(1, 2)), "retina", "*.png", ("size=null",)
    ),
    "stare": Layout(lambda r: writers("test_retina_dataset").stare(r, count=2), "retina", "**/*.gz", ("size=null",)),
    "refuge-mr": Layout(
        lambda r: writers("test_disc_cup_datasets").refuge(r, count=1), "refuge-mr", "**/*_seg_*.png", ("size=null",)
    ),
    "chaksu": Layout(lambda r: writers("test_disc_cup_datasets").archives(r), "chaksu", "*.zip", ("size=null",)),
    "lidc dicom": Layout(
        lambda r: writers("test_lidc_dicom").one_scan(r), "lidc", "**/*.dcm", ("preparation=dicom",)
    ),
}  # fmt: skip
