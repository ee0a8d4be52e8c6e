"""What an evaluation writes of each output: values, regions, fallbacks, versions, and the counts it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from multirater.benchmark.evaluation import Evaluation, metric_versions
from multirater.benchmark.predictions import StoredPredictions
from multirater.datasets import open_dataset
from multirater.metrics import score_case
from multirater.metrics.bins import pooled_ece
from multirater.metrics.calibration import bins_case, bins_of
from multirater.metrics.components import load_components, score_components
from multirater.metrics.registry import METRICS

S = 6


class Scored:
    """A small synthetic data set, predictions made by a generator, and the rows of their evaluation."""

    def __init__(self, **options: Any) -> None:
        self.data = open_dataset("synthetic", size=32, cases=40, raters=3, missing=0.2, **options)
        self.data.prepare()
        split = self.data.split(0)
        self.test, self.val = split.test, split.val
        self.masks, self.valid = self.data.arrays(self.test)[1:]
        self.stored = self.predictions(self.test)
        self.evaluation = Evaluation(self.data, self.data.describe(), 0, self.test)
        self.evaluation.method(self.stored, self.predictions(self.val), S)
        self.frame = self.evaluation.frame()

    def predictions(self, indices: np.ndarray) -> StoredPredictions:
        masks, valid = self.data.arrays(indices)[1:]
        rng = np.random.default_rng(0)
        share = (masks * valid[:, :, None, None]).sum(1) / valid.sum(1)[:, None, None]
        noisy = 0.1 + 0.7 * share[:, None] + 0.2 * rng.random((len(indices), S, 32, 32))
        samples = noisy.astype(np.float32)
        logs = np.stack([np.log(1 - samples + 1e-8).mean(1), np.log(samples + 1e-8).mean(1)], 1).astype(np.float32)
        raters = (0.2 + 0.5 * masks + 0.2 * rng.random(masks.shape)).astype(np.float32)
        ids = [self.data.records[i].case_id for i in indices]
        sample_mean = samples.mean(1)
        mean = (0.9 * sample_mean + 0.05).astype(np.float32)  # another map than the mean of the samples
        return StoredPredictions(ids, mean, logs, samples > 0.5, raters, S, sample_mean=sample_mean)

    def value(self, output: str, metric: str, i: int, region: str = "full", rater: str = "") -> float:
        f = self.frame
        at = (f.output == output) & (f.metric == metric) & (f.case_id == self.stored.case_ids[i])
        found = f[at & (f.region == region) & (f.rater == rater)]
        assert len(found) == 1
        return float(found.value.iloc[0])

    def score(self, i: int, metric: str, samples: Any = None, **inputs: Any) -> Any:
        raters, valid = self.masks[i].astype(bool), self.valid[i]
        return score_case(raters, samples, rater_valid=valid, metrics=[metric], **inputs)[metric]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIRATER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Scored()


@pytest.fixture(scope="module")
def anonymous(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIRATER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Scored(identity="none")


CASES = (0, 3)


@pytest.mark.parametrize("metric", ["brier", "nll", "ece", "ace", "mce"])
@pytest.mark.parametrize("i", CASES)
def test_calibration_of_the_mean_map_over_both_regions(scored: Scored, metric: str, i: int) -> None:
    for output in ("diverse", "consensus", "levels"):
        for region, name in (("box", metric), ("full", f"{metric}.full")):
            wanted = scored.score(i, name, mean_prob=scored.stored.mean[i])
            assert scored.value(output, metric, i, region) == wanted
    own = scored.stored.raters[i].mean(0)  # type: ignore[index]
    assert scored.value("personalised", metric, i, "box") == scored.score(i, metric, mean_prob=own)
    assert not (scored.frame.metric.str.endswith(".full")).any()
    boxed = scored.frame[scored.frame.metric == metric]
    assert set(boxed.region) == {"box", "full"}
    assert set(boxed.output) == {"diverse", "personalised", "consensus", "levels"}


@pytest.mark.parametrize("metric", ["mode_tv", "ci", "combined_sensitivity", "diversity_agreement", "ged", "hm_iou"])
@pytest.mark.parametrize("i", CASES)
def test_metrics_of_the_sample_set(scored: Scored, metric: str, i: int) -> None:
    samples = scored.stored.samples[i]  # type: ignore[index]
    assert scored.value("diverse", metric, i) == scored.score(i, metric, samples)
    mask = scored.stored.mean[i][None] > 0.5
    assert scored.value("consensus", metric, i) == scored.score(i, metric, mask)


@pytest.mark.parametrize("i", CASES)
def test_uncertainty_is_correlated_with_the_mean_of_the_samples_themselves(scored: Scored, i: int) -> None:
    stored = scored.stored
    assert stored.sample_mean is not None
    found = scored.value("diverse", "ncc", i)
    assert found == scored.score(i, "ncc", mean_prob=stored.sample_mean[i], mean_log=stored.mean_log[i])
    assert found != scored.score(i, "ncc", mean_prob=stored.mean[i], mean_log=stored.mean_log[i])
    assert set(scored.frame[scored.frame.metric == "ncc"].output) == {"diverse"}


@pytest.mark.parametrize("metric", ["hd95", "assd", "nsd", "dice_rater", "iou_rater"])
@pytest.mark.parametrize("i", CASES)
def test_masks_for_the_raters(scored: Scored, metric: str, i: int) -> None:
    stored = scored.stored
    assert stored.raters is not None
    assert scored.value("personalised", metric, i) == scored.score(i, metric, rater_probs=stored.raters[i])
    common = scored.score(i, metric, mean_prob=stored.mean[i])
    for output in ("diverse", "consensus", "levels"):
        assert scored.value(output, metric, i) == common


def test_maps_for_the_raters_are_calibrated_against_their_raters(scored: Scored) -> None:
    assert scored.stored.raters is not None
    for metric in ("ece.rater", "brier.rater"):
        for region, name in (("box", metric), ("full", f"{metric}.full")):
            wanted = scored.score(0, name, rater_probs=scored.stored.raters[0])
            assert scored.value("personalised", metric, 0, region) == wanted
        assert set(scored.frame[scored.frame.metric == metric].output) == {"personalised"}


def test_borders_of_each_rater_stand_under_its_name_and_missing_raters_are_empty(scored: Scored) -> None:
    i = int(np.flatnonzero(~scored.valid.all(1))[0])
    assert scored.stored.raters is not None
    wanted = scored.score(i, "hd95.each", rater_probs=scored.stored.raters[i])
    for rater, value in zip(scored.data.describe().rater_ids, wanted, strict=True):
        np.testing.assert_equal(scored.value("personalised", "hd95.each", i, rater=rater), value)
    assert np.isnan(wanted).sum() == (~scored.valid[i]).sum() > 0


def test_a_common_mask_is_marked_as_such(scored: Scored) -> None:
    outputs = scored.evaluation.outputs
    for output in ("diverse", "consensus", "levels", "common_threshold"):
        assert {"hd95", "hd95.each", "assd", "nsd", "dice_rater"} <= set(outputs[output]["fallback"])
    for output in ("personalised", "own_threshold", "area_ranks"):
        assert outputs[output]["fallback"] == []


def test_anonymous_slots_have_no_values_of_their_own(anonymous: Scored) -> None:
    found = set(anonymous.frame.metric)
    assert not found & {"hd95.each", "dice_rater.each", "dice_rater.gap", "ece.rater"}
    assert {"hd95", "dice_rater", "ece"} <= found
    assert set(anonymous.frame.rater) == {""}


def test_versions_cover_everything_that_is_written(scored: Scored) -> None:
    versions = metric_versions()
    human = Evaluation(scored.data, scored.data.describe(), 0, scored.test)
    human.human(S)
    for frame in (scored.frame, human.frame()):
        regions = frame.groupby("metric").region.unique()
        for metric, found in regions.items():
            if str(metric).startswith("human."):
                continue
            assert metric in versions
            if "box" in found:
                assert f"{metric}.full" in versions
    assert all(name in METRICS for name in versions)


def test_oracles_are_scored_as_methods_are(scored: Scored) -> None:
    human = Evaluation(scored.data, scored.data.describe(), 0, scored.test)
    human.human(S)
    frame = human.frame()
    levels = frame[frame.output == "oracle_levels"].set_index(["metric", "region"]).value.astype(float)
    assert levels["brier", "box"].abs().max() == 0
    assert levels["ece", "full"].abs().max() < 1e-12
    majority = frame[frame.output == "oracle_majority"]
    assert {"hd95", "ci", "mode_tv", "nll"} <= set(majority.metric)
    assert not {"hd95", "ece", "mode_tv"} & set(frame[frame.output == "human"].metric)


# -- counts --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(scored: Scored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    written = scored.evaluation.write_components(folder)
    assert [p.name for p in written] == ["components-diverse.npz", "components-personalised.npz"]
    return folder


def test_counts_give_the_values_that_were_written(scored: Scored, kept: Path) -> None:
    for output in ("diverse", "personalised"):
        cases = load_components(kept / f"components-{output}.npz")
        assert [c.case_id for c in cases] == scored.stored.case_ids
        for i, case in enumerate(cases):
            metrics = ["ged", "hm_iou", "dice_soft", "dice_rater", "dice_rater.worst", "ece", "ace.full", "mode_tv"]
            for metric, value in score_components(case, metrics).items():
                region = "box" if metric == "ece" else "full"
                assert value == scored.value(output, metric.removesuffix(".full"), i, region)


def test_counts_give_other_variants(scored: Scored, kept: Path) -> None:
    case = load_components(kept / "components-diverse.npz")[2]
    samples, mean = scored.stored.samples[2], scored.stored.mean[2]  # type: ignore[index]
    for variant, metrics in {"dpersona": ["ged", "dice_match"], "tab": ["ged", "dice_soft", "dice_rater"]}.items():
        wanted = score_case(
            scored.masks[2].astype(bool),
            samples,
            mean_prob=mean,
            rater_valid=scored.valid[2],
            metrics=metrics,
            variant=variant,
        )
        assert score_components(case, metrics, variant) == wanted


def test_counts_give_the_pooled_calibration_error(scored: Scored, kept: Path) -> None:
    cases = load_components(kept / "components-diverse.npz")
    given = [
        {"raters": m.astype(bool), "mean_prob": p, "rater_valid": v}
        for m, p, v in zip(scored.masks, scored.stored.mean, scored.valid, strict=True)
    ]
    for metric in ("ece", "ece.full", "ece.top", "ece.disagree"):
        direct = pooled_ece([bins_case(**one)[metric] for one in given])
        assert float(pooled_ece([bins_of(case.view())[metric] for case in cases])) == float(direct) > 0


def test_rows_are_sorted_and_complete(scored: Scored) -> None:
    frame = scored.frame
    keys = ["case_id", "output", "rater", "label", "metric", "region"]
    assert not frame.duplicated(keys).any()
    again = frame.sort_values(["output", "metric", "case_id", "rater", "label", "region"], kind="stable")
    pd.testing.assert_frame_equal(frame, again)
    assert set(frame.label) == {"1"}
    assert (frame.reason[frame.value.isna()] != "").all()
