"""Hostile files of every format: each ends in one sentence with the file's name, nothing runs, nothing is left over.

Miniatures of the layouts are those of the tests beside this one. Every case damages one file of a fresh miniature by
one mutation and calls ``multirater prepare`` in this process. The default suite runs a part of the cases, `slow` all.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import io
import json
import os
import pickle
import resource
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache as remembered
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
from multirater.benchmark.cli import main
from PIL import Image

HERE = Path(__file__).parent
PART = 6  # the default suite takes one case in so many
MOST_MEMORY = 1 << 20  # KiB that the process may grow by over all cases


@remembered
def writers(name: str) -> Any:
    """The module of a test beside this one, for its miniatures."""
    spec = importlib.util.spec_from_file_location(f"writers_of_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# -- layouts --------------------------------------------------------------------------------------


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
}  # fmt: skip

# -- mutations ------------------------------------------------------------------------------------


class Canary:
    """Leaves a file if it is ever unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


def malicious(canary: Path) -> dict[str, bytes]:
    """Pickles that leave the canary if they are executed, by kind."""
    code = f"open({str(canary)!r}, 'w').close()"
    shell = f"touch {canary}".encode()
    kinds = {
        "os.system": pickle.dumps({"x": Canary(os.system, f"touch {canary}")}),
        "eval": pickle.dumps({"x": {"image": Canary(eval, code), "masks": []}}, protocol=4),
        "exec in a list": pickle.dumps([Canary(exec, code)], protocol=5),
        "as a key": pickle.dumps({("k", Canary(exec, code)): 1}, protocol=2),
        "object array": pickle.dumps({"x": {"image": np.array([Canary(exec, code)], object), "masks": []}}),
        "INST": b"(S'" + shell + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + shell + b"'\no.",
        "NEWOBJ": b"\x80\x02cos\nsystem\nS'" + shell + b"'\n\x85\x81.",
        "BUILD": b"\x80\x02cmultirater.core.errors\nUserError\n)R}S'x'\nS'y'\nsb.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93S'" + shell + b"'\n\x85R.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0fcore.os.system\x93S'" + shell + b"'\n\x85R.",
        "getattr": b"\x80\x03cbuiltins\ngetattr\ncos\nX\x06\x00\x00\x00system\x86R(X\x04\x00\x00\x00true\x85R.",
        "persistent id": b"\x80\x02Pevil\n.",
        "extension": b"\x80\x02\x82\x01.",
        "numpy.load": b"\x80\x02cnumpy\nload\nS'x'\n\x85R.",
        "importlib": b"\x80\x02cimportlib\nimport_module\nS'antigravity'\n\x85R.",
        "two globals": b"\x80\x02cnumpy\nndarray\n0cos\nsystem\nS'" + shell + b"'\n\x85R.",
        "deep": b"\x80\x02" + b"(" * 100_000 + b"." + b"t" * 10,
        "nested tuples": b"\x80\x02)" + b"\x85" * 300_000 + b".",
        "laughs": b"\x80\x02]q\x00" + b"".join(b"]q\x01(" + b"h\x00" * 50 + b"eq\x00" for _ in range(40)) + b".",
        "huge string": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
        "huge memo": b"\x80\x02Nr\xff\xff\xff\xff.",
        "huge long": b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"\x01.",
        "no stop": pickle.dumps({"a": 1})[:-1],
    }
    huge = pickle.dumps({"x": {"image": np.zeros((2, 2)), "masks": [np.zeros((2, 2))] * 4}}, protocol=2)
    return {**kinds, "huge shape": huge.replace(b"K\x02K\x02\x86", b"J\xff\xff\xff\x7fK\x02\x86", 1)}


def png_header(width: int, height: int) -> bytes:
    """A PNG of zeros that announces so many pixels and stores as good as none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def nifti(values: np.ndarray, suffix: str, **header: Any) -> bytes:
    made = nibabel.Nifti1Image(values, np.eye(4))
    raw = bytearray(made.to_bytes())
    if "dim" in header:
        raw[40:56] = struct.pack("<8h", *header["dim"])
    return gzip.compress(bytes(raw)) if suffix.endswith(".gz") else bytes(raw)


def with_h5(path: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def first_array(file: h5py.File) -> str:
    found: list[str] = []
    file.visititems(lambda name, node: found.append(name) if isinstance(node, h5py.Dataset) and node.ndim > 1 else None)
    return found[0]


def replaced(make: Callable[[h5py.Dataset], dict[str, Any]]) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        name = first_array(file)
        options = make(file[name])
        del file[name]
        file.create_dataset(name, **options)

    return lambda path: with_h5(path, change)


def linked(kind: str) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        name = first_array(file)
        shape = file[name].shape
        del file[name]
        if kind == "external":
            file[name] = h5py.ExternalLink("/etc/passwd", "/")
        elif kind == "soft":
            file[name] = h5py.SoftLink("/" + name)
        elif kind == "storage":
            file.create_dataset(name, shape, "u1", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
        else:
            layout = h5py.VirtualLayout(shape, "u1")
            layout[...] = h5py.VirtualSource("/etc/hostname", "x", shape)
            file.create_virtual_dataset(name, layout)

    return lambda path: with_h5(path, change)


@dataclass(frozen=True)
class Mutation:
    """What is done to one file; `harmless` if the file may still be readable afterwards."""

    name: str
    apply: Callable[[Path], None]
    harmless: bool = False


def cut(share: float) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def flipped(seed: int, bits: int, head: bool = False) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        raw = np.frombuffer(path.read_bytes(), np.uint8).copy()
        draw = np.random.default_rng(seed)
        where = draw.integers(0, min(len(raw), 64) if head else len(raw), bits)
        raw[where] ^= (1 << draw.integers(0, 8, bits)).astype(np.uint8)
        path.write_bytes(raw.tobytes())

    return apply


def written(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def link_loop(path: Path) -> None:
    path.unlink()
    other = path.with_name("loop_" + path.name)
    other.symlink_to(path.name)
    path.symlink_to(other.name)


def link_to(target: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return apply


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def of_any_file() -> list[Mutation]:
    return [
        *(Mutation(f"cut to {s:.0%}", cut(s), s > 0.5) for s in (0, 0.02, 0.3, 0.6, 0.97)),
        *(Mutation(f"{b} bits flipped, {s}", flipped(s, b), True) for s, b in ((0, 1), (1, 1), (2, 20), (3, 200))),
        *(Mutation(f"{b} bits of the head flipped, {s}", flipped(s, b, True), True) for s, b in ((4, 1), (5, 4))),
        Mutation("zeros", lambda p: written(bytes(p.stat().st_size))(p)),
        Mutation("noise", written(np.random.default_rng(0).bytes(5000))),
        Mutation("text", written(b"<html>404 not found</html>\n")),
        Mutation("a zip archive", written(_zip_bomb())),
        Mutation("garbage at the end", lambda p: written(p.read_bytes() + b"\x00garbage" * 9)(p), True),
        Mutation("a loop of links", link_loop, True),
        Mutation("a link to nothing", link_to("not/there"), True),
        Mutation("a link to an endless device", link_to("/dev/zero"), True),
        Mutation("a folder", as_folder, True),
        Mutation("a pipe", pipe, True),
    ]


@remembered
def _zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped.png", bytes(1 << 22))
        archive.writestr("/tmp/escaped.npy", b"x")
    return stream.getvalue()


def of_kind(name: str, suffix: str, canary: Path) -> list[Mutation]:
    """Mutations that only files of this kind can have."""
    if suffix in (".pkl", ".pickle"):
        return [Mutation(f"pickle: {kind}", written(raw)) for kind, raw in malicious(canary).items()]
    if suffix == ".npy":
        evil = io.BytesIO()
        np.save(evil, np.array([Canary(exec, f"open({str(canary)!r}, 'w').close()")], object), allow_pickle=True)
        wrong = {"complex": np.ones((20, 24), complex), "text": np.array([["a"]]), "nan": np.full((20, 24), np.nan)}
        wrong |= {"four axes": np.zeros((2, 2, 2, 2)), "empty": np.zeros((0, 4)), "a scalar": np.array(3.0)}
        wrong["a record"] = np.zeros((4, 4), [("a", "i4")])
        return [
            Mutation("npy: object array", written(evil.getvalue())),
            Mutation(
                "npy: huge header", written(npy("{'descr':'<f8','fortran_order':False,'shape':(1000000,1000000)}"))
            ),
            Mutation("npy: negative", written(npy("{'descr':'<f8','fortran_order':False,'shape':(-1,4)}", bytes(64)))),
            Mutation("npy: code in the header", written(npy("__import__('os').system('true')"))),
            Mutation("npy: bomb", written(_npz_bomb())),
            *(Mutation(f"npy: {what}", lambda p, v=v: np.save(p, v)) for what, v in wrong.items()),
        ]
    if suffix == ".png":
        two = io.BytesIO()
        Image.new("L", (24, 20)).save(two, "PNG", save_all=True, append_images=[Image.new("L", (24, 20), 9)])
        return [
            Mutation("png: 60000×60000", written(png_header(60000, 60000))),
            Mutation("png: 2147483647 wide", written(png_header(2147483647, 1))),
            Mutation("png: 4000×4000 of which little is there", written(png_header(4000, 4000))),
            Mutation("png: animated", written(two.getvalue())),
        ]
    if suffix in (".nii", ".nii.gz"):
        plain = np.zeros((24, 20), np.uint8)
        rgb = np.zeros((24, 20), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        return [
            Mutation("nii: huge", written(nifti(plain, suffix, dim=(3, 32000, 32000, 32000, 1, 1, 1, 1)))),
            Mutation("nii: negative", written(nifti(plain, suffix, dim=(2, -24, 20, 1, 1, 1, 1, 1)))),
            Mutation("nii: seven axes", written(nifti(plain, suffix, dim=(7, 2, 2, 2, 2, 2, 2, 2)))),
            Mutation("nii: complex", written(nifti(plain.astype(np.complex64), suffix))),
            Mutation("nii: colours", written(nifti(rgb, suffix))),
            Mutation("nii: nan", written(nifti(np.full((24, 20), np.nan, np.float32), suffix))),
            Mutation("nii: infinite", written(nifti(np.full((24, 20), np.inf, np.float32), suffix))),
            Mutation("nii: other shape", written(nifti(np.ones((5, 7), np.uint8), suffix))),
            *([Mutation("nii: bomb", written(_gzip_bomb()))] if suffix.endswith("gz") else []),
        ]
    if suffix in (".h5", ".hdf5"):
        return [
            Mutation("h5: external link", linked("external")),
            Mutation("h5: link to itself", linked("soft")),
            Mutation("h5: external storage", linked("storage")),
            Mutation("h5: virtual", linked("virtual")),
            Mutation("h5: huge", replaced(lambda d: {"shape": (1 << 40, *d.shape[1:]), "dtype": "u1", "chunks": True})),
            Mutation("h5: text", replaced(lambda d: {"data": [["a"] * 3] * 3, "dtype": h5py.string_dtype()})),
            Mutation("h5: references", replaced(lambda d: {"shape": d.shape, "dtype": h5py.ref_dtype})),
            Mutation("h5: complex", replaced(lambda d: {"data": np.ones(d.shape, complex)})),
            Mutation("h5: one axis", replaced(lambda d: {"data": np.zeros(7)})),
            Mutation("h5: other shape", replaced(lambda d: {"data": np.zeros([n + 3 for n in d.shape], d.dtype)})),
            Mutation("h5: nan", replaced(lambda d: {"data": np.full(d.shape, np.nan, np.float32)})),
            Mutation("h5: empty", replaced(lambda d: {"data": h5py.Empty("f4")})),
            Mutation("h5: nothing", lambda p: h5py.File(p, "w").close()),
        ]
    if name == "manifest":
        return [Mutation(f"json: {what}", written(text.encode())) for what, text in _manifests().items()]
    if name == "riga csv":
        return [
            Mutation(f"csv: {path}", lambda p, path=path: _table(p, path))
            for path in ("..\\..\\..\\etc\\passwd", "C:\\x.tif", "/etc/passwd", "\\\\host\\x.tif")
        ] + [Mutation("csv: rows twice", lambda p: written(p.read_bytes() + p.read_bytes().split(b"\n", 1)[1])(p))]
    if name == "folder yaml":
        texts = {
            "python tag": "image: !!python/object/apply:os.system ['touch x']\nmask: x\n",
            "laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
            "no case": "image: '*.png'\nmask: '*.png'\n",
            "a list": "- 1\n- 2\n",
            "deep": "[" * 3000,
            "expensive pattern": "image: '{case:(a+)+}/image.png'\nmask: '{case}/rater_{rater}.png'\n",
            "climbing": "image: '../{case}/image.png'\nmask: '../{case}/rater_{rater}.png'\n",
        }
        return [Mutation(f"yaml: {what}", written(text.encode())) for what, text in texts.items()]
    return []


def _manifests() -> dict[str, str]:
    good = {"image": "0.png", "labels": {"a": "0_m.png"}}
    wrong = {
        "climbs": [{**good, "image": "../../etc/passwd"}],
        "absolute": [{**good, "image": "/etc/passwd"}],
        "mask climbs": [{**good, "labels": {"a": "x/../../y.png"}}],
        "twice": [good, good],
        "no list": {"cases": 3},
        "nul": [{**good, "image": "0\0.png"}],
        "surrogate": [{**good, "image": "\ud800.png"}],
        "long": [{**good, "image": "x" * 5000}],
        "rater is a list": [{**good, "labels": {"a": ["0_m.png"]}}],
        "empty": [],
        "image as mask": [{**good, "labels": {"a": "0.png"}}],
    }
    return {
        **{what: json.dumps(value) for what, value in wrong.items()},
        "nan": '[{"image": NaN}]',
        "deep": "[" * 100_000,
        "key twice": '[{"image": "0.png", "image": "1.png", "labels": {"a": "0_m.png"}}]',
    }


def _table(path: Path, image_path: str) -> None:
    lines = path.read_bytes().decode("gbk").splitlines()
    cells = lines[1].split(",")
    lines[1] = ",".join([cells[0], image_path, *cells[2:]])
    path.write_bytes("\n".join(lines).encode("gbk"))


@remembered
def _gzip_bomb() -> bytes:
    head = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes()[:352]
    raw = bytearray(head)
    raw[40:56] = struct.pack("<8h", 3, 1000, 1000, 1000, 1, 1, 1, 1)
    return gzip.compress(bytes(raw) + bytes(1 << 20), 9)


@remembered
def _npz_bomb() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.zeros(1 << 21))
    return stream.getvalue()


# -- the cases ------------------------------------------------------------------------------------


def cases() -> list[tuple[str, int]]:
    """Every layout and the number of its mutation."""
    nowhere = Path("nowhere")
    found = []
    for name, layout in LAYOUTS.items():
        suffix = _suffix(layout.files)
        found += [(name, i) for i in range(len(of_any_file()) + len(of_kind(name, suffix, nowhere)))]
    return found


def _suffix(pattern: str) -> str:
    name = pattern.rsplit("/", 1)[-1]
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


ALL = cases()


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @remembered
    def written_once(name: str) -> Path:
        root = tmp_path_factory.mktemp("miniature") / "data"
        root.mkdir()
        LAYOUTS[name].write(root)
        return root

    return written_once


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY


def attack(name: str, number: int, miniature: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str:
    layout, root, canary = LAYOUTS[name], folder / "data", folder / "executed"
    shutil.copytree(miniature, root)
    files = sorted(root.glob(layout.files))
    mutation = [*of_any_file(), *of_kind(name, _suffix(layout.files), canary)][number]
    target = files[(7 * number) % len(files)]
    mutation.apply(target)
    cache = folder / "cache"
    monkeypatch.setenv("MULTIRATER_CACHE", str(cache))
    sets = [argument for option in layout.options for argument in ("--set", option)]
    before = sorted(p.name for p in folder.iterdir())
    with little_memory(), pytest.raises(SystemExit) as ended:
        main(["prepare", layout.dataset, "--root", str(root / layout.root), *sets])
    error = capsys.readouterr().err
    what = f"{name}, {mutation.name}, {target.name}"
    assert not canary.exists(), what
    assert sorted(p.name for p in folder.iterdir()) in (before, sorted([*before, "cache"])), what
    stored = [p for p in cache.glob(f"{layout.dataset}/*") if not (p / "meta.json").is_file()]
    assert not stored, what
    if ended.value.code == 0:
        assert mutation.harmless, f"{what}: accepted"
        return "accepted"
    assert ended.value.code == 2, f"{what}: {error}"
    assert error.startswith("multirater: "), f"{what}: {error}"
    assert error.count("\n") == 1, f"{what}: {error}"
    assert len(error) < 1500, f"{what}: {len(error)} characters"
    named = {target.name, target.stem, target.parent.name, layout.root or root.name}
    assert any(part in error for part in named if part), f"{what}: {error}"
    assert not list(cache.glob(f"{layout.dataset}/*")), what
    return error


@pytest.mark.parametrize(("name", "number"), ALL[::PART])
def test_a_part(
    name: str, number: int, miniatures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    attack(name, number, miniatures(name), tmp_path, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_all(name: str, miniatures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    found = []
    for layout, number in ALL:
        if layout == name:
            folder = tmp_path / str(number)
            folder.mkdir()
            found.append(attack(name, number, miniatures(name), folder, monkeypatch, capsys))
            shutil.rmtree(folder)
    assert sum(error != "accepted" for error in found) > len(found) / 3


def test_there_are_more_than_500() -> None:
    assert len(ALL) >= 500
    assert len(LAYOUTS) >= 25


@pytest.mark.parametrize("kind", sorted(malicious(Path("x"))))
def test_convert_executes_nothing(kind: str, tmp_path: Path, capsys: Any) -> None:
    canary, path = tmp_path / "executed", tmp_path / "evil.pickle"
    path.write_bytes(malicious(canary)[kind])
    with little_memory(), pytest.raises(SystemExit) as ended:
        main(["data", "convert", str(path)])
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    assert error.count("\n") == 1
    assert "evil.pickle" in error
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pickle"]
