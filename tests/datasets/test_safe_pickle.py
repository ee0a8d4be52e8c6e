"""Pickles are read as data: every protocol and writer gives the arrays back, and nothing in them is ever executed."""

from __future__ import annotations

import collections
import datetime
import fractions
import io
import os
import pickle
import pickletools
import random
import struct

import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.datasets.pickle_values import StoredArray
from multirater.datasets.safe_pickle import Limits, read_pickle

RNG = np.random.default_rng(7)
IMAGE = RNG.random((40, 36))
MASK = (RNG.random((40, 36)) < 0.3).astype(np.uint8)


def sample():
    return {
        "image": IMAGE,
        "masks": [MASK, 1 - MASK],
        "series_uid": "123_slice4",
        "facts": (1, -70_000, 10**30, 2.5, None, True, False, "é\n\\ü", [], {}, ()),
        "turned": np.asfortranarray(IMAGE[:, :30].astype(">f4")),
        "moved": np.transpose(RNG.integers(0, 9, (20, 30, 4)), (1, 0, 2)),
        "small": np.arange(4, dtype=np.int16),
        "bits": MASK == 1,
        "scalar": np.float64(0.25),
        "name": np.str_("x1"),
    }


def plain(value):
    if isinstance(value, StoredArray):
        return value.read()
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    return value


def same(found, wanted):
    if isinstance(wanted, np.ndarray):
        native = wanted.dtype.newbyteorder("=")
        return found.dtype == native and found.shape == wanted.shape and bool((found == wanted).all())
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(same(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, (list, tuple)):
        return type(found) is type(wanted) and len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == wanted)


def write(tmp_path, data: bytes):
    path = tmp_path / "x.pickle"
    path.write_bytes(data)
    return path


def refused(tmp_path, data: bytes, *words, limits=None):
    path = write(tmp_path, data)
    with pytest.raises(UserError) as caught:
        read_pickle(path, limits)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 600
    for word in words:
        assert word in message
    return message


# -- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
@pytest.mark.parametrize("python", [False, True], ids=["C pickler", "Python pickler"])
def test_every_protocol_gives_the_data_back(tmp_path, protocol, kind, python):
    data = kind((f"{i}_a", sample()) for i in (3, 1, 2))
    stream = io.BytesIO()
    (pickle._Pickler if python else pickle.Pickler)(stream, protocol).dump(data)
    found = plain(read_pickle(write(tmp_path, stream.getvalue())))
    assert list(found) == ["3_a", "1_a", "2_a"]
    assert same(found, dict(data))


@pytest.mark.parametrize("protocol", range(6))
def test_files_of_numpy_1_and_2(tmp_path, protocol):
    """One of the two spellings is the installed NumPy's; the other one is written over it."""
    data = pickletools.optimize(pickle.dumps([IMAGE, np.float32(2)], protocol))
    other = data
    for module in ("multiarray", "numeric"):
        old, new = (f"numpy.{core}.{module}" for core in ("core", "_core"))
        if new.encode() not in data:
            old, new = new, old
        if protocol < 4:
            other = other.replace(f"c{new}\n".encode(), f"c{old}\n".encode())
        else:
            other = other.replace(*(b"\x8c" + bytes([len(name)]) + name.encode() for name in (new, old)))
    assert other != data
    for one in (data, pickletools.optimize(other)):
        assert same(plain(read_pickle(write(tmp_path, one))), [IMAGE, 2.0])


def python2(value) -> bytes:
    """Protocol 2 as Python 2 writes it: every string is a byte string."""
    if isinstance(value, np.ndarray):
        raw = value.tobytes()
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01bt\x52(K\x01("
            + b"".join(b"K" + bytes([n]) for n in value.shape)
            + b"tcnumpy\ndtype\n(U\x02"
            + value.dtype.str[1:].encode()
            + b"K\x00K\x01tR(K\x03U\x01"
            + value.dtype.str[:1].encode()
            + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
            + (b"T" + struct.pack("<i", len(raw)) if len(raw) > 255 else b"U" + bytes([len(raw)]))
            + raw
            + b"tb"
        )
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(k) + python2(v) for k, v in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    assert isinstance(value, str)
    return b"U" + bytes([len(value)]) + value.encode("latin1")


def test_files_of_python_2(tmp_path):
    data = {"7_a": {"image": IMAGE, "masks": [MASK, np.arange(250, dtype=np.uint8)], "series_uid": "7_slice1"}}
    assert same(plain(read_pickle(write(tmp_path, b"\x80\x02" + python2(data) + b"."))), data)


def test_protocol_0_of_python_2(tmp_path):
    quoted = repr(MASK.tobytes())[1:].encode()
    data = (
        b"(dp0\nS'image'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\n"
        b"Rp7\n(I1\n(I40\nI36\ntp8\ncnumpy\ndtype\np9\n(S'u1'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'|'\np13\nNNNI-1\nI-1\n"
        b"I0\ntp14\nbI00\nS" + quoted + b"\np15\ntp16\nbsS'on'\nI01\nsS'big'\nL123456789012345678901L\ns."
    )
    found = plain(read_pickle(write(tmp_path, data)))
    assert same(found, {"image": MASK, "on": True, "big": 123456789012345678901})


def test_arrays_stay_in_the_file(tmp_path):
    path = write(tmp_path, pickle.dumps({"a": IMAGE}, 4))
    array = read_pickle(path)["a"]
    assert array.shape == (40, 36)
    assert array.dtype == np.float64
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(UserError, match="damaged"):
        array.read()


def test_sets_and_shared_values(tmp_path):
    shared = [1, 2]
    data = {"s": {5}, "f": frozenset([6]), "a": shared, "b": shared}
    for protocol in (4, 5):
        assert read_pickle(write(tmp_path, pickle.dumps(data, protocol))) == {
            "s": [5],
            "f": [6],
            "a": [1, 2],
            "b": [1, 2],
        }


# -- what is refused ------------------------------------------------------------------------------


class Call:
    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


@pytest.fixture
def sprung(tmp_path, monkeypatch):
    """A file that must not come to be; `os.system` and friends are watched as well."""
    target = tmp_path / "sprung"

    def alarm(*args, **kwargs):
        raise AssertionError("executed")

    for name in ("system", "popen"):
        monkeypatch.setattr(os, name, alarm)
    yield target
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_calls_are_refused_by_name(tmp_path, sprung, protocol):
    for function, name in (
        (eval, "eval"),
        (exec, "exec"),
        (getattr, "getattr"),
        (open, "open"),
        (__import__, "__import__"),
        (os.remove, "remove"),
        (np.load, "load"),
        (pickle.loads, "loads"),
        (np.lib.format.read_array, "read_array"),
        (bytearray, "bytearray"),
    ):
        message = refused(tmp_path, pickle.dumps({"image": Call(function, str(sprung), "w")}, protocol), name)
        assert "nothing was run" in message


def test_the_classic_shell_call(tmp_path, sprung):
    touch = f"touch {sprung}".encode()
    refused(tmp_path, b"cposix\nsystem\n(S'" + touch + b"'\ntR.", "posix.system")
    refused(tmp_path, b"(S'" + touch + b"'\nios\nsystem\n.", "os.system", "INST")
    refused(tmp_path, b"(cos\nsystem\nS'" + touch + b"'\no.", "os.system")
    refused(tmp_path, b"\x80\x02cos\nsystem\nU\x01x\x85\x81.", "os.system")
    refused(tmp_path, b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x01x\x85R.", "posix.system")
    refused(tmp_path, b"\x80\x04\x8c\x08builtins\x8c\x0egetattr.__call\x93.", "builtins.getattr")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"(cnumpy\nndarray\nK\x05o.", "OBJ"),
        (b"(K\x05inumpy\nndarray\n.", "INST"),
        (b"\x80\x02cnumpy\nndarray\nK\x05\x85\x81.", "NEWOBJ"),
        (b"\x80\x04cnumpy\nndarray\n)}\x92.", "NEWOBJ_EX"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02\x83\x01\x00.", "EXT2"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
        (b"Ptouch x\n.", "PERSID"),
        (b"\x80\x02U\x01xQ.", "BINPERSID"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"cnumpy\nndarray\n(K\x05tR.", "numpy.ndarray directly"),
        (b"cnumpy\nndarray\n}U\x01aK\x01sb.", "sets the state of a numpy.ndarray"),
        (b"}}U\x01aK\x01sb.", "sets the state of a dict"),
        (b"ccollections\nOrderedDict\n)R}U\x05clearK\x01sb.", "sets the state"),
        (b"c_codecs\ndecode\n.", "_codecs.decode"),

        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "__globals__"),
    ],
)  # fmt: skip
def test_instances_extensions_and_persistent_ids(tmp_path, data, word):
    refused(tmp_path, data, word)


def test_objects_records_and_other_classes(tmp_path):
    refused(tmp_path, pickle.dumps(np.array([1, "a", None], object)), "O8")
    refused(tmp_path, pickle.dumps(np.zeros(3, "i4,f4")), "V8")
    refused(tmp_path, pickle.dumps(np.array(["2020-01-01"], "M8[D]")), "M8")
    refused(tmp_path, pickle.dumps(np.ma.masked_array([1, 2])), "numpy.ma")
    refused(tmp_path, pickle.dumps(datetime.date(2020, 1, 1)), "datetime.date")
    refused(tmp_path, pickle.dumps(fractions.Fraction(1, 3)), "fractions.Fraction")
    refused(tmp_path, pickle.dumps({"a": Limits()}), "Limits")
    smuggled = pickle.dumps(MASK, 2).replace(b"X\x02\x00\x00\x00u1", b"X\x02\x00\x00\x00O8")
    refused(tmp_path, smuggled, "O8")


def reconstruct(shape: bytes, code: bytes, state: bytes, data: bytes) -> bytes:
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape
        + b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R" + state + b"\x89" + data + b"tb."
    )  # fmt: skip


STATE = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


@pytest.mark.parametrize(
    ("shape", "code", "state", "data", "word"),
    [
        (b"K\x02K\x02\x86", b"u1", STATE, b"U\x03abc", "do not fill"),
        (b"K\x02K\x02\x86", b"u1", STATE, b"U\x05abcde", "do not fill"),
        (b"J\xff\xff\xff\xffK\x02\x86", b"u1", STATE, b"U\x02ab", "shape"),
        (b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", b"u1", STATE, b"U\x02ab", "MiB"),
        (b"\x8a\x10" + b"\xff" * 15 + b"\x7f\x85", b"u1", STATE, b"U\x02ab", "shape"),
        (b"K\x01" * 8 + b"K\x02\x87", b"u1", STATE, b"U\x02ab", "damaged"),
        (b"(" + b"K\x01" * 40 + b"t", b"u1", STATE, b"U\x01a", "shape"),
        (b"U\x02ab", b"u1", STATE, b"U\x02ab", "shape"),
        (b"K\x02\x85", b"u1", STATE, b"](K\x01K\x02e", "do not fill"),
        (b"K\x02\x85", b"f9999", STATE, b"U\x02ab", "damaged"),
        (b"K\x02\x85", b"i4,f4", STATE, b"U\x02ab", "dtype"),
        (b"K\x02\x85", b"(9,9)u1", STATE, b"U\x02ab", "dtype"),
        (b"K\x02\x85", b"u1", b"(K\x03U\x01xNNNtb", b"U\x02ab", "state"),
        (b"K\x02\x85", b"u1", b"(K\x03U\x01|)NNtb", b"U\x02ab", "fields"),
        (b"K\x02\x85", b"u1", b"K\x01b", b"U\x02ab", "state"),
    ],
)
def test_tricks_with_shapes_and_dtypes(tmp_path, shape, code, state, data, word):
    refused(tmp_path, reconstruct(shape, code, state, data), word)


def test_the_honest_form_of_these_tricks_is_read(tmp_path):
    found = read_pickle(write(tmp_path, reconstruct(b"K\x02\x85", b"u1", STATE, b"U\x02ab")))
    assert found.read().tolist() == [97, 98]
    declared = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R."
    with pytest.raises(UserError, match="never filled"):
        read_pickle(write(tmp_path, declared)).read()


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 rest", "zip"),
        (b"\x1f\x8b\x08 rest", "gzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"hello, this is text", "damaged"),
        (b"\x80\x06N.", "protocol 6"),
        (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "frame"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x00N.", "cut short"),
        (b"\x80\x04B\xff\xff\xff\xffN.", "cut short"),
        (b"\x80\x02T\xff\xff\xff\xffN.", "negative"),
        (b"\x80\x02\x8b\xff\xff\xff\x7fN.", "integer"),
        (b"I" + b"9" * 400 + b"\n.", "too long"),
        (b"L" + b"9" * 5000 + b"L\n.", "too long"),
        (b"S'no end\n.", "quotes"),
        (b"S'" + b"x" * 5000, "cut short"),
        (b"\x80\x02N", "cut short"),
        (b"\x80\x02NN.", "middle"),
        (b"\x80\x02(N.", "middle"),
        (b"\x80\x02N.N.", "follow its end"),
        (b"\x80\x02h\x09.", "damaged"),
        (b"\x80\x02\x87.", "too few"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02R.", "damaged"),
        (b"\x80\x02b.", "damaged"),
        (b"\x80\x02NK\x01K\x02s.", "no dict"),
        (b"\x80\x02NK\x01a.", "no list"),
        (b"\x80\x02}(K\x01u.", "no dict"),
        (b"\x80\x02})K\x01s.", "key"),
        (b"\x80\x02}]K\x01s.", "key"),
        (b"\x80\x04\x8c\x02\xff\xfe.", "damaged"),
        (b"\x80\x04NN\x93.", "global without a name"),
        (b"\x80\x02K\x01)R.", "no function"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aU\x03hextR.", "hex"),
        (b"ccollections\nOrderedDict\n(K\x05tR.", "pairs"),
        (b"cnumpy.core.multiarray\nscalar\n(K\x05U\x01atR.", "scalar"),
    ],
)  # fmt: skip
def test_streams_that_are_no_data(tmp_path, data, word):
    refused(tmp_path, data, word)


def test_limits(tmp_path):
    few = Limits(instructions=1000, memory=5000, marks=10)
    refused(tmp_path, b"\x80\x02" + b"]" * 2000 + b".", "instructions", limits=few)
    refused(tmp_path, b"\x80\x02" + b"(" * 20 + b".", "nested", limits=few)
    refused(tmp_path, b"\x80\x02](" + (b"T\xe8\x03\x00\x00" + b"x" * 1000) * 9 + b"e.", "strings", limits=few)
    refused(tmp_path, b"\x80\x02" + b"N" * 99 + b".", "0 MiB", limits=Limits(file_bytes=50))
    huge = tmp_path / "sparse"
    with huge.open("wb") as stream:
        stream.truncate(33 << 30)
    with pytest.raises(UserError, match="split it"):
        read_pickle(huge)


def test_deep_nesting_needs_no_stack(tmp_path):
    deep = read_pickle(write(tmp_path, b"\x80\x02)" + b"\x85" * 300_000 + b"."))
    assert isinstance(deep, tuple)
    refused(tmp_path, b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.", "key")


def test_names_in_messages_are_short_and_printable(tmp_path):
    message = refused(tmp_path, b"\x80\x04\x8c\x0cbad\n\x1b[31m\r\nx\x8c\xff" + b"y" * 255 + b"\x93.")
    assert "\x1b" not in message


def test_no_regular_file(tmp_path):
    with pytest.raises(UserError, match="no regular file"):
        read_pickle(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read_pickle(tmp_path / "gone.pickle")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="loop"):
        read_pickle(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no regular file"):
        read_pickle(tmp_path / "pipe")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_damaged_files_give_one_sentence_or_data(tmp_path, protocol, sprung):
    """Truncated, flipped and shuffled files: a UserError that names the file, or plain data; never anything else."""
    whole = pickle.dumps(
        {"5_a": {"image": IMAGE[:12, :12], "masks": [MASK[:9, :9]] * 4, "series_uid": "5_b"}}, protocol
    )
    random_ = random.Random(protocol)
    said = 0
    for trial in range(300):
        data = bytearray(whole)
        if trial % 3 == 0:
            del data[random_.randrange(len(data)) :]
        else:
            for _ in range(random_.randrange(1, 8)):
                data[random_.randrange(len(data))] = random_.randrange(256)
        path = write(tmp_path, bytes(data))
        message = complaint(path)
        said += bool(message)
        assert not message or (str(path) in message and "\n" not in message)
    assert said > 100


def complaint(path):
    try:
        plain(read_pickle(path))
    except UserError as error:
        return str(error)
    return ""
