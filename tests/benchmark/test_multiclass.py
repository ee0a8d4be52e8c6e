"""Several classes from the data to the figures: overlapping (disc and cup) and exclusive (rim and cup)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from multirater.benchmark.class_layout import ClassLayout
from multirater.benchmark.derived import class_level_sets, level_sets
from multirater.benchmark.evaluation import Evaluation
from multirater.benchmark.predictions import StoredPredictions
from multirater.benchmark.validation import validate
from multirater.datasets import open_dataset
from multirater.datasets.base import DataDescription
from multirater.methods import Method, Prediction
from multirater.methods.baselines import nested_class_maps
from multirater.metrics import score_case
from multirater.metrics.components import load_components, score_components
from PIL import Image

KINDS = ("overlapping", "exclusive")
SIDE, READERS, S = 32, 3, 5


def write_folder(root: Path, kind: str, cases: int = 16) -> Path:
    """Discs with a cup inside by three readers, of whom the last misses every fifth case; one cup is empty."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for i in range(cases):
        case = root / f"c{i:02d}"
        case.mkdir(parents=True)
        row, column, radius = rng.uniform(13, 19), rng.uniform(13, 19), rng.uniform(7, 10)
        distance = np.hypot(y - row, x - column)
        picture = 60 + 90 * (distance < radius) + 60 * (distance < radius / 2) + rng.normal(0, 6, distance.shape)
        save(case / "image.png", picture.clip(0, 255))
        for r in range(READERS):
            if i % 5 == 3 and r == READERS - 1:
                continue
            disc = distance < radius + r - 1 + rng.normal(0, 0.3)
            cup = (distance < radius / 2 + 0.7 * (r - 1)) & ~((i == 4) & (r == 0))
            if kind == "overlapping":
                save(case / f"r{r}_disc.png", disc * 255)
                save(case / f"r{r}_cup.png", cup * 255)
            else:
                save(case / f"r{r}.png", disc * 1 + cup * 1)
    masks: dict[str, Any] = {"mask": "{case}/r{rater}_{class}.png", "classes": ["disc", "cup"]}
    if kind == "exclusive":
        masks = {"mask": "{case}/r{rater}.png", "foreground": {1: 1, 2: 2}, "classes": ["rim", "cup"]}
    keys = {"image": "{case}/image.png", "identity": "consistent", "patient": "case", **masks}
    (root / "multirater.yaml").write_text(yaml.safe_dump(keys))
    return root


def save(path: Path, values: np.ndarray) -> None:
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write_folder(tmp_path_factory.mktemp("data") / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def datasets(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIRATER_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = {k: open_dataset("folder", root=str(root), identity="as_stored") for k, root in folders.items()}
        for data in made.values():
            data.prepare()
        yield made


# -- layouts and level sets ----------------------------------------------------------------------------


def test_layouts_see_masks_as_one_plane_a_class(datasets: Any) -> None:
    for kind in KINDS:
        layout = ClassLayout.of(datasets[kind].describe())
        assert (layout.kind, layout.classes, layout.labels) == (kind, 2, ("1", "2"))
        masks = datasets[kind].arrays([0, 1])[1]
        planes = layout.planes(masks)
        assert planes.shape == (2, READERS, 2, SIDE, SIDE)
        outer, cup = planes[:, :, 0], planes[:, :, 1]
        assert np.array_equal(cup & outer, cup if kind == "overlapping" else np.zeros_like(cup))
        assert np.array_equal(planes[:, :, 1], layout.plane(masks, 1))
    one = ClassLayout.of(DataDescription(classes=1, overlapping=True))
    assert one.channels == (1,)
    assert one.planes(np.ones((3, 1, 4, 4), np.uint8)).shape == (3, 1, 4, 4)


def test_level_sets_of_exclusive_classes_are_those_of_the_methods() -> None:
    mean = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).mul(2).softmax(1)
    sets = class_level_sets(mean[0].numpy(), 63)
    hot = nested_class_maps(mean, 63)[0].numpy()
    assert np.array_equal(sets, hot[:, 1:] > 0.5)
    assert (sets.sum(1) <= 1).all()
    assert abs(sets.mean(0) - mean[0, 1:].numpy()).max() < 2 / 63  # their share is the map: thresholds are 1/64 apart
    binary = np.stack([1 - mean[0, 1].numpy(), mean[0, 1].numpy()])
    assert np.array_equal(class_level_sets(binary, 8)[:, 0], level_sets(binary[1], 8))


def test_the_share_of_masks_is_a_map_of_the_layout() -> None:
    planes = np.zeros((4, 2, 1, 2), bool)
    planes[:3, 0, 0, 0] = planes[3:, 1, 0, 0] = planes[:1, 1, 0, 1] = True
    assert ClassLayout("exclusive", 2).share(planes)[:, 0].tolist() == [[0, 0.75], [0.75, 0], [0.25, 0.25]]
    assert ClassLayout("overlapping", 2).share(planes)[:, 0].tolist() == [[0.75, 0], [0.25, 0.25]]
    assert ClassLayout().share(planes[:, :1]).tolist() == [[0.75, 0]]


# -- evaluation ----------------------------------------------------------------------------------------


class Scored:
    """Random predictions around the readers' masks, and the rows of their evaluation."""

    def __init__(self, data: Any) -> None:
        self.data, self.layout = data, ClassLayout.of(data.describe())
        split = data.split(0)
        self.test = split.test
        self.masks, self.valid = data.arrays(split.test)[1:]
        self.stored = self.predictions(split.test)
        val = split.val if len(split.val) else split.train[:2]
        self.evaluation = Evaluation(data, data.describe(), 0, split.test)
        self.evaluation.method(self.stored, self.predictions(val), S)
        self.frame = self.evaluation.frame()

    def predictions(self, indices: np.ndarray) -> StoredPredictions:
        masks, valid = self.data.arrays(indices)[1:]
        rng = np.random.default_rng(0)
        maps = []
        for m, v in zip(self.layout.planes(masks), valid, strict=True):
            share = self.layout.share(m[v])
            logits = 3 * share + rng.normal(size=(S + READERS, *share.shape))
            if self.layout.kind == "exclusive":
                maps.append(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
            else:
                maps.append(1 / (1 + np.exp(2 - logits)))
        p = np.array(maps, dtype=np.float32)
        samples, raters = p[:, :S], p[:, S:]
        logs = np.log(samples + 1e-8).mean(1)
        if self.layout.kind == "overlapping":
            logs = np.stack([np.log(1 - samples + 1e-8).mean(1), logs], 2)
        ids = [self.data.records[i].case_id for i in indices]
        mean = samples.mean(1)
        return StoredPredictions(ids, mean, logs.astype(np.float32), self.layout.hard(samples), raters, S)

    def values(self, output: str, metric: str, i: int, region: str = "full") -> list[float]:
        """One value a class."""
        f = self.frame
        at = (f.output == output) & (f.metric == metric) & (f.region == region) & (f.rater == "")
        found = f[at & (f.case_id == self.stored.case_ids[i])].sort_values("label")
        assert list(found.label) == ["1", "2"]
        return [float(v) for v in found.value]


@pytest.fixture(scope="module")
def scored(datasets: Any) -> dict[str, Scored]:
    return {kind: Scored(datasets[kind]) for kind in KINDS}


def test_exclusive_classes_agree_with_metrics_of_class_maps(scored: dict[str, Scored]) -> None:
    one = scored["exclusive"]
    stored, layout = one.stored, one.layout
    assert stored.samples is not None
    assert stored.raters is not None
    for i in range(len(one.test)):
        shared: dict[str, Any] = {"rater_valid": one.valid[i], "classes": [1, 2]}
        raters = one.masks[i].astype(int)
        labels = (stored.samples[i] * np.arange(1, 3)[:, None, None]).sum(1)
        wanted = score_case(raters, labels, metrics=["ged", "ged.per_class", "cross"], **shared)
        assert one.values("diverse", "ged", i) == pytest.approx(wanted["ged.per_class"], abs=1e-12)
        assert np.mean(one.values("diverse", "ged", i)) == pytest.approx(wanted["ged"], abs=1e-12)
        of_map = score_case(raters, mean_prob=stored.mean[i], metrics=["dice_soft", "ece", "brier.full"], **shared)
        assert np.mean(one.values("consensus", "dice_soft", i)) == pytest.approx(of_map["dice_soft"], abs=1e-12)
        assert np.mean(one.values("consensus", "ece", i, "box")) == pytest.approx(of_map["ece"], abs=1e-12)
        assert np.mean(one.values("consensus", "brier", i)) == pytest.approx(of_map["brier.full"], abs=1e-12)
        hard = stored.mean[i].argmax(0)[None]  # not p > 0.5 of each class
        common = score_case(raters, hard, metrics=["dice_rater", "hd95"], **shared)
        own = score_case(raters, rater_probs=stored.raters[i], metrics=["dice_rater", "hd95", "ece.rater"], **shared)
        for metric in ("dice_rater", "hd95"):
            assert np.mean(one.values("consensus", metric, i)) == pytest.approx(common[metric], abs=1e-12)
            assert np.mean(one.values("personalised", metric, i)) == pytest.approx(own[metric], abs=1e-12)
        assert np.mean(one.values("personalised", "ece.rater", i, "box")) == pytest.approx(own["ece.rater"], abs=1e-12)
    assert (layout.hard(stored.mean) != (layout.foreground(stored.mean) > 0.5)).any()


def test_uncertainty_of_exclusive_classes_is_one_number_of_all_channels(scored: dict[str, Scored]) -> None:
    one = scored["exclusive"]
    found = one.frame[one.frame.metric == "ncc"].set_index("case_id")
    assert set(found.label) == {""}
    stored = one.stored
    wanted = score_case(
        one.masks[1].astype(int),
        mean_prob=stored.mean[1],
        mean_log=stored.mean_log[1],
        rater_valid=one.valid[1],
        classes=[1, 2],
        metrics=["ncc"],
    )["ncc"]
    assert float(found.value[stored.case_ids[1]]) == wanted


def test_overlapping_classes_are_binary_ones_side_by_side(scored: dict[str, Scored]) -> None:
    one = scored["overlapping"]
    stored = one.stored
    assert stored.samples is not None
    assert stored.raters is not None
    for i in range(len(one.test)):
        for k in range(2):
            given = {
                "mean_prob": stored.mean[i, k],
                "mean_log": stored.mean_log[i, k],
                "rater_probs": stored.raters[i, :, k],
            }
            raters = one.masks[i, :, k].astype(bool)
            for output, metric, names in (
                ("diverse", "ged", ()),
                ("diverse", "mode_tv", ()),
                ("diverse", "ncc", ("mean_prob", "mean_log")),
                ("consensus", "dice_soft", ("mean_prob",)),
                ("consensus", "hd95", ("mean_prob",)),
                ("personalised", "dice_rater", ("rater_probs",)),
            ):
                samples = stored.samples[i][:, k] if output == "diverse" and not names else None
                inputs = {n: given[n] for n in names}
                wanted = score_case(raters, samples, rater_valid=one.valid[i], metrics=[metric], **inputs)[metric]
                assert one.values(output, metric, i)[k] == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_every_output_has_every_class(scored: dict[str, Scored], kind: str) -> None:
    frame = scored[kind].frame
    own = {"diverse", "personalised", "consensus", "levels"}
    assert set(frame.output) == own | {"own_threshold", "common_threshold", "area_ranks"}
    labels = frame[frame.metric != "ncc"].groupby("output").label.unique()
    assert all(set(found) == {"1", "2"} for found in labels)
    keys = ["case_id", "output", "rater", "label", "metric", "region"]
    assert not frame.duplicated(keys).any()
    assert (frame.reason[frame.value.isna()] != "").all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_levels_are_a_perfect_set(datasets: Any, kind: str) -> None:
    data = datasets[kind]
    evaluation = Evaluation(data, data.describe(), 0, data.split(0).test)
    evaluation.human(8)
    frame = evaluation.frame()
    levels = frame[(frame.output == "oracle_levels") & (frame.metric == "dice_soft")]
    assert len(levels) == 2 * len(data.split(0).test)
    assert (levels.value.astype(float) == 1).all()
    assert set(frame[frame.output == "human"].label) == {"1", "2"}


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_kept_for_each_class(scored: dict[str, Scored], kind: str, tmp_path: Path) -> None:
    one = scored[kind]
    written = {p.name for p in one.evaluation.write_components(tmp_path)}
    assert written == {f"components-{o}-class{k}.npz" for o in ("diverse", "personalised") for k in (1, 2)}
    case = load_components(tmp_path / "components-diverse-class2.npz")[0]
    metrics = ["ged", "dice_soft"] + (["dice_rater"] if kind == "overlapping" else [])
    for metric, value in score_components(case, metrics).items():
        assert value == one.values("diverse", metric, 0)[1]


class Fixed(Method):
    """Predicts the readers' share of one case, in every form."""

    gives_samples = gives_raters = multiclass = True

    def __init__(self, data: DataDescription, maps: torch.Tensor) -> None:
        super().__init__(data)
        self.maps = maps  # R×C×H×W

    def predict(self, images: torch.Tensor, n_samples: int = 1, generator: Any = None) -> Prediction:
        return Prediction(samples=self.maps[None], raters=self.maps[None], mean=self.maps.mean(0)[None])


@pytest.mark.parametrize("kind", KINDS)
def test_validation_scores_every_class(datasets: Any, kind: str) -> None:
    data = datasets[kind]
    layout = ClassLayout.of(data.describe())
    masks = data.arrays([0])[1][0]
    planes = layout.planes(masks).astype(np.float32)
    maps = np.concatenate([1 - planes.sum(1, keepdims=True), planes], 1) if kind == "exclusive" else planes
    config = {"validate_samples": 4}

    def score(output: str, of: np.ndarray) -> float:
        method = Fixed(data.describe(), torch.from_numpy(of))
        return validate(method, data, np.array([0]), output, config, 0, torch.device("cpu"))

    assert score("samples", maps) == pytest.approx(0, abs=1e-12)
    assert score("raters", maps) == score("mean", maps) == 1
    wrong = maps.copy()
    wrong[:, -1] = 0  # no cup at all
    if kind == "exclusive":
        wrong[:, 1] += planes[:, 1]
    assert 0.3 < score("raters", wrong) < 1
    assert 0.1 < score("samples", wrong) < 2


# -- through the command line --------------------------------------------------------------------------


def command(folder: Path, cache: Path, results: Path, methods: str) -> subprocess.CompletedProcess[str]:
    arguments = [
        *(sys.executable, "-m", "multirater.benchmark", "run", "-m", methods, "-d", "folder", "-p", "smoke"),
        *("--set", f"dataset.root={folder}", "--set", "dataset.identity=as_stored", "--set", "train.select=best"),
        *("--results", str(results), "--threads", "1"),
    ]
    environment = {**os.environ, "MULTIRATER_CACHE": str(cache), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=500)


def check_results(results: Path, methods: tuple[str, ...]) -> None:
    """Records, tables and figures of finished cells."""
    for method in methods:
        (path,) = results.glob(f"cells/{method}/folder/*/eval/*/metrics.csv")
        frame = pd.read_csv(path, dtype={"label": str}, keep_default_na=False)
        assert {"1", "2"} <= set(frame.label)
        assert list(path.parent.glob("components-*-class2.npz"))
    board = pd.read_csv(results / "derived" / "leaderboard.csv")
    for method in methods:
        of_method = board[(board.method == method) & (board.output == "consensus") & (board.variant == "canonical")]
        found = of_method.set_index("metric").value
        assert found["ged"] == pytest.approx((found["ged{1}"] + found["ged{2}"]) / 2)
        for kind in ("png", "csv"):
            for k in (1, 2):
                assert (results / "derived" / "figures" / f"qualitative__folder__{method}-class{k}.{kind}").is_file()
    text = (results / "derived" / "figures" / "index.md").read_text()
    assert "[over_samples__folder]" in text
    assert "[per_rater__folder]" in text
    assert "each is scored against the rest" in (results / "derived" / "leaderboard.md").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_from_data_to_figures(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    done = command(folders[kind], tmp_path / "cache", tmp_path / "results", "unet_multihead")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    check_results(tmp_path / "results", ("unet_multihead",))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_baselines_of_every_sort(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    methods = ("unet_soft", "unet_majority", "unet_per_rater", "unet_label_sampling")
    done = command(folders[kind], tmp_path / "cache", tmp_path / "results", ",".join(methods))
    assert done.returncode == 0, done.stderr
    check_results(tmp_path / "results", methods)


def test_a_binary_method_is_refused_with_one_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    done = command(folders["exclusive"], tmp_path / "cache", tmp_path / "results", "prob_unet")
    assert done.returncode == 2
    assert "ProbUNet is binary, but 'folder' has 2 classes" in done.stderr
    assert "Traceback" not in done.stderr
