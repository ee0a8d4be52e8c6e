"""``multirater score FOLDER``: the values of `score_case` on the arrays in the files, and files that do not fit."""

from __future__ import annotations

import csv
import json
import math

import nibabel
import numpy as np
import pytest
from multirater.benchmark.cli import main
from multirater.benchmark.score_folder import ScoreFolder
from multirater.metrics import score_case
from PIL import Image

GT, PRED, PROBS = "gt/{case}_r{rater}.png", "pred/{case}_s{sample}.png", "prob/{case}_s{sample}.png"
BASE = ("--raters", GT, "--samples", PRED)


def png(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def nifti(path, values, spacing=(1.0, 1.0, 1.0), flip=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-spacing[0] if flip else spacing[0], *spacing[1:], 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


@pytest.fixture
def arrays(reference):
    """Case to raters (rater c missing in case k2) and samples, 8×9."""
    rng = np.random.default_rng(3)
    return {
        case: (
            {r: reference.random_mask(rng, (8, 9)) for r in ("ab" if case == "k2" else "abc")},
            reference.random_masks(rng, 4, (8, 9)),
        )
        for case in ("k1", "k2", "k10")
    }


@pytest.fixture
def study(tmp_path, arrays):
    root = tmp_path / "study"
    for case, (raters, samples) in arrays.items():
        for rater, mask in raters.items():
            png(root / "gt" / f"{case}_r{rater}.png", mask.astype(np.uint8) * 255)
        for i, mask in enumerate(samples):
            png(root / "pred" / f"{case}_s{i}.png", mask.astype(np.uint8))
            png(root / "prob" / f"{case}_s{i}.png", np.where(mask, 200, 100).astype(np.uint8))
    return root


@pytest.fixture
def run(capsys):
    def call(folder, *options):
        with pytest.raises(SystemExit) as exit_:
            main(["score", str(folder), *map(str, options)])
        out = capsys.readouterr()
        return exit_.value.code, out.out, out.err

    return call


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_values_are_those_of_the_arrays(run, study, arrays):
    code, out, err = run(study, *BASE, "--json")
    assert (code, err) == (0, "")
    got = json.loads(out)
    assert [case["case_id"] for case in got["cases"]] == ["k1", "k2", "k10"]  # natural order
    assert (got["raters"], got["n_samples"], got["n_raters"]) == (["a", "b", "c"], [4, 4, 4], [3, 2, 3])
    for case in got["cases"]:
        raters, samples = arrays[case["case_id"]]
        stack = np.stack([raters.get(r, np.zeros((8, 9), bool)) for r in "abc"])
        alone = score_case(stack, samples, rater_valid=[r in raters for r in "abc"], reasons=True)
        assert case.pop("reasons") == alone.pop("reasons")
        for name, value in alone.items():
            np.testing.assert_equal(np.array(case[name], dtype=float), np.array(value, dtype=float), err_msg=name)
    each = [case["dice_rater.each"] for case in got["cases"]]
    assert [row[2] is None for row in each] == [False, True, False]
    assert got["left_out"]["dice_rater.each"] == [0, 0, 1]
    assert got["over_raters"]["dice_rater.each"] == pytest.approx(
        np.mean([np.mean([row[i] for row in each if row[i] is not None]) for i in range(3)])
    )


def test_csv_files(run, study, arrays, tmp_path):
    out_csv, summary = tmp_path / "out" / "cases.csv", tmp_path / "summary.csv"
    names = ["ged", "dice_rater.each", "dice_soft"]
    code, out, _ = run(study, *BASE, "--metrics", ",".join(names), "--csv", out_csv, "--summary-csv", summary, "--json")
    assert code == 0
    got, table = json.loads(out), rows(out_csv)
    assert list(table[0]) == "case_id rater label metric variant region n_samples n_raters value reason".split()
    assert len(table) == 3 * (2 + 3)
    ged = {row["case_id"]: float(row["value"]) for row in table if row["metric"] == "ged"}
    assert ged == {case["case_id"]: case["ged"] for case in got["cases"]}  # all digits
    missing = [row for row in table if row["value"] == ""]
    assert [(row["case_id"], row["rater"], row["reason"]) for row in missing] == [
        ("k2", "c", "this rater did not annotate this case")
    ]
    assert {(row["n_samples"], row["region"], row["variant"]) for row in table} == {("4", "full", "canonical")}
    lines = {(row["metric"], row["rater"]): row for row in rows(summary)}
    assert float(lines["ged", ""]["mean"]) == got["mean"]["ged"]
    assert float(lines["ged", ""]["sd"]) == pytest.approx(np.std(list(ged.values()), ddof=1))
    assert (lines["dice_rater.each", "c"]["n"], lines["dice_rater.each", "c"]["left_out"]) == ("2", "1")
    assert lines["ged", ""]["n_raters"] == "2-3"


def test_variants_side_by_side_and_components(run, study, tmp_path):
    kept = tmp_path / "kept.npz"
    code, whole, _ = run(study, *BASE, "--variant", "all", "--metrics", "ged,dice_match,dice_rater.each", "--json",
                         "--components", kept)  # fmt: skip
    assert code == 0
    code, again, _ = run(kept, "--variant", "all", "--metrics", "ged,dice_match,dice_rater.each", "--json")
    assert code == 0
    first, second = json.loads(whole), json.loads(again)
    assert first["variants"].keys() >= {"canonical", "dpersona", "kohl", "tab"}
    assert first.pop("file") != second.pop("file")
    assert first == second


def test_probabilities_of_pictures(run, study, arrays):
    code, out, _ = run(study, "--raters", GT, "--probs", PROBS, "--json", "--metrics", "ged,dice_continuous")
    assert code == 0
    for case in json.loads(out)["cases"]:
        raters, samples = arrays[case["case_id"]]
        probs = np.where(samples, 200, 100) / 255
        alone = score_case(np.stack(list(raters.values())), probs=probs, metrics=["ged", "dice_continuous"])
        assert {name: case[name] for name in alone} == alone
    for case in ("k1", "k2", "k10"):
        png(study / "mean" / f"{case}.png", np.full((8, 9), 32768, np.uint16))
    code, out, _ = run(study, "--raters", GT, "--mean-prob", "mean/{case}.png", "--json", "--metrics", "dice_majority")
    assert code == 0
    raters, _ = arrays["k1"]
    want = score_case(np.stack(list(raters.values())), mean_prob=np.full((8, 9), 32768 / 65535))
    assert json.loads(out)["cases"][0]["dice_majority"] == want["dice_majority"]


def test_maps_for_raters_skip_the_missing_one(run, study, arrays):
    for case, (raters, _) in arrays.items():
        for rater in raters:
            np.save(study / f"{case}-{rater}.npy", np.full((8, 9), 0.75, np.float32))
    code, out, _ = run(study, "--raters", GT, "--rater-probs", "{case}-{rater}.npy", "--json")
    assert code == 0
    case = json.loads(out)["cases"][1]
    raters, _ = arrays["k2"]
    want = score_case(np.stack(list(raters.values())), rater_probs=np.full((2, 8, 9), 0.75))
    assert case["dice_rater"] == want["dice_rater"]
    assert case["dice_rater.gap"] == want["dice_rater.gap"]
    (study / "k1-b.npy").unlink()
    code, _, err = run(study, "--raters", GT, "--rater-probs", "{case}-{rater}.npy")
    assert code == 2
    assert "case 'k1' has no file for --rater-probs of rater 'b', who annotated it" in err


def test_nifti_slices_and_volumes_carry_their_spacing(tmp_path, reference):
    rng = np.random.default_rng(5)
    volumes = reference.random_masks(rng, 4, (6, 7, 5))
    for i, volume in enumerate(volumes):
        role = "r" if i < 2 else "s"
        nifti(tmp_path / f"v_{role}{i}.nii.gz", volume.astype(np.uint8), (0.5, 0.75, 2.0))
        nifti(tmp_path / f"p_{role}{i}.nii", volume[..., :1].astype(np.float32), (0.5, 0.75, 2.0))
    patterns = {"raters": "v_r{rater}.nii.gz", "samples": "v_s{sample}.nii.gz"}
    patterns = {k: "{case:v}_" + v[2:] for k, v in patterns.items()}
    (view,) = ScoreFolder(tmp_path, patterns, spatial_dims=3).views()
    assert view.spacing == (2.0, 0.75, 0.5)
    np.testing.assert_array_equal(view.raters, volumes[:2].transpose(0, 3, 2, 1))
    patterns = {"raters": "{case:p}_r{rater}.nii", "samples": "{case:p}_s{sample}.nii"}
    (view,) = ScoreFolder(tmp_path, patterns).views()
    assert view.spacing == (0.75, 0.5)
    np.testing.assert_array_equal(view.samples, volumes[2:, :, :, 0].transpose(0, 2, 1))
    (view,) = ScoreFolder(tmp_path, patterns, spacing=(3.0, 3.0)).views()
    assert view.spacing == (3.0, 3.0)


def test_grids_that_do_not_lie_on_each_other(run, tmp_path):
    mask = np.ones((5, 6, 4), np.uint8)
    options = ("--spatial-dims", 3, "--raters", "{case}_r{rater}.nii", "--samples", "{case}_s.nii", "--metrics", "ged")
    nifti(tmp_path / "a_r1.nii", mask)
    nifti(tmp_path / "a_s.nii", mask, flip=True)
    code, _, err = run(tmp_path, *options)
    assert code == 2
    assert "a_s.nii has axes LAS and" in err
    nifti(tmp_path / "a_s.nii", mask, spacing=(1, 1, 2))
    code, _, err = run(tmp_path, *options)
    assert code == 2
    assert "spacing 2×1×1 mm" in err
    code, _, _ = run(tmp_path, *options, "--spacing", "1,1,1")
    assert code == 0


def test_class_maps(run, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (5, 6, 6)).astype(np.uint8)
    for i, one in enumerate(labels):
        png(tmp_path / f"a_{'r' if i < 2 else 's'}{i}.png", one)
    patterns = ("--raters", "{case}_r{rater}.png", "--samples", "{case}_s{sample}.png")
    code, out, _ = run(tmp_path, *patterns, "--classes", "1,2,3", "--json", "--metrics", "ged,ged.per_class")
    assert code == 0
    want = score_case(labels[:2], labels[2:], classes=[1, 2, 3], metrics=["ged", "ged.per_class"])
    assert {k: json.loads(out)["cases"][0][k] for k in want} == want
    code, out, _ = run(tmp_path, *patterns, "--foreground", "> 1", "--json", "--metrics", "ged")
    assert json.loads(out)["mean"]["ged"] == score_case(labels[:2] > 1, labels[2:] > 1, metrics=["ged"])["ged"]
    code, out, _ = run(tmp_path, *patterns, "--foreground", "1,2", "--json", "--metrics", "ged")
    assert json.loads(out)["mean"]["ged"] == score_case(labels[:2] > 0, labels[2:] > 0, metrics=["ged"])["ged"]
    probs = rng.dirichlet([1, 1, 1], (6, 6)).transpose(2, 0, 1)
    np.save(tmp_path / "a_p.npy", probs)
    code, out, _ = run(tmp_path, *patterns[:2], "--probs", "{case}_p.npy", "--classes", "1,2", "--json")
    assert code == 0
    assert json.loads(out)["mean"]["ged"] == score_case(labels[:2], probs=probs[None], classes=[1, 2])["ged"]


def test_patients_case_and_leftovers(run, tmp_path):
    one = np.eye(4, dtype=np.uint8)
    for patient in ("p1", "p2"):
        png(tmp_path / patient / "left.ra.png", one)
        png(tmp_path / patient / "LEFT.S0.png", one)
    png(tmp_path / "p3" / "left.s0.png", one)
    patterns = ("--raters", "{patient}/{case}.r{rater}.png", "--samples", "{patient}/{case}.s{sample}.png")
    code, out, err = run(tmp_path, *patterns, "--ignore-case", "--json", "--metrics", "ged")
    assert code == 0
    assert [case["case_id"] for case in json.loads(out)["cases"]] == ["p1/left", "p2/left"]
    assert err == "not used, no rater has a mask of their case: p3/left.s0.png\n"
    code, _, err = run(tmp_path, *patterns, "--metrics", "ged")
    assert code == 2
    assert "case 'p1/left' has masks of raters but no file for --samples" in err


def test_only_one_case_is_held(study, monkeypatch):
    """Files are opened as their case comes up, and a case is not kept by what is made of it."""
    import gc
    import weakref

    from multirater.benchmark import score

    alive: list[weakref.ref] = []
    most = 0
    original = ScoreFolder._view

    def spy(self, case):
        nonlocal most
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        view = original(self, case)
        alive.append(weakref.ref(view.raters))
        return view

    monkeypatch.setattr(ScoreFolder, "_view", spy)
    score.score_source(ScoreFolder(study, {"raters": GT, "samples": PRED}), "all", keep_components=True)
    assert len(alive) == 3
    assert most <= 1  # the case just scored, until the loop moves on


EIGHT = np.zeros((8, 9), np.uint8)
BAD = {
    "no raters": (("--samples", PRED), {}, "say which files are the raters' masks with --raters PATTERN"),
    "no predictions": (("--raters", GT), {}, "say which files are the predictions"),
    "pattern without case": (("--raters", "gt/{rater}.png", "--samples", PRED), {}, "lacks {case}"),
    "pattern without rater": (("--raters", "gt/{case}.png", "--samples", PRED), {}, "lacks {rater}"),
    "unknown field": (("--raters", GT, "--samples", "{case}{smple}.png"), {}, "did you mean 'sample'"),
    "class field": (("--raters", GT, "--samples", "{case}_{class}.png"), {}, "a task of their own"),
    "bad braces": (("--raters", "gt/{case_{rater}.png", "--samples", PRED), {}, "cannot be read"),
    "bad expression": (("--raters", "gt/{case:(}_{rater}.png", "--samples", PRED), {}, "regular expression"),
    "patient in one": (("--raters", "gt/{patient}_{case}{rater}.png", "--samples", PRED), {}, "{patient}"),
    "raters match nothing": (("--raters", "x/{case}_{rater}.png", "--samples", PRED), {}, "--raters 'x/{case}_"),
    "samples match nothing": (("--raters", GT, "--samples", "x{case}.png"), {}, "--samples 'x{case}.png' matches none"),
    "two files for one place": (("--raters", GT, "--samples", "*/{case}_s{sample}.png"), {}, "for one place"),
    "sample missing": (BASE, {"pred/k2_s3.png": None}, "case 'k2' has 3 files for --samples, case 'k1' has 4"),
    "all samples missing": (BASE, {f"pred/k2_s{i}.png": None for i in range(4)}, "case 'k2' has masks of raters but"),
    "other size": (BASE, {"pred/k1_s0.png": EIGHT[:, :8]}, "k1_s0.png has 8×8 pixels and"),
    "other size of a rater": (BASE, {"gt/k2_rb.png": EIGHT.T.copy()}, "k2_rb.png has 9×8 pixels and"),
    "grey mask": (BASE, {"pred/k1_s0.png": EIGHT + 7}, "holds the values 7, but a mask holds 0 and 1"),
    "colour mask": (BASE, {"gt/k1_ra.png": np.arange(216, dtype=np.uint8).reshape(8, 9, 3)}, "mask in colour"),
    "damaged": (BASE, {"gt/k10_rc.png": b"no picture"}, "k10_rc.png is damaged"),
    "truncated": (BASE, {"gt/k10_rc.png": "half"}, "k10_rc.png is damaged"),
    "empty file": (BASE, {"gt/k10_rc.png": b""}, "k10_rc.png is damaged"),
    "unknown kind": (
        ("--raters", GT, "--samples", "{case}.txt"),
        {"k1.txt": b"x", "k2.txt": b"x", "k10.txt": b"x"},
        "k1.txt is of an unknown kind",
    ),
    "other cases": (
        ("--raters", "gt/{case:k1}_r{rater}.png", "--samples", PRED.replace("{case}", "{case:k2}")),
        {},
        "case 'k1' has masks of raters but no file for --samples 'pred/{case:k2}",
    ),
    "probabilities 0 and 1": (("--raters", GT, "--probs", PRED), {}, "give masks as --samples"),
    "colour probabilities": (
        ("--raters", GT, "--probs", PROBS),
        {"prob/k1_s0.png": np.arange(216, dtype=np.uint8).reshape(8, 9, 3)},
        "is in colour",
    ),
    "other samples than probabilities": (
        (*BASE, "--probs", PROBS),
        {"prob/k1_s3.png": None, "prob/k1_s9.png": EIGHT},
        "other samples for --samples than for --probs",
    ),
    "several classes without channels": (
        ("--raters", GT, "--probs", PROBS, "--classes", "1,255"),
        {},
        "case k1: probs has shape",
    ),
    "classes and foreground": ((*BASE, "--classes", "1", "--foreground", "> 1"), {}, "one of the two"),
    "classes unreadable": ((*BASE, "--classes", "one"), {}, "'one' cannot be read"),
    "class 0": ((*BASE, "--classes", "0,1"), {}, "0 is background"),
    "foreground unreadable": ((*BASE, "--foreground", "white"), {}, "--foreground 'white' cannot be read"),
    "spacing of three": ((*BASE, "--spacing", "1,1,1"), {}, "give 2 millimetres"),
    "spacing zero": ((*BASE, "--spacing", "0,1"), {}, "all above 0"),
    "pictures as volumes": ((*BASE, "--spatial-dims", "3"), {}, "is no volume"),
    "unknown metric": ((*BASE, "--metrics", "gedd"), {}, "did you mean 'ged'"),
    "no metric": ((*BASE, "--metrics", ","), {}, "names no metric"),
    "metric without inputs": ((*BASE, "--metrics", "dice_rater.gap"), {}, "needs rater_probs"),
    "unknown variant": ((*BASE, "--variant", "dpersonna"), {}, "did you mean 'dpersona'"),
    "unknown option": ((*BASE, "--sample", "x"), {}, "No such option"),
    "csv in a file's place": ((*BASE, "--metrics", "ged", "--csv", "ROOT/gt/k1_ra.png/x.csv"), {}, "cannot write"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_are_one_sentence(run, study, name):
    options, files, words = BAD[name]
    for relative, content in files.items():
        path = study / relative
        if content is None:
            path.unlink()
        elif isinstance(content, str):
            path.write_bytes(path.read_bytes()[:-40])
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            png(path, content)
    code, out, err = run(study, *(o.replace("ROOT", str(study)) for o in options))
    assert (code, out) == (2, ""), err
    assert words in err
    assert len([line for line in err.splitlines() if not line.startswith("not used")]) == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.full((8, 9), 1.5), "holds values from 1.5 to 1.5"),
        (np.full((8, 9), -0.5), "probabilities between 0 and 1"),
        (np.full((8, 9), math.nan), "not finite"),
        (np.full((8, 9), 3), "whole numbers of type int64"),
        (np.full((8, 9), "a"), "type <U1"),
        (np.full((2, 2, 8, 9), 0.5), "has shape 2×2×8×9"),
        (np.zeros((0, 9)), "no pixel"),
        (np.array([None, {}], dtype=object), "Python objects"),
        (b"hello", "damaged or no npy file"),
    ],
)
def test_bad_arrays_in_a_folder(run, study, content, words):
    for case in ("k1", "k2", "k10"):
        path = study / f"{case}.npy"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.save(path, content, allow_pickle=True)
    code, out, err = run(study, "--raters", GT, "--mean-prob", "{case}.npy", "--metrics", "dice_soft")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_folders_that_cannot_be_scored(run, tmp_path, study):
    (tmp_path / "nothing").mkdir()
    code, _, err = run(tmp_path / "nothing", *BASE)
    assert (code, err.count("\n")) == (2, 1)
    assert "is an empty folder" in err
    code, _, err = run(tmp_path / "absent", *BASE)
    assert code == 2
    assert "does not exist" in err
    np.savez(tmp_path / "a.npz", raters=np.zeros((1, 4, 4), bool), samples=np.zeros((1, 4, 4), bool))
    code, _, err = run(tmp_path / "a.npz", *BASE)
    assert code == 2
    assert "--raters, --samples concern a folder" in err
    code, _, err = run(tmp_path / "a.npz", "--components", tmp_path / "a.npz")
    assert code == 2
    assert "is the input" in err
