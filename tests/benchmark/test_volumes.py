"""Volumes end to end: NIfTI files, training on slices, one latent a sample for all slices, scores in the volume."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from multirater.benchmark.cell import Cell
from multirater.benchmark.config import resolve
from multirater.benchmark.derived import best_thresholds, dice_at_thresholds
from multirater.benchmark.monitor import Monitor
from multirater.benchmark.predictions import predict_cases, read_predictions
from multirater.benchmark.runner import plan
from multirater.benchmark.scored_cases import as_case, masks_of, places, rows_of, subset
from multirater.benchmark.worker import run_cell
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from multirater.datasets.case_rows import CaseRows
from multirater.methods import create_method

PATIENTS, SIDE, SAMPLES = 12, 32, 4
METHODS = ("unet_soft", "prob_unet", "dpersona")
NOISE = ("prob_unet", "dpersona", "phiseg", "pionono", "mc_dropout")
SPACING = (3.0, 0.7, 0.7)


def write(root: Path) -> None:
    """Ellipsoids of 4 to 6 slices, outlined by three raters at three sizes; rater 3 never saw case 3."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for case in range(PATIENTS):
        depth, (row, column), radius = 4 + case % 3, rng.uniform(13, 18, 2), rng.uniform(6, 8)
        z = np.arange(depth) - (depth - 1) / 2

        def ball(size: float, z=z, row=row, column=column, radius=radius) -> np.ndarray:
            distance = (rows - row) ** 2 + (columns - column) ** 2 + (2.5 * z[:, None, None]) ** 2
            return distance < (size * radius) ** 2

        folder = root / f"case{case}"
        folder.mkdir()
        affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1])
        image = (ball(1) + rng.normal(0, 0.3, (depth, SIDE, SIDE))).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image.transpose(2, 1, 0), affine), folder / "image.nii.gz")
        for rater, size in enumerate((0.7, 1, 1.3), 1):
            if (case, rater) != (3, 3):
                mask = ball(size).astype(np.uint8).transpose(2, 1, 0)
                nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"rater_{rater}.nii.gz")
    (root / "multirater.yaml").write_text(
        "image: '{case}/image.nii.gz'\nmask: '{case}/rater_{rater}.nii.gz'\nidentity: consistent\nwindow: [-1, 2]\n"
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIRATER_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("volumes")
        write(folder)
        yield folder


@pytest.fixture(scope="module")
def data(root):
    return open_dataset("folder", root=str(root))


@pytest.fixture(scope="module")
def cells(root, tmp_path_factory):
    """Finished smoke cells by method, and the human one."""
    overrides = {
        "dataset": {"root": str(root)},
        "train": {"steps": 3},
        "eval": {"n_samples": SAMPLES, "max_cases": 3},
    }
    results = tmp_path_factory.mktemp("results")
    report = plan(list(METHODS), "folder", "smoke", [0], [0], overrides, results, Monitor(quiet=True))
    found = {cell.spec["method"]["name"]: cell for cell in report.cells}
    for name, cell in found.items():
        assert run_cell(cell.folder, threads=1) == "ok", name
    return found


def metrics(cell: Cell) -> pd.DataFrame:
    path = cell.eval_folder(cell.spec["eval_key"]) / "metrics.csv"
    return pd.read_csv(path, dtype={"rater": str, "region": str}).fillna({"rater": "", "region": ""})


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0


def iou_distance(a: np.ndarray, b: np.ndarray) -> float:
    return 1 - (a & b).sum() / (a | b).sum() if (a | b).any() else 0.0


@pytest.mark.parametrize("name", METHODS)
def test_scores_are_those_of_the_volume(cells, data, name):
    """GED, soft Dice and Dice of each rater, each written out from the stored slices."""
    cell, frame = cells[name], metrics(cells[name])
    stored = read_predictions(cell.predictions("test"))
    cases = {c.case_id: c for c in data.volumes(range(len(data)))}
    output = "personalised" if name == "dpersona" else "consensus"
    assert set(frame.case_id) <= set(cases)
    assert frame.case_id.nunique() == 3
    for case_id, of_case in frame.groupby("case_id"):
        case = cases[case_id]
        slices = [data.records[row].case_id for row in case.rows]
        at = [stored.case_ids.index(s) for s in slices]
        _, masks, valid = data.arrays(case.rows)
        raters = [masks[:, r].astype(bool) for r in range(3) if valid[0, r]]  # each D×H×W
        samples = [np.stack([stored.samples[i, s] for i in at]) for s in range(SAMPLES)]
        mean = np.stack([stored.mean[i] for i in at])

        def value(output: str, metric: str, rater: str = "", of_case=of_case) -> float:
            rows = of_case[(of_case.output == output) & (of_case.metric == metric)]
            rows = rows[rows.rater == rater]
            assert len(rows) == 1
            return float(rows.value.iloc[0])

        cross = np.mean([iou_distance(a, b) for a in raters for b in samples])
        within = np.mean([iou_distance(a, b) for a in raters for b in raters])
        between = np.mean([iou_distance(a, b) for a in samples for b in samples])
        assert value("diverse", "ged") == pytest.approx(2 * cross - within - between, abs=1e-9)
        levels = (0.1, 0.3, 0.5, 0.7, 0.9)
        share = np.mean(raters, axis=0)
        assert value("diverse", "dice_soft") == pytest.approx(
            np.mean([dice(share > t, mean > t) for t in levels]), abs=1e-9
        )
        maps = stored.raters
        for r, rater in enumerate(data.describe().rater_ids):
            if valid[0, r]:
                own = np.stack([maps[i, r] for i in at]) if output == "personalised" else mean
                assert value(output, "dice_rater.each", rater) == pytest.approx(
                    dice(masks[:, r] > 0, own > 0.5), abs=1e-9
                )


def test_human_rows_are_those_of_the_volume(cells, data):
    frame = metrics(cells["human"])
    for case in data.volumes(range(len(data))):
        rows = frame[(frame.case_id == case.case_id) & (frame.output == "human") & (frame.metric == "diversity_raters")]
        if len(rows):
            masks, valid = masks_of(data, case)
            raters = masks[valid] > 0
            within = np.mean([iou_distance(a, b) for a in raters for b in raters])
            assert rows.value.iloc[0] == pytest.approx(within, abs=1e-9)
    assert len(frame.case_id.unique()) == 3


def test_records_count_volumes(cells):
    result = json.loads((next(cells["dpersona"].folder.glob("eval/*")) / "result.json").read_text())
    assert result["n_cases"] == result["n_patients"] == 3


@pytest.mark.parametrize("name", NOISE)
def test_a_sample_is_one_draw_for_all_slices_of_a_volume(data, name):
    """A volume whose slices are equal has equal slices in every sample, and samples that differ."""
    images = np.repeat(np.random.default_rng(0).random((1, 1, SIDE, SIDE), np.float32), 3, axis=0)
    cases = [CaseRows("v", "p", np.arange(3), volume=True)]

    class Equal:
        name = "equal"
        records = [type("Record", (), {"case_id": f"v/z{k}"}) for k in range(3)]  # noqa: RUF012

        def volumes(self, indices):
            return cases

        def arrays(self, rows):
            return images[rows], None, None

    options = resolve(name, "folder", "smoke", {"dataset": {"root": "unused"}})["method"]["options"]
    torch.manual_seed(0)
    method = create_method(name, data.describe(), **options).eval()
    if name == "dpersona":
        method.personalised_trained.fill_(True)
    stored = predict_cases(method, Equal(), range(3), 5, 0, torch.device("cpu"))
    assert stored.case_ids == ["v/z0", "v/z1", "v/z2"]
    for slices in (stored.mean, stored.mean_log, stored.raters):
        if slices is not None:
            np.testing.assert_allclose(slices[1:], np.broadcast_to(slices[:1], slices[1:].shape), atol=1e-5)
    assert (stored.samples == stored.samples[:1]).mean() > 0.999
    assert not method.slices_share_noise
    # Without the mark every image has noise of its own.
    with torch.inference_mode():
        own = method.predict(torch.from_numpy(images), 5, torch.Generator().manual_seed(0)).samples
    assert not torch.allclose(own[0], own[1], atol=1e-4)


def test_stored_rows_become_cases():
    cases = [CaseRows("a", "p", np.array([4])), CaseRows("v", "q", np.array([2, 0, 3]), volume=True)]
    assert [(p.start, p.stop) for p in places(cases)] == [(0, 1), (1, 4)]
    assert rows_of(cases).tolist() == [4, 2, 0, 3]
    rows = np.arange(3 * 2 * 4 * 5).reshape(3, 2, 4, 5)
    assert as_case(rows, True).shape == (2, 3, 4, 5)
    assert (as_case(rows, True)[1, 2] == rows[2, 1]).all()
    assert (as_case(rows[:1], False) == rows[0]).all()


def test_a_limit_counts_volumes_and_spreads_over_patients():
    cases = [CaseRows(f"v{i}", p, np.arange(3) + 3 * i, volume=True) for i, p in enumerate("aabbc")]
    assert [c.case_id for c in subset(cases, 3)] == ["v0", "v2", "v4"]
    assert [c.case_id for c in subset(cases, 4)] == ["v0", "v1", "v2", "v4"]
    assert subset(cases, None) == cases
    assert rows_of([]).tolist() == []


def test_thresholds_of_volumes_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    cases = [
        (rng.random((depth, 8, 8)).astype(np.float32), rng.random((2, depth, 8, 8)) < 0.4, np.array([True, depth > 2]))
        for depth in (2, 3, 5)
    ]
    own, common = best_thresholds([dice_at_thresholds(*case[:2]) for case in cases], [case[2] for case in cases])
    thresholds = np.round(np.arange(0.02, 1.0, 0.02), 2)
    scores = np.array(
        [
            [np.mean([dice(mean > t, masks[r]) for mean, masks, valid in cases if valid[r]]) for r in range(2)]
            for t in thresholds
        ]
    )
    assert own.tolist() == thresholds[scores.argmax(0)].tolist()
    assert common == thresholds[scores.mean(1).argmax()]


def test_a_rater_of_some_slices_only_is_refused(data, monkeypatch):
    case = next(c for c in data.volumes(range(len(data))) if c.case_id == "case0")
    masks, valid = data.masks(case.rows)
    valid = valid.copy()
    valid[1, 2] = False
    monkeypatch.setattr(data, "masks", lambda rows: (masks, valid))
    with pytest.raises(UserError, match="rater '3' saw some slices of volume 'case0'"):
        masks_of(data, case)
