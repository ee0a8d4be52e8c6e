"""Pickles to HDF5: the same cases, and nothing executed."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from dataset_support import little_memory
from hostile_bytes import malicious
from multirater.benchmark.cli import main
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from multirater.datasets.convert import convert_pickles


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))


def entry(rng, side=16, raters=4, kind=np.float64, **more):
    image = rng.random((side, side)) if kind is np.float64 else rng.integers(0, 256, (side, side), np.uint8)
    return {"image": image, "masks": [(rng.random((side, side)) < 0.3).astype(np.uint8) for _ in range(raters)], **more}


def dump(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def test_lidc_pickle_becomes_what_its_loader_reads(tmp_path):
    rng = np.random.default_rng(0)
    content = {f"{i}_a": entry(rng, series_uid=f"1.2.{i // 2}") for i in range(6)}
    content["0_a"]["masks"][2][:] = 0
    path = dump(tmp_path / "data_lidc.pickle", content)
    facts = convert_pickles([path], tmp_path / "out.h5", licence="CC BY 3.0")
    assert (facts["cases"], facts["raters"], facts["patients"], facts["image"]) == (6, 4, 3, [1, 16, 16])
    own = open_dataset("lidc", root=str(path), preparation="pickle", identity="as_stored")
    new = open_dataset("hdf5", root=str(tmp_path / "out.h5"), identity="as_stored")
    assert [r.case_id for r in new.records] == [r.case_id for r in own.records]
    assert [r.patient_id for r in new.records] == [r.patient_id for r in own.records]
    for a, b in zip(new.arrays(range(6)), own.arrays(range(6)), strict=True):
        assert (a == b).all()
    assert new.licence == "CC BY 3.0"
    assert new.describe().identity == "derived"
    assert open_dataset("hdf5", root=str(tmp_path / "out.h5")).describe().identity == "none"


def test_matting_pickle_in_colour_keeps_bytes_and_leaves_the_matte_out(tmp_path):
    rng = np.random.default_rng(0)
    content = {
        f"s{i}": {
            **entry(rng, raters=7, kind=np.uint8, series_uid=f"8{i // 2}_slice{i}"),
            "image": rng.integers(0, 256, (16, 16, 3), np.uint8),
            "alpha": np.zeros((16, 16), np.uint8),
        }
        for i in range(4)
    }
    facts = convert_pickles([dump(tmp_path / "a.pkl", content)], tmp_path / "a.h5", identity="consistent")
    assert facts["left_out_keys"] == {"alpha": 4}
    assert (facts["dtype"], facts["image"], facts["patients"]) == ("uint8", [3, 16, 16], 2)
    data = open_dataset("hdf5", root=str(tmp_path / "a.h5"))
    images, masks, _ = data.arrays([2])
    assert (images[0] == np.moveaxis(content["s2"]["image"], 2, 0) / np.float32(255)).all()
    assert (masks[0] == np.stack(content["s2"]["masks"])).all()
    assert data.describe().identity == "consistent"


def test_several_files_are_joined_but_not_over_each_other(tmp_path):
    rng = np.random.default_rng(0)
    first = dump(tmp_path / "a.pickle", {"x": entry(rng)})
    second = dump(tmp_path / "b.pickle", {"y": entry(rng)}, protocol=4)
    assert convert_pickles([first, second], tmp_path / "o.h5")["cases"] == 2
    assert convert_pickles([first], tmp_path / "p.h5")["cases_without_series_uid"] == 1
    with pytest.raises(UserError, match=r"case 'x' is in .*a\.pickle and again in .*c\.pickle"):
        convert_pickles([first, dump(tmp_path / "c.pickle", {"x": entry(rng)})], tmp_path / "q.h5")


class Evil:
    def __reduce__(self):
        return os.system, (f"touch {os.environ['MULTIRATER_CACHE']}-executed",)


def nan_image(rng):
    made = entry(rng)
    made["image"][3, 3] = np.nan
    return made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rng: {"x": {**entry(rng), "alpha": Evil()}}, "asks for the global '(posix|nt).system'"),
        (lambda rng: {"x": nan_image(rng)}, "values that are not finite in case 'x'"),
        (lambda rng: {"x": {**entry(rng), "masks": [np.full((16, 16), 7, np.uint8)]}}, "the value 7.*case 'x'"),
        (lambda rng: {"x": {**entry(rng), "masks": [np.zeros((16, 15), np.uint8)]}}, "16×15 and uint8 for an image of"),
        (lambda rng: {"x": {**entry(rng), "masks": []}}, "case 'x' whose image or masks are no arrays"),
        (lambda rng: {"x": entry(rng), "y": entry(rng, raters=3)}, "number of masks of case 'y' is 3"),
        (lambda rng: {"x": entry(rng), "y": entry(rng, side=17)}, "image of case 'y' is 1×17×17"),
        (lambda rng: {"x": {"image": 3}}, "case 'x' without image and masks"),
        (lambda rng: {"x\n": entry(rng)}, r"a case named 'x\\n'; an id is a short line of text"),
        (lambda rng: [entry(rng)], "holds no dict of cases"),
        (lambda rng: {}, "holds no dict of cases"),
    ],
)
def test_faults_are_one_sentence_and_write_nothing(tmp_path, make, message):
    path = dump(tmp_path / "bad.pickle", make(np.random.default_rng(0)))
    with pytest.raises(UserError, match=message) as caught:
        convert_pickles([path], tmp_path / "o.h5")
    assert "bad.pickle" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.pickle"]


@pytest.mark.parametrize("kind", sorted(malicious(Path("x"))))
def test_convert_executes_nothing(kind, tmp_path, capsys):
    canary, path = tmp_path / "executed", tmp_path / "evil.pickle"
    path.write_bytes(malicious(canary)[kind])
    with little_memory(), pytest.raises(SystemExit) as ended:
        main(["data", "convert", str(path)])
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    assert error.count("\n") == 1
    assert "evil.pickle" in error
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pickle"]
