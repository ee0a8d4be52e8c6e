"""Contents of hostile files: pickles that would run code, headers that announce more than there is, archives that
unpack to much, tables and manifests that lead astray."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from functools import cache as remembered
from pathlib import Path
from typing import Any

import nibabel
import numpy as np


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


@remembered
def zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped.png", bytes(1 << 22))
        archive.writestr("/tmp/escaped.npy", b"x")
    return stream.getvalue()


@remembered
def gzip_bomb() -> bytes:
    head = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes()[:352]
    raw = bytearray(head)
    raw[40:56] = struct.pack("<8h", 3, 1000, 1000, 1000, 1, 1, 1, 1)
    return gzip.compress(bytes(raw) + bytes(1 << 20), 9)


@remembered
def npz_bomb() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.zeros(1 << 21))
    return stream.getvalue()


def manifests() -> dict[str, str]:
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


def yamls() -> dict[str, str]:
    return {
        "python tag": "image: !!python/object/apply:os.system ['touch x']\nmask: x\n",
        "laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
        "no case": "image: '*.png'\nmask: '*.png'\n",
        "a list": "- 1\n- 2\n",
        "deep": "[" * 3000,
        "expensive pattern": "image: '{case:(a+)+}/image.png'\nmask: '{case}/rater_{rater}.png'\n",
        "climbing": "image: '../{case}/image.png'\nmask: '../{case}/rater_{rater}.png'\n",
    }
