"""``multirater score``: numbers equal to `score_case`, tables, JSON, and one sentence for every bad file."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from multirater.benchmark.cli import main
from multirater.benchmark.score_table import _that_fit
from multirater.metrics import score_case, score_cases
from multirater.metrics.bins import pooled_ece
from multirater.metrics.calibration import bins_case


@pytest.fixture
def arrays(reference):
    rng = np.random.default_rng(2)
    raters = np.stack([reference.random_masks(rng, 4, (8, 8)) for _ in range(3)])
    raters[1, :2] = False
    probs = rng.random((3, 5, 8, 8)).astype(np.float32)
    probs[1, 3] = 0
    return {"raters": raters, "probs": probs, "rater_probs": rng.random((3, 4, 8, 8)).astype(np.float32)}


@pytest.fixture
def run(tmp_path, capsys):
    """Write arrays, call the command, return (exit code, stdout, stderr)."""

    def call(given, *options):
        path = tmp_path / "mine.npz"
        if isinstance(given, dict):
            np.savez_compressed(path, **given)
        elif given is not None:
            path.write_bytes(given)
        with pytest.raises(SystemExit) as exit_:
            main(["score", str(path), *options])
        out = capsys.readouterr()
        return exit_.value.code, out.out, out.err

    return call


def lines(text):
    """First word of each line to the rest; the table stands before the explanations."""
    found = {}
    for line in text.splitlines():
        if line.split():
            found.setdefault(line.split()[0], line.split()[1:])
    return found


def test_json_holds_the_values_of_score_case(run, arrays):
    ids = np.array(["x", "y", "z"])
    code, out, err = run({**arrays, "case_ids": ids, "image": np.zeros(2)}, "--json")
    assert code == 0
    assert err == "not used: image\n"
    got = json.loads(out)
    assert [case["case_id"] for case in got["cases"]] == ["x", "y", "z"]
    assert (got["variant"], got["n_cases"]) == ("canonical", 3)
    for i, case in enumerate(got["cases"]):
        alone = score_case(**{k: v[i] for k, v in arrays.items()}, reasons=True)
        assert case.pop("reasons") == alone.pop("reasons")
        alone = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in alone.items()}
        assert {k: v for k, v in case.items() if k != "case_id"} == alone
    frame = score_cases(**arrays)
    assert got["mean"]["ged"] == pytest.approx(frame["ged"].mean())
    assert got["mean"]["dice_rater.each"] == pytest.approx(np.mean(frame["dice_rater.each"].tolist(), axis=0).tolist())
    assert got["n"]["ged"] == 3
    assert got["undefined"]["dice_rater.each"] == [0, 0, 0, 0]


def test_undefined_is_null_and_counted(run, arrays):
    given = {**arrays, "rater_valid": np.array([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 1]], bool)}
    code, out, _ = run(given, "--json", "--metrics", "ged.ustat,dice_rater.each,dice_rater.gap")
    got = json.loads(out)
    assert code == 0
    assert [case["ged.ustat"] is None for case in got["cases"]] == [False, True, False]
    assert got["cases"][1]["reasons"]["ged.ustat"] == "one rater has no pair of different members"
    assert (got["n"]["ged.ustat"], got["undefined"]["ged.ustat"]) == (2, 1)
    assert got["undefined"]["dice_rater.each"] == [0, 1, 2, 1]
    code, out, _ = run(given, "--metrics", "ged.ustat,dice_rater.each")
    table = lines(out)
    assert table["ged.ustat"][2:] == ["2", "1", "0"]
    assert table["dice_rater[3]"][1:] == ["nan", "1", "2", "0"]
    assert "one rater has no pair of different members (1 of 3 cases, left out)" in out


def test_table_has_means_and_raters(run, arrays):
    code, out, err = run(arrays)
    assert (code, err) == (0, "")
    table, frame = lines(out), score_cases(**arrays)
    for name in ("ged", "hm_iou", "dice_soft", "dice_rater.gap", "human.loo_ged"):
        assert table[name] == [f"{frame[name].mean():.4f}", f"{frame[name].std():.4f}", "3", "0", "0"], name
    for r in range(4):
        values = [row[r] for row in frame["dice_rater.each"]]
        spread = f"{np.std(values, ddof=1):.4f}"
        assert table[f"dice_rater[{r + 1}]"] == [f"{np.mean(values):.4f}", spread, "3", "0", "0"]


def test_single_case_masks_and_volumes(run, arrays):
    one = {"raters": arrays["raters"][0], "samples": arrays["probs"][0] > 0.5}
    code, out, _ = run(one, "--metrics", "ged", "--json")
    assert code == 0
    assert json.loads(out)["mean"]["ged"] == score_case(**one, metrics=["ged"])["ged"]
    volume = {"raters": arrays["raters"].swapaxes(0, 1), "samples": arrays["probs"].swapaxes(0, 1) > 0.5}
    code, out, _ = run(volume, "--metrics", "ged", "--json", "--spatial-dims", "3")
    assert code == 0
    got = json.loads(out)
    assert got["n_cases"] == 1
    assert got["mean"]["ged"] == score_case(**volume, metrics=["ged"])["ged"]


def test_class_maps_weights_and_regions(run):
    rng = np.random.default_rng(0)
    given = {
        "raters": rng.integers(0, 3, (2, 3, 6, 6)),
        "probs": rng.dirichlet([1, 1, 1], (2, 4, 6, 6)).transpose(0, 1, 4, 2, 3),
        "classes": np.array([1, 2]),
        "sample_weights": np.array([0.1, 0.2, 0.3, 0.4]),
        "rater_weights": np.full((2, 3), 1 / 3),
        "valid": rng.random((6, 6)) < 0.9,
        "spacing": np.array([1.0, 2.0]),
    }
    code, out, _ = run(given, "--json", "--metrics", "ged,ged.per_class,dice_soft")
    assert code == 0
    got = json.loads(out)
    shared = {k: given[k] for k in ("classes", "sample_weights", "valid")}
    alone = score_case(given["raters"][1], probs=given["probs"][1], **shared, metrics=["ged", "ged.per_class"])
    assert got["cases"][1]["ged"] == alone["ged"]
    assert got["cases"][1]["ged.per_class"] == alone["ged.per_class"]
    table = lines(run(given, "--metrics", "ged.per_class")[1])
    assert table["ged[class"][0] == "1]"  # "ged[class 1]" is no markup


def test_variants_side_by_side(run, arrays):
    code, out, _ = run(arrays, "--variant", "all", "--metrics", "ged,dice_match,dice_each")
    assert code == 0
    head = next(line.split() for line in out.splitlines() if line.startswith("metric"))
    cells = re.split(r"\s{2,}", next(line for line in out.splitlines() if line.startswith("ged ")).strip())
    row = dict(zip(head[1:], cells[1:], strict=True))
    assert row["canonical"] == f"{score_cases(**arrays)['ged'].mean():.4f}"
    assert row["tab"] == f"{score_cases(**arrays, variant='tab')['ged'].mean():.4f}"
    assert re.search(r"Same as canonical here: .*\bccdm, .*\bqubiq\b", out)
    code, out, _ = run(arrays, "--variant", "all", "--metrics", "ged", "--json")
    got = json.loads(out)
    assert code == 0
    for name in ("canonical", "dpersona", "kohl"):
        frame = score_cases(**arrays, variant=name, metrics=["ged"])
        mean = got["variants"][name]["mean_defined"]["ged"]
        assert (mean is None and frame["ged"].isna().all()) or mean == pytest.approx(frame["ged"].mean())
    assert "ccdm" in got["same_as_canonical"]


def test_tables_fit_their_terminal():
    found = {name: {} for name in ("canonical", *(f"variant{i}" for i in range(7)))}
    assert [list(part) for part in _that_fit(found, 1000)] == [list(found)]
    narrow = _that_fit(found, 80)
    assert all(next(iter(part)) == "canonical" for part in narrow)
    assert [name for part in narrow for name in list(part)[1:]] == list(found)[1:]  # each once, in order
    assert max(map(len, narrow)) == 3
    assert [list(part) for part in _that_fit(found, 1)] == [["canonical", name] for name in list(found)[1:]]
    assert _that_fit({"kohl": {}}, 10) == [{"kohl": {}}]


def test_too_few_samples_is_an_error_only_by_name(run, arrays):
    few = {"raters": arrays["raters"], "samples": arrays["probs"][:, :2] > 0.5}
    code, _, err = run(few, "--variant", "dpersona", "--metrics", "dice_match")
    assert (code, err.count("\n")) == (2, 1)
    assert "2 samples for 4 raters" in err
    code, out, _ = run(few, "--variant", "all", "--metrics", "dice_match")
    assert code == 0
    assert "[dpersona, dpersona_identity]: 2 samples for 4 raters" in out


def test_pionono_pools_over_cases(run, arrays):
    valid = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], bool)
    code, out, _ = run(
        {**arrays, "rater_valid": valid}, "--variant", "pionono", "--json", "--metrics", "dice_rater.each"
    )
    assert code == 0
    got = json.loads(out)
    masks, maps = arrays["raters"], arrays["rater_probs"] > 0.5
    for r in range(4):
        use = valid[:, r]
        inter = (masks[use, r] & maps[use, r]).sum()
        want = (2 * inter + 1e-4) / (masks[use, r].sum() + maps[use, r].sum() + 1e-4)
        assert got["pooled"]["dice_rater.each"][r] == pytest.approx(want)
    _, out, _ = run({**arrays, "rater_valid": valid}, "--variant", "pionono", "--metrics", "dice_rater.each")
    assert lines(out)["dice_rater.pooled[1]"][0] == f"{got['pooled']['dice_rater.each'][0]:.4f}"
    # Without rater_probs one common mask is pooled.
    common = {k: arrays[k] for k in ("raters", "probs")}
    got = json.loads(run(common, "--variant", "pionono", "--json", "--metrics", "dice_rater")[1])["pooled"]
    mask = arrays["probs"].mean(1) > 0.5
    inter = (masks[:, 0] & mask).sum()
    assert got["dice_rater.each"][0] == pytest.approx((2 * inter + 1e-4) / (masks[:, 0].sum() + mask.sum() + 1e-4))


def test_undefined_values_enter_the_mean_by_who_left_them_so(run):
    """Left out where the data leave a value undefined, the worst value where the predictions do; both are counted."""
    y = np.zeros((4, 2, 6, 6), bool)
    y[:, :, 1:4, 1:4] = True
    y[:, 1, 2] = False
    y[1, 1] = y[1, 0]  # raters agree everywhere: no pixel for ece.disagree, whatever the method
    p = np.full((4, 3, 6, 6), 0.25)
    p[2] = y[2].mean(0)
    p[3] = 0  # every probability is 0, which MetricsReloaded leaves out
    code, out, _ = run({"raters": y, "probs": p}, "--json", "--variant", "metrics_reloaded", "--metrics",
                       "ece,ece.disagree,ged")  # fmt: skip
    assert code == 0
    got = json.loads(out)
    assert [case["ece.disagree"] is None for case in got["cases"]] == [False, True, False, True]
    assert (got["n"]["ece.disagree"], got["left_out"]["ece.disagree"], got["replaced"]["ece.disagree"]) == (3, 1, 1)
    values = [case["ece.disagree"] for case in got["cases"] if case["ece.disagree"] is not None]
    assert got["mean"]["ece.disagree"] == pytest.approx(np.mean([*values, 1.0]))
    assert got["sd"]["ece.disagree"] == pytest.approx(np.std([*values, 1.0], ddof=1))
    assert got["mean_defined"]["ece.disagree"] == pytest.approx(np.mean(values))
    assert got["undefined"] == {"ece": 1, "ece.disagree": 2, "ged": 0}
    why = {(w["metric"], w["treatment"]): w["cases"] for w in got["why"]}
    assert why == {
        ("ece", "replaced by 1"): 1,
        ("ece.disagree", "left out"): 1,
        ("ece.disagree", "replaced by 1"): 1,
    }
    # What the predictions leave undefined in every case does not apply to them: no mean, rather than the worst value.
    code, out, _ = run({"raters": y, "samples": p[:, :1] > 0.5}, "--json", "--metrics", "ged.debiased")
    got = json.loads(out)
    assert (got["mean"]["ged.debiased"], got["n"]["ged.debiased"], got["replaced"]["ged.debiased"]) == (None, 0, 0)


def test_the_worst_distance_is_the_diagonal_of_the_image(run):
    y = np.zeros((3, 2, 6, 8), bool)
    y[:, :, 2:5, 2:5] = True
    s = np.zeros((3, 1, 6, 8), bool)
    s[:2, :, 3:6, 3:6] = True
    given = {"raters": y, "samples": s, "spacing": np.array([1.0, 0.5])}
    code, out, _ = run(given, "--json", "--variant", "medpy", "--metrics", "hd95.mean")
    assert code == 0
    got = json.loads(out)
    first, second, third = (case["hd95.mean"] for case in got["cases"])
    assert third is None
    assert got["mean"]["hd95.mean"] == pytest.approx((first + second + math.hypot(6, 4)) / 3)
    assert (got["n"]["hd95.mean"], got["replaced"]["hd95.mean"]) == (3, 1)


def test_values_pooled_over_all_cases(run, arrays):
    valid = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], bool)
    cases = [bins_case(arrays["raters"][i], probs=arrays["probs"][i], rater_valid=valid[i]) for i in range(len(valid))]
    code, out, _ = run({**arrays, "rater_valid": valid}, "--json")
    assert code == 0
    got = json.loads(out)["pooled"]
    for region in ("", ".full"):
        assert got[f"ece{region}"] == float(pooled_ece([case[f"ece{region}"] for case in cases]))
    masks, maps = arrays["raters"], arrays["rater_probs"] > 0.5
    for r in range(4):
        a, b = masks[valid[:, r], r], maps[valid[:, r], r]
        equal, n = (a == b).sum(), a.size
        assert got["micro_miou.each"][r] == pytest.approx(equal / (2 * n - equal))
    code, out, _ = run(arrays, "--metrics", "ged,ece.pooled")
    table = lines(out)
    assert table["ece.pooled"] == [
        f"{float(pooled_ece([bins_case(arrays['raters'][i], probs=arrays['probs'][i])['ece'] for i in range(3)])):.4f}"
    ]
    assert "micro_miou.pooled" not in table
    code, _, err = run({"raters": arrays["raters"], "rater_probs": arrays["rater_probs"]}, "--metrics", "ece.pooled")
    assert (code, err.count("\n")) == (2, 1)
    assert "'ece.pooled' needs mean_prob or probs or samples" in err


Y = np.zeros((2, 3, 6, 6), bool)
P = np.full((2, 4, 6, 6), 0.25)
BAD = {
    "no raters": ({"probs": P}, (), "no array 'raters'"),
    "no prediction": ({"raters": Y, "image": P}, (), "no 'samples' or 'probs' (it has image, raters)"),
    "raters too flat": ({"raters": Y[0, 0], "probs": P}, (), "raters has 2 axes"),
    "volume without the option": ({"raters": Y[None], "probs": P[None]}, (), "--spatial-dims 3"),
    "samples without case axis": ({"raters": Y, "samples": Y[0]}, (), "samples has shape (3, 6, 6)"),
    "other number of cases": ({"raters": Y, "samples": Y[:1]}, (), "samples has 1 cases, raters has 2"),
    "other size": ({"raters": Y, "samples": Y[..., :5]}, (), "case 0: samples has shape (3, 6, 5)"),
    "above 1": ({"raters": Y, "probs": P * 5}, (), "case 0: probs holds values from 1.25 to 1.25"),
    "nan": ({"raters": Y, "probs": P * math.nan}, (), "case 0: probs holds nan"),
    "strings": ({"raters": Y.astype(str), "probs": P}, (), "type <U5"),
    "objects": ({"raters": Y, "probs": np.array([P, None], dtype=object)}, (), "Python objects"),
    "classes": ({"raters": Y, "probs": P, "classes": np.array(1)}, (), "list of labels"),
    "no case": ({"raters": Y[:0], "probs": P[:0]}, (), "holds no case"),
    "unknown variant": ({"raters": Y, "probs": P}, ("--variant", "dpersonna"), "did you mean 'dpersona'"),
    "unknown metric": ({"raters": Y, "probs": P}, ("--metrics", "ged,gedd"), "did you mean 'ged'"),
    "missing input": ({"raters": Y, "probs": P}, ("--metrics", "dice_rater.gap"), "needs rater_probs"),
    "dimensions": ({"raters": Y, "probs": P}, ("--spatial-dims", "4"), "spatial-dims"),
    "not an archive": (b"hello", (), "damaged or no .npz file"),
    "empty file": (b"", (), "damaged or no .npz file"),
    "missing file": (None, (), "does not exist"),
    "no rater": ({"raters": Y[:, :0], "probs": P}, (), "so no rater"),
    "no sample": ({"raters": Y, "samples": Y[:, :0]}, (), "case 0: samples or probs holds no sample"),
    "no pixel": ({"raters": Y[..., :0], "probs": P[..., :0]}, (), "no pixel"),
    "complex": ({"raters": Y, "probs": P + 0j}, (), "type complex128"),
    "dates": ({"raters": Y, "probs": P.astype("M8[s]")}, (), "type datetime64"),
    "infinite": ({"raters": Y, "probs": np.full_like(P, np.inf)}, (), "from inf to inf"),
    "negative labels": ({"raters": -Y.astype(int) - 1, "samples": Y}, (), "negative label"),
    "fractions": ({"raters": Y + 0.25, "samples": Y}, (), "holds fractions"),
    "mask of 0 and 255": ({"raters": Y.astype(np.uint8) + 255, "samples": Y.astype(np.uint8) + 255}, (), "0 and 255"),
    "weights of another length": ({"raters": Y, "probs": P, "sample_weights": np.full(3, 1 / 3)}, (), "sample_weights"),
    "weights that do not sum": ({"raters": Y, "probs": P, "sample_weights": np.full(4, 0.3)}, (), "sum to 1"),
    "weights without a number": ({"raters": Y, "probs": P, "rater_weights": np.full(3, np.nan)}, (), "sum to 1"),
    "valid of another size": ({"raters": Y, "probs": P, "valid": np.ones((5, 5), bool)}, (), "valid has shape (5, 5)"),
    "valid of other values": ({"raters": Y, "probs": P, "valid": np.full((6, 6), 7)}, (), "true and false"),
    "rater_valid of another length": ({"raters": Y, "probs": P, "rater_valid": np.ones(2, bool)}, (), "rater_valid"),
    "spacing of one number": ({"raters": Y, "probs": P, "spacing": np.array([1.0])}, (), "spacing"),
    "spacing below 0": ({"raters": Y, "probs": P, "spacing": np.array([1.0, -1.0])}, (), "all above 0"),
    "case_ids of another length": ({"raters": Y, "probs": P, "case_ids": np.array(["a"])}, (), "case_ids has 1 cases"),
    "case_ids twice": ({"raters": Y, "probs": P, "case_ids": np.array(["a", "a"])}, (), "'a' more than once"),
    "classes twice": ({"raters": Y * 1, "probs": P, "classes": np.array([1, 1])}, (), "different labels"),
    "background as a class": ({"raters": Y * 1, "samples": Y * 1}, ("--classes", "0"), "0 is background"),
    "classes of booleans": ({"raters": Y, "samples": Y}, ("--classes", "1,2"), "class maps"),
    "maps of other raters": ({"raters": Y, "rater_probs": P}, (), "rater_probs has shape"),
    "mean map outside": ({"raters": Y, "mean_prob": P[:, 0] - 1}, (), "mean_prob holds values from -0.75"),
    "channels that do not fit": ({"raters": Y, "probs": np.full((2, 4, 3, 6, 6), 0.3)}, (), "two channels"),
    "other samples than probs": ({"raters": Y, "samples": Y, "probs": P}, (), "the same samples in both"),
    "patterns for a file": ({"raters": Y, "probs": P}, ("--raters", "x"), "concern a folder"),
    "spacing option": ({"raters": Y, "probs": P}, ("--spacing", "1"), "2 millimetres"),
    "spacing text": ({"raters": Y, "probs": P}, ("--spacing", "a,b"), "'a,b' cannot be read"),
    "huge label": ({"raters": Y + 10**9, "samples": Y * 1}, (), "the label 1000000000; labels go up to 65535"),
    "volumes as slices": ({"raters": Y, "samples": Y[:1]}, (), "--spatial-dims 3 if these are volumes"),
    "needs as many samples": (
        {"raters": Y, "samples": Y[:, :2]},
        ("--variant", "dpersona", "--metrics", "dice_match"),
        "2 samples for 3 raters",
    ),
    "a variant without the metric": (
        {"raters": Y, "samples": Y},
        ("--variant", "mose", "--metrics", "dice_each"),
        "variant does not define dice_each",
    ),
    "csv to a folder": ({"raters": Y, "samples": Y}, ("--metrics", "ged", "--csv", "/"), "is a directory"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("json_", [(), ("--json",)])
def test_bad_input_is_one_sentence(run, name, json_):
    given, options, words = BAD[name]
    code, out, err = run(given, *options, *json_)
    assert code == 2
    assert out == ""
    message = [line for line in err.splitlines() if not line.startswith("not used")]
    assert len(message) == 1
    assert words in message[0]
    assert "Traceback" not in err


def test_truncated_and_corrupt_archives(run, tmp_path):
    path = tmp_path / "whole.npz"
    np.savez(path, raters=Y, probs=P)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:-30], whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]):
        code, _, err = run(damaged)
        assert (code, err.count("\n")) == (2, 1)
        assert "damaged" in err
    single = tmp_path / "single.npy"
    np.save(single, Y)
    code, _, err = run(single.read_bytes())
    assert code == 2
    assert "single array" in err


def test_a_folder_and_the_traceback_switch(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["score", str(tmp_path), "--debug"])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert "is a folder" in err
    assert "Traceback" in err


def test_help_names_the_arrays(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["score", "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("raters", "probs", "rater_valid", "--variant", "--json", "np.savez"))
