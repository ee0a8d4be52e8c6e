"""What is done to one file of a miniature: damage of any file, and what only files of one kind can have."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hostile_bytes import (
    Canary,
    gzip_bomb,
    malicious,
    manifests,
    nifti,
    npy,
    npz_bomb,
    png_header,
    yamls,
    zip_bomb,
)
from PIL import Image


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
        Mutation("a zip archive", written(zip_bomb())),
        Mutation("garbage at the end", lambda p: written(p.read_bytes() + b"\x00garbage" * 9)(p), True),
        Mutation("a loop of links", link_loop, True),
        Mutation("a link to nothing", link_to("not/there"), True),
        Mutation("a link to an endless device", link_to("/dev/zero"), True),
        Mutation("a folder", as_folder, True),
        Mutation("a pipe", pipe, True),
    ]


def of_kind(suffix: str, canary: Path) -> list[Mutation]:
    """Mutations that only files of this kind can have; those that would run code leave the canary."""
    return _OF_KIND[suffix](suffix, canary) if suffix in _OF_KIND else []


def _pickle(suffix: str, canary: Path) -> list[Mutation]:
    return [Mutation(f"pickle: {kind}", written(raw)) for kind, raw in malicious(canary).items()]


def _npy(suffix: str, canary: Path) -> list[Mutation]:
    evil = io.BytesIO()
    np.save(evil, np.array([Canary(exec, f"open({str(canary)!r}, 'w').close()")], object), allow_pickle=True)
    wrong = {"complex": np.ones((20, 24), complex), "text": np.array([["a"]]), "nan": np.full((20, 24), np.nan)}
    wrong |= {"four axes": np.zeros((2, 2, 2, 2)), "empty": np.zeros((0, 4)), "a scalar": np.array(3.0)}
    wrong["a record"] = np.zeros((4, 4), [("a", "i4")])
    return [
        Mutation("npy: object array", written(evil.getvalue())),
        Mutation("npy: huge header", written(npy("{'descr':'<f8','fortran_order':False,'shape':(1000000,1000000)}"))),
        Mutation("npy: negative", written(npy("{'descr':'<f8','fortran_order':False,'shape':(-1,4)}", bytes(64)))),
        Mutation("npy: code in the header", written(npy("__import__('os').system('true')"))),
        Mutation("npy: bomb", written(npz_bomb())),
        *(Mutation(f"npy: {what}", lambda p, v=v: np.save(p, v)) for what, v in wrong.items()),
    ]


def _png(suffix: str, canary: Path) -> list[Mutation]:
    two = io.BytesIO()
    Image.new("L", (24, 20)).save(two, "PNG", save_all=True, append_images=[Image.new("L", (24, 20), 9)])
    return [
        Mutation("png: 60000×60000", written(png_header(60000, 60000))),
        Mutation("png: 2147483647 wide", written(png_header(2147483647, 1))),
        Mutation("png: 4000×4000 of which little is there", written(png_header(4000, 4000))),
        Mutation("png: animated", written(two.getvalue())),
    ]


def _nifti(suffix: str, canary: Path) -> list[Mutation]:
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
        *([Mutation("nii: bomb", written(gzip_bomb()))] if suffix.endswith("gz") else []),
    ]


def _hdf5(suffix: str, canary: Path) -> list[Mutation]:
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


def _json(suffix: str, canary: Path) -> list[Mutation]:
    return [Mutation(f"json: {what}", written(text.encode())) for what, text in manifests().items()]


def _csv(suffix: str, canary: Path) -> list[Mutation]:
    return [
        Mutation(f"csv: {path}", lambda p, path=path: _table(p, path))
        for path in ("..\\..\\..\\etc\\passwd", "C:\\x.tif", "/etc/passwd", "\\\\host\\x.tif")
    ] + [Mutation("csv: rows twice", lambda p: written(p.read_bytes() + p.read_bytes().split(b"\n", 1)[1])(p))]


def _yaml(suffix: str, canary: Path) -> list[Mutation]:
    return [Mutation(f"yaml: {what}", written(text.encode())) for what, text in yamls().items()]


def _table(path: Path, image_path: str) -> None:
    lines = path.read_bytes().decode("gbk").splitlines()
    cells = lines[1].split(",")
    lines[1] = ",".join([cells[0], image_path, *cells[2:]])
    path.write_bytes("\n".join(lines).encode("gbk"))


_OF_KIND: dict[str, Callable[[str, Path], list[Mutation]]] = {
    ".pkl": _pickle,
    ".pickle": _pickle,
    ".npy": _npy,
    ".png": _png,
    ".nii": _nifti,
    ".nii.gz": _nifti,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".json": _json,
    ".csv": _csv,
    ".yaml": _yaml,
}
