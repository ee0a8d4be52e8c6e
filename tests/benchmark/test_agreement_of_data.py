"""Agreement of the raters of a data set: the numbers of `agreement_cases`, kept and shown."""

import json
import math

import h5py
import numpy as np
import pytest
from multirater.benchmark.agreement import agreement, known_agreements, stored_agreement
from multirater.benchmark.cli import main
from multirater.datasets import open_dataset
from multirater.metrics import agreement_cases

SIDE = 40


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))


def masks_of(rng, cases, raters, classes):
    """Discs of several sizes, some empty; class indices."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    out = np.zeros((cases, raters, SIDE, SIDE), np.uint8)
    for case in range(cases):
        row, column = rng.uniform(8, 32, 2)
        for rater in range(raters):
            distance = (rows - row) ** 2 + (columns - column) ** 2
            for k in range(classes):
                out[case, rater][distance < (rng.uniform(0, 8) - 2 * k) ** 2] = k + 1
    out[0] = 0
    return out


def write(path, masks, valid, classes=1, **more):
    cases, raters = masks.shape[:2]
    with h5py.File(path, "w") as file:
        file["images"] = np.random.default_rng(1).random((cases, 1, SIDE, SIDE), np.float32)
        file["masks"], file["valid"] = masks * valid.reshape(cases, raters, *[1] * (masks.ndim - 2)), valid
        ids = {"case_id": [f"c{i:03d}" for i in range(cases)], "patient_id": [f"p{i // 2}" for i in range(cases)]}
        for name, texts in {**ids, "rater_id": [f"r{i}" for i in range(raters)]}.items():
            file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
        for name, values in more.items():
            file.create_dataset(name, data=values, dtype=h5py.string_dtype() if name == "volume" else None)
        file.attrs["identity"] = "consistent"
        if classes > 1:
            file.attrs["class_names"] = [f"k{k}" for k in range(classes)]
    return open_dataset("hdf5", root=str(path))


def close(found, wanted):
    assert np.array(found, float) == pytest.approx(np.array(wanted, float), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("classes", "missing"), [(1, False), (1, True), (3, True)])
def test_numbers_are_those_of_the_metrics(tmp_path, classes, missing):
    rng = np.random.default_rng(classes)
    masks = masks_of(rng, 70, 4, classes)
    valid = rng.random((70, 4)) < 0.7 if missing else np.ones((70, 4), bool)
    valid[:, 0] |= ~valid.any(1)
    if missing:
        valid[5] = [False, True, False, False]
    data = write(tmp_path / "a.h5", masks, valid, classes)
    found = agreement(data)
    stored, present = data.masks(range(70))
    wanted = agreement_cases(stored, present, classes=list(range(1, classes + 1)) if classes > 1 else None)
    for name in ("pairwise_dice", "pair_dice", "pair_cases", "rater_cases", "rater_area"):
        close(found[name], wanted[name])
    for name in ("fleiss_kappa", "fleiss_kappa.full", "vote_histogram", "vote_histogram.full"):
        close(found[name], wanted[name])
    drawn = stored.reshape(70, 4, -1).any(-1)
    assert found["rater_empty"] == (present & ~drawn).sum(0).tolist()
    assert (found["n_cases"], found["classes"]) == (70, classes)


def test_a_volume_is_one_case_and_spacing_sets_the_box(tmp_path):
    masks = masks_of(np.random.default_rng(0), 12, 2, 1)
    volume = [f"v{i // 4}" for i in range(12)]
    spacing = np.tile([3.0, 2.0, 2.0], (12, 1))
    data = write(
        tmp_path / "a.h5", masks, np.ones((12, 2), bool), volume=volume, slice=np.arange(12) % 4, spacing=spacing
    )
    # One patient a volume.
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["patient_id"][...] = volume
    data = open_dataset("hdf5", root=str(tmp_path / "a.h5"))
    found = agreement(data)
    volumes = [masks[i : i + 4].transpose(1, 0, 2, 3) for i in (0, 4, 8)]
    wanted = agreement_cases(volumes, spacing=(3.0, 2.0, 2.0))
    for name in ("pairwise_dice", "fleiss_kappa", "fleiss_kappa.full", "vote_histogram", "vote_histogram.full"):
        close(found[name], wanted[name])
    assert found["n_cases"] == 3


def test_nothing_drawn_has_no_kappa(tmp_path):
    data = write(tmp_path / "a.h5", np.zeros((3, 2, SIDE, SIDE), np.uint8), np.ones((3, 2), bool))
    found = agreement(data)
    assert found["pairwise_dice"] == 1
    assert found["fleiss_kappa"] is None
    assert found["vote_histogram"] == [1, 0, 0]
    json.dumps(found, allow_nan=False)


def test_blocks_of_cases_change_nothing(tmp_path, monkeypatch):
    data = write(tmp_path / "a.h5", masks_of(np.random.default_rng(1), 7, 3, 1), np.ones((7, 3), bool))
    whole = agreement(data)
    for cases in (1, 3):
        monkeypatch.setattr("multirater.benchmark.agreement._BYTES_AT_ONCE", cases * 3 * SIDE**2)
        seen = []
        assert agreement(data, seen.append) == whole
        assert seen == [*range(cases, 7, cases), 7]


def test_it_is_computed_once_for_an_order_of_the_raters(tmp_path, monkeypatch):
    write(tmp_path / "a.h5", masks_of(np.random.default_rng(0), 6, 3, 1), np.ones((6, 3), bool))
    by_area = open_dataset("hdf5", root=str(tmp_path / "a.h5"), identity="by_area")
    stored = open_dataset("hdf5", root=str(tmp_path / "a.h5"))
    first, other = stored_agreement(stored), stored_agreement(by_area)
    assert first["pair_dice"] != other["pair_dice"]
    assert first["pairwise_dice"] == pytest.approx(other["pairwise_dice"])
    assert {r["fingerprint"] for r in known_agreements("hdf5")} == {stored.fingerprint, by_area.fingerprint}
    (stored.prepare() / "agreement/damaged.json").write_text("[1]")
    (stored.prepare() / "agreement/cut.json").write_text('{"schema"')
    assert len(known_agreements("hdf5")) == 2
    monkeypatch.setattr("multirater.benchmark.agreement.agreement", lambda *a: pytest.fail("computed again"))
    assert stored_agreement(open_dataset("hdf5", root=str(tmp_path / "a.h5"))) == first


def test_prepare_and_info_show_it(tmp_path, capsys):
    masks = masks_of(np.random.default_rng(0), 6, 3, 1)
    write(tmp_path / "a.h5", masks, np.ones((6, 3), bool))
    with pytest.raises(SystemExit) as ended:
        main(["prepare", "hdf5", "--root", str(tmp_path / "a.h5"), "--set", "identity=by_area"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    wanted = agreement_cases(masks)
    assert f"Fleiss' kappa {wanted['fleiss_kappa']:.3f} in the box around the raters" in text
    assert "area1-area2" in text
    with pytest.raises(SystemExit):
        main(["info", "hdf5"])
    text = " ".join(capsys.readouterr().out.split())
    assert "prepared here: identity=by_area" in text
    assert f"{wanted['fleiss_kappa.full']:.3f} over all pixels" in text
    with pytest.raises(SystemExit):
        main(["info", "hdf5", "--json"])
    (card,) = json.loads(capsys.readouterr().out)
    assert card["prepared"][0]["pairwise_dice"] == pytest.approx(wanted["pairwise_dice"])
    assert not math.isnan(card["prepared"][0]["fleiss_kappa"])
