"""What is done to one file of a miniature: damage of any file, and what only files of one kind can have."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as remembered
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
from PIL import Image


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
