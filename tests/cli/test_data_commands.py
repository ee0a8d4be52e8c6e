"""``multirater data check``, ``show`` and ``convert`` as a user calls them."""

import hashlib
import json
import pickle

import numpy as np
import pytest
from multirater.benchmark import data_check
from multirater.benchmark.cli import main
from multirater.datasets import open_dataset
from multirater.datasets.splits import make_split
from PIL import Image

SIDE = 32


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def call(capsys):
    def run(*args):
        with pytest.raises(SystemExit) as ended:
            main(["data", *map(str, args)])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def disc(radius, row=16, column=16):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return ((rows - row) ** 2 + (columns - column) ** 2 < radius**2).astype(np.uint8)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), np.uint8)).save(folder / f"{i}.png")
        for rater, radius in (("a", 5), ("b", 7), ("c", 9)):
            Image.fromarray(disc(radius + i / 4)).save(folder / f"{i}_{rater}.png")
    (folder / "multirater.yaml").write_text(
        "image: '{case:\\d+}.png'\nmask: '{case}_{rater}.png'\nidentity: consistent\n"
    )
    return folder


def report(call, root, *more):
    code, out, err = call("check", "folder", "--root", root, "--json", *more)
    assert err == ""
    found = json.loads(out)
    assert code == (1 if found["faults"] else 0)
    return found


def levels(found, check):
    return [(one["level"], one["found"]) for one in found["findings"] if one["check"] == check]


def test_sound_data(call, root):
    found = report(call, root)
    assert (found["faults"], found["cases"], found["patients"]) == (0, 8, 8)
    assert found["shapes"] == {"images": [8, 1, SIDE, SIDE], "masks": [8, 3, SIDE, SIDE]}
    assert found["mask_values"] == [0, 1]
    assert found["image_range"] == [[0.0, 1.0]]
    area = np.mean([disc(5 + i / 4).sum() for i in range(8)])
    assert found["raters"][0] == {"rater": "a", "rows": 8, "missing": 0, "empty": 0, "mean_area": area}
    assert found["fingerprint"] == open_dataset("folder", root=str(root)).fingerprint
    code, out, _ = call("check", "folder", "--root", root)
    assert code == 0
    assert "0 faults" in out


def test_all_faulty_files_are_named_not_the_first_only(call, root):
    (root / "2.png").write_bytes((root / "2.png").read_bytes()[:60])
    Image.fromarray(np.full((SIDE, SIDE), 9, np.uint8)).save(root / "5_b.png")
    found = report(call, root)
    texts = [text for level, text in levels(found, "files") if level == "fault"]
    assert len(texts) == 2
    assert "2.png is damaged" in texts[0]
    assert "5_b.png holds the values 9" in texts[1]
    code, out, _ = call("check", "folder", "--root", root)
    assert code == 1
    assert "2 faults" in out


def test_a_fault_of_the_whole_is_told_once(call, root):
    Image.fromarray(np.zeros((SIDE, SIDE + 8), np.uint8)).save(root / "3.png")
    for rater in "abc":
        Image.fromarray(np.zeros((SIDE, SIDE + 8), np.uint8)).save(root / f"3_{rater}.png")
    ((level, text),) = levels(report(call, root), "files")
    assert level == "fault"
    assert "differ in size" in text


def test_the_same_image_in_training_and_test_is_a_fault(call, root):
    names = [str(i) for i in range(8)]
    split = make_split("cv4", names, names, 0)
    one, other = names[split.train[0]], names[split.test[0]]
    (root / f"{other}.png").write_bytes((root / f"{one}.png").read_bytes())
    ((level, text),) = levels(report(call, root), "duplicates")
    assert level == "fault"
    assert "one image 2 times" in text
    assert "test and train" in text
    assert {one, other} <= set(text.replace(",", " ").replace(";", " ").split())


def test_the_same_image_of_one_patient_is_a_warning(call, root):
    (root / "multirater.yaml").write_text(
        "image: '{case:\\d+}.png'\nmask: '{case}_{rater}.png'\nidentity: consistent\npatient: '^.'\n"
    )
    for suffix in ("", "_a", "_b", "_c"):
        (root / f"10{suffix}.png").write_bytes((root / f"1{suffix}.png").read_bytes())
    ((level, text),) = levels(report(call, root), "duplicates")
    assert level == "warning"
    assert "of one patient" in text


def test_a_rater_who_copies_another_and_empty_cases_are_told(call, root):
    for i in range(8):
        (root / f"{i}_c.png").write_bytes((root / f"{i}_b.png").read_bytes())
    for rater in "abc":
        Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(root / f"0_{rater}.png")
    Image.fromarray(np.full((SIDE, SIDE), 77, np.uint8)).save(root / "4.png")
    found = report(call, root)
    assert ("warning", "raters b and c drew the same mask in 7 of 7 rows: copies?") in levels(found, "raters")
    assert ("note", "all raters who saw it left it empty (1 of 8 rows)") in levels(found, "raters")
    ((level, text),) = levels(found, "values")
    assert level == "warning"
    assert "one value everywhere (1 of 8 rows)" in text
    assert next(f for f in found["findings"] if f["check"] == "values")["files"] == [str(root / "4.png")]


def test_patients_of_a_published_split_that_leak_are_a_fault(call, tmp_path):
    rng = np.random.default_rng(0)
    parts = ["train"] * 4 + ["test"] * 2
    entries = []
    for i, part in enumerate(parts):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), np.uint8)).save(tmp_path / f"{i}.png")
        Image.fromarray(disc(6)).save(tmp_path / f"{i}_a.png")
        entries.append({"image": f"{i}.png", "labels": {"a": f"{i}_a.png"}, "patient": f"p{i % 4}", "split": part})
    (tmp_path / "m.json").write_text(json.dumps(entries))
    code, out, _ = call("check", "manifest", "--root", tmp_path / "m.json", "--set", "split=compat", "--json")
    assert code == 1
    ((level, text),) = levels(json.loads(out), "patients")
    assert level == "fault"
    assert "2 of 4 patients stand in training and in another part: p0, p1" in text


def test_damaged_prepared_arrays_are_found(call, root):
    folder = open_dataset("folder", root=str(root)).prepare()
    with (folder / "images.npy").open("r+b") as stream:
        stream.seek(-2, 2)
        stream.write(b"\xff")
    ((level, text),) = levels(report(call, root), "checksums")
    assert level == "fault"
    assert str(folder / "images.npy") in text


def test_arrays_without_recorded_checksums_are_told_and_checked_all_the_same(call, root):
    meta = open_dataset("folder", root=str(root)).prepare() / "meta.json"
    meta.write_text(json.dumps({k: v for k, v in json.loads(meta.read_text()).items() if k != "images_sha256"}))
    found = report(call, root)
    assert levels(found, "checksums") == [("note", "no checksum of images was recorded by an older version")]
    assert found["mask_values"] == [0, 1]


def test_blocks_of_rows_change_nothing(call, root, monkeypatch):
    (root / "1.png").write_bytes((root / "6.png").read_bytes())
    for i in range(1, 8):
        (root / f"{i}_c.png").write_bytes((root / f"{i}_a.png").read_bytes())
    whole = report(call, root)
    assert "raters a and c drew the same mask in 7 of 8 rows: copies?" in str(whole)
    monkeypatch.setattr(data_check, "_BYTES_AT_ONCE", 3 * 4 * SIDE**2)
    assert report(call, root) == whole
    monkeypatch.setattr(data_check, "_BYTES_AT_ONCE", 1)
    assert report(call, root) == whole


def test_files_are_compared_with_a_list_of_checksums(call, root):
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in root.iterdir() if p.suffix == ".png"}
    listing = root / "SHA256SUMS"
    listing.write_text("".join(f"{d}  {name}\n" for name, d in digests.items()))
    assert levels(report(call, root, "--checksums", listing), "checksums") == [
        ("note", "32 files compared with SHA256SUMS")
    ]
    table = root / "t.tsv"
    digests["3_a.png"] = "0" * 64
    rows = [f"{name}\t12\t{d}" for name, d in digests.items() if name != "2.png"]
    table.write_text("path\tbytes\tsha256\n" + "\n".join(rows))
    found = levels(report(call, root, "--checksums", table), "checksums")
    assert [level for level, _ in found] == ["fault", "warning"]
    assert f"{root / '3_a.png'} has sha256" in found[0][1]
    assert "1 used files are not listed" in found[1][1]
    for text, message in (
        ("nothing here\n", "holds no line"),
        (f"{'0' * 64}  ../x.png\n", "leads out of its folder"),
        (f"{'0' * 64}  x\0.png\n", "t.tsv names 'x\\x00.png', which no file can be called"),
    ):
        table.write_text(text)
        code, _, err = call("check", "folder", "--root", root, "--checksums", table)
        assert code == 2
        assert message in err


def test_wrong_input_is_one_sentence(call, root, tmp_path):
    for args, message in (
        (("check", "folder", "--root", tmp_path / "none"), "is not a folder"),
        (("check", "foldr"), "did you mean 'folder'"),
        (("check", "folder", "--set", "method.x=1"), "section in --set of data check"),
        (("chek",), "chek"),
        (("show", "folder", "--root", root, "--case", "77"), "case of folder '77'"),
        (("show", "folder", "--root", root, "--out", "a.pdf"), "end the name of --out with .png"),
        (("show", "folder", "--root", root, "--cases", "0"), "--cases"),
        (("convert", tmp_path / "none.pkl"), "none.pkl cannot be read"),
    ):
        code, out, err = call(*args)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_show_draws_every_rater_and_says_what_is_drawn(call, root, tmp_path):
    code, out, _ = call("show", "folder", "--root", root, "--out", "sheet.png", "--cases", "3", "--json")
    assert code == 0
    shown = json.loads(out)["cases"]
    dice = [case["dice"] for case in shown]
    assert dice == sorted(dice)
    assert shown[0]["case_id"] == "0"  # the smallest discs, of which the outer ring is the largest share
    assert shown[0]["raters"] == ["a", "b", "c"]
    image = pixels(tmp_path / "sheet.png")
    for colour in ((0x56, 0xB4, 0xE9), (0xE6, 0x9F, 0x00), (0x00, 0x9E, 0x73)):
        assert (np.abs(image.astype(int) - colour).sum(-1) < 40).sum() > 100
    first = (tmp_path / "sheet.png").read_bytes()
    assert call("show", "folder", "--root", root, "--out", "sheet.png", "--cases", "3")[0] == 0
    assert (tmp_path / "sheet.png").read_bytes() == first
    assert call("show", "folder", "--root", root, "--case", "5", "--case", "2", "--crop")[0] == 0
    assert (tmp_path / "folder.png").is_file()


def test_convert_writes_once(call, tmp_path):
    rng = np.random.default_rng(0)
    content = {
        f"{i}": {
            "image": rng.random((16, 16)),
            "masks": [np.ones((16, 16), np.uint8)] * 2,
            "series_uid": f"{i}_slice0",
            "alpha": 1,
        }
        for i in range(3)
    }
    path = tmp_path / "x.pickle"
    path.write_bytes(pickle.dumps(content))
    code, out, _ = call("convert", path)
    assert code == 0
    assert "3 cases of 3 patients, 2 raters" in out
    assert "left out: alpha (3 cases)" in out
    code, _, err = call("convert", path)
    assert code == 2
    assert "--force" in err
    assert call("convert", path, "--force")[0] == 0
    assert json.loads(call("check", "hdf5", "--root", tmp_path / "x.h5", "--json")[1])["cases"] == 3
