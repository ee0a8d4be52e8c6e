"""Pixels outside a field of view count in no score: evaluation, human rows, thresholds and validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from multirater.benchmark import validation
from multirater.benchmark.derived import best_thresholds, dice_at_thresholds, rater_area_ranks
from multirater.benchmark.evaluation import Evaluation
from multirater.benchmark.predictions import StoredPredictions
from multirater.datasets import open_dataset
from multirater.datasets.base import Dataset
from multirater.metrics import human_case, score_case

SIZE, S = 32, 5


def inside() -> np.ndarray:
    """The field of view of every case: a disc off the centre, so that it cuts through lesions."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return (rows - 12) ** 2 + (columns - 12) ** 2 < 10**2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIRATER_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(Dataset, "valid_region", lambda self, rows: np.stack([inside()] * len(rows)))
        dataset = open_dataset("synthetic", size=SIZE, cases=40, raters=3)
        dataset.prepare()
        yield dataset


def predictions(data: Dataset, indices: np.ndarray) -> StoredPredictions:
    rng = np.random.default_rng(0)
    masks = data.arrays(indices)[1]
    samples = (0.7 * masks.mean(1)[:, None] + 0.3 * rng.random((len(indices), S, SIZE, SIZE))).astype(np.float32)
    logs = np.stack([np.log(1 - samples + 1e-8).mean(1), np.log(samples + 1e-8).mean(1)], 1).astype(np.float32)
    raters = (0.2 + 0.5 * masks + 0.2 * rng.random(masks.shape)).astype(np.float32)
    ids = [data.records[i].case_id for i in indices]
    return StoredPredictions(ids, samples.mean(1), logs, samples > 0.5, raters, S, sample_mean=samples.mean(1))


def test_scores_are_those_of_the_pixels_inside(data: Dataset) -> None:
    split = data.split(0)
    stored, val = predictions(data, split.test), predictions(data, split.val)
    evaluation = Evaluation(data, data.describe(), 0, split.test)
    evaluation.method(stored, val, S)
    frame = evaluation.frame()
    masks = data.arrays(split.test)[1].astype(bool)
    differs = 0
    for i, case in enumerate(stored.case_ids):
        assert stored.samples is not None
        assert stored.raters is not None
        seen: dict[str, Any] = {"samples": stored.samples[i], "mean_prob": stored.mean[i]}
        for output, metric, region, given in [
            ("diverse", "ged", "full", seen),
            ("personalised", "hd95", "full", {"rater_probs": stored.raters[i] > 0.5}),
            ("diverse", "brier", "box", {"mean_prob": stored.mean[i]}),
            ("personalised", "dice_rater", "full", {"rater_probs": stored.raters[i] > 0.5}),
        ]:
            at = (frame.output == output) & (frame.metric == metric) & (frame.case_id == case)
            found = frame[at & (frame.region == region) & (frame.rater == "")].value.astype(float)
            wanted = score_case(masks[i], metrics=[metric], valid=inside(), **given)[metric]
            assert found.tolist() == [wanted]
            differs += wanted != score_case(masks[i], metrics=[metric], **given)[metric]
    assert differs > len(stored.case_ids)  # the field of view matters here

    val_masks, present = data.masks(split.val)
    inner = predictions(data, split.val).mean * inside()
    scores = [dice_at_thresholds(m, r & inside()) for m, r in zip(inner, val_masks.astype(bool), strict=True)]
    assert evaluation._fit_trivial(val).own is not None
    np.testing.assert_allclose(
        evaluation._fit_trivial(val).own[0],  # type: ignore[index]
        best_thresholds(scores, present)[0],
    )
    train = data.split(0).train
    train_masks, seen = data.masks(train)
    ranks = evaluation._fit_trivial(val).ranks
    assert ranks is not None
    counted = rater_area_ranks((train_masks.astype(bool) & inside()).sum((2, 3)), seen)
    assert ranks[0].tolist() == counted.tolist()


def test_readers_are_compared_inside(data: Dataset) -> None:
    test = data.split(0).test[:3]
    evaluation = Evaluation(data, data.describe(), 0, test)
    evaluation.human(S)
    frame = evaluation.frame()
    masks = data.arrays(test)[1].astype(bool)
    for i, row in enumerate(test):
        at = (frame.output == "human") & (frame.metric == "ged") & (frame.case_id == data.records[row].case_id)
        axes = {"dataset": data.name, "case": data.records[row].case_id}
        wanted = human_case(masks[i], S, valid=inside(), seed_axes=axes)["human.loo_ged"]
        assert frame[at].value.astype(float).tolist() == [wanted]


def test_validation_scores_inside(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    val = data.split(0).val
    stored = predictions(data, val)
    monkeypatch.setattr(validation, "predict_cases", lambda *given, **more: stored)

    class Described:
        data: Any = None

    method: Any = Described()
    method.data = data.describe()
    found = validation.validate(method, data, val, "raters", {"validate_samples": S}, 0, None)  # type: ignore[arg-type]
    masks = data.arrays(val)[1].astype(bool)
    assert stored.raters is not None
    wanted = [
        score_case(m, rater_probs=p > 0.5, valid=inside(), metrics=["dice_rater"])["dice_rater"]
        for m, p in zip(masks, stored.raters, strict=True)
    ]
    assert found == pytest.approx(np.mean(wanted), abs=1e-12)
