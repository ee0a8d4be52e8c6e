"""Predictions of binary, overlapping and exclusive classes: checked, made hard, packed and read back exactly."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from multirater.benchmark.class_layout import ClassLayout
from multirater.benchmark.predictions import (
    DamagedPredictions,
    StoredPredictions,
    check_prediction,
    predict_cases,
    read_predictions,
    write_predictions,
)
from multirater.core.errors import UserError
from multirater.datasets.base import CaseRecord, DataDescription
from multirater.datasets.case_rows import case_rows
from multirater.methods import Prediction
from safetensors import safe_open
from safetensors.numpy import save_file

SIZE, RATERS, SAMPLES = (9, 7), 3, 5
DATA = {
    "binary": DataDescription(raters=RATERS, size=SIZE),
    "overlapping": DataDescription(classes=2, overlapping=True, raters=RATERS, size=SIZE),
    "one overlapping": DataDescription(classes=1, overlapping=True, raters=RATERS, size=SIZE),
    "exclusive": DataDescription(classes=2, raters=RATERS, size=SIZE),
}
KINDS = list(DATA)


class Net:
    """Predicts the same maps for every image."""

    def __init__(self, data: DataDescription, prediction: Prediction) -> None:
        self.data, self.prediction = data, prediction

    def eval(self) -> None:
        pass

    def predict(self, images: Any, n_samples: int = 1, generator: Any = None) -> Prediction:
        return self.prediction


def maps(data: DataDescription, *lead: int, seed: int = 0) -> torch.Tensor:
    """Random probabilities, lead × channels × H × W."""
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(*lead, *ClassLayout.of(data).channels, *SIZE)))
    kind = ClassLayout.of(data).kind
    return (logits.softmax(len(lead)) if kind == "exclusive" else logits.sigmoid()).float()


def predicted(data: DataDescription, **changes: torch.Tensor) -> StoredPredictions:
    prediction = {"samples": maps(data, 1, SAMPLES), "raters": maps(data, 1, RATERS, seed=1), **changes}
    records = [CaseRecord(f"c{i}", f"p{i}") for i in range(2)]
    images = np.zeros((1, 1, *SIZE), np.float32)
    dataset = SimpleNamespace(
        name="toy",
        records=records,
        arrays=lambda indices: (images, None, None),
        volumes=lambda indices: case_rows(records, indices),
    )
    net: Any = Net(data, Prediction(**prediction))
    return predict_cases(net, dataset, [0, 1], SAMPLES, 0, torch.device("cpu"))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_back_exactly(kind: str, tmp_path: Path) -> None:
    stored = predicted(DATA[kind], mean=maps(DATA[kind], 1, seed=2))
    path = tmp_path / "p.safetensors"
    write_predictions(path, stored)
    again = read_predictions(path)
    assert again.case_ids == ["c0", "c1"]
    for name in ("mean", "mean_log", "samples", "raters", "sample_mean"):
        one, other = getattr(stored, name), getattr(again, name)
        assert other.dtype == one.dtype
        assert np.array_equal(one, other), name
    part = again.select(["c1"], 2)
    assert part.samples is not None
    assert part.samples.shape[:2] == (1, 2)
    assert part.sample_mean is not None
    assert np.array_equal(part.sample_mean[0], again.sample_mean[1])  # type: ignore[index]


def test_shapes_are_those_of_the_layouts() -> None:
    expected = {
        "binary": ((), (2,), ()),
        "overlapping": ((2,), (2, 2), (2,)),
        "one overlapping": ((1,), (1, 2), (1,)),
        "exclusive": ((3,), (3,), (2,)),
    }
    for kind, (channels, logs, planes) in expected.items():
        stored = predicted(DATA[kind])
        assert stored.mean.shape == (2, *channels, *SIZE)
        assert stored.mean_log.shape == (2, *logs, *SIZE)
        assert stored.samples is not None
        assert stored.samples.shape == (2, SAMPLES, *planes, *SIZE)
        assert stored.raters is not None
        assert stored.raters.shape == (2, RATERS, *channels, *SIZE)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_logarithm_is_that_of_every_channel(kind: str) -> None:
    stored = predicted(DATA[kind])
    p = maps(DATA[kind], 1, SAMPLES)[0].double().numpy()
    if kind == "exclusive":
        wanted = np.log(p + 1e-8).mean(0)
    else:
        wanted = np.stack([np.log(1 - p + 1e-8).mean(0), np.log(p + 1e-8).mean(0)], 0 if kind == "binary" else 1)
    np.testing.assert_allclose(stored.mean_log[0], wanted, rtol=1e-5, atol=1e-6)


def test_exclusive_samples_are_the_most_probable_class_and_ties_go_to_the_lower() -> None:
    p = torch.zeros(1, 1, 3, *SIZE)
    p[0, 0, :, 0, 0] = torch.tensor([0.5, 0.5, 0.0])  # background
    p[0, 0, :, 0, 1] = torch.tensor([0.2, 0.4, 0.4])  # class 1
    p[0, 0, :, 0, 2] = torch.tensor([0.4, 0.25, 0.35])  # background, though the classes together are more
    p[0, 0, 2, 1:] = 1
    p[0, 0, 0, 0, 3:] = 1
    stored = predicted(DATA["exclusive"], samples=p)
    assert stored.samples is not None
    planes = stored.samples[0, 0]
    assert planes[:, 0, :3].tolist() == [[False, True, False], [False, False, False]]
    assert planes[1, 1:].all()
    assert not planes.all(0).any()


def test_the_mean_of_the_samples_is_kept_only_where_the_mean_is_another_map() -> None:
    data = DATA["binary"]
    assert predicted(data).sample_mean is None
    other = predicted(data, mean=maps(data, 1, seed=5))
    assert other.sample_mean is not None
    np.testing.assert_allclose(other.sample_mean[0], maps(data, 1, SAMPLES)[0].mean(0).numpy(), rtol=1e-6)


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples, mean = rng.random((2, 4, *SIZE)) > 0.5, rng.random((2, *SIZE), dtype=np.float32)
    tensors = {
        "mean": mean,
        "mean_log": np.zeros((2, 2, *SIZE), np.float32),
        "samples": np.packbits(samples.reshape(2, 4, -1), axis=-1),
    }
    metadata = {"case_ids": json.dumps(["a", "b"]), "shape": json.dumps(SIZE), "n_samples": "4", "requested": "4"}
    save_file(tensors, tmp_path / "old.safetensors", metadata | {"seconds": "1.5"})
    stored = read_predictions(tmp_path / "old.safetensors")
    assert stored.samples is not None
    assert np.array_equal(stored.samples, samples)
    assert np.array_equal(stored.mean, mean)
    assert stored.sample_mean is None
    assert stored.raters is None


@pytest.mark.parametrize(
    ("kind", "field", "shape", "message"),
    [
        ("binary", "samples", (1, 5, 2, *SIZE), "expected (1, 'S', 9, 7); mend predict"),
        ("overlapping", "samples", (1, 5, *SIZE), "expected (1, 'S', 2, 9, 7) (a channel for each of the 2 classes)"),
        ("exclusive", "mean", (1, 2, *SIZE), "expected (1, 3, 9, 7) (background and 2 classes as channels)"),
        ("exclusive", "raters", (1, 2, 3, *SIZE), "expected (1, 3, 3, 9, 7)"),
    ],
)
def test_wrong_channels_are_one_sentence(kind: str, field: str, shape: tuple[int, ...], message: str) -> None:
    method: Any = Net(DATA[kind], Prediction(mean=torch.zeros(1)))
    given: dict[str, Any] = {"mean": maps(DATA[kind], 1), field: torch.zeros(shape)}
    with pytest.raises(UserError) as caught:
        check_prediction(Prediction(**given), np.zeros((1, 1, *SIZE)), "c0", method)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({"sample_codes": (1, 4, 2)}, "gave sample_codes of shape (1, 4, 2) for case c0, expected (1, 5, 'D')"),
        ({"sample_codes": (5, 2)}, "expected (1, 5, 'D')"),
        ({"rater_codes": (1, 5, 2)}, "expected (1, 3, 'D'): a code for each of the raters"),
        ({"sample_codes": (1, 5, 2), "rater_codes": (1, 3, 6)}, "of shape (1, 3, 6) for case c0, expected (1, 3, 2)"),
    ],
)
def test_codes_that_belong_to_no_mask_are_refused(codes: dict[str, tuple[int, ...]], message: str) -> None:
    method: Any = Net(DATA["binary"], Prediction(mean=torch.zeros(1)))
    given: dict[str, Any] = {"samples": torch.zeros(1, 5, *SIZE), "raters": torch.zeros(1, 3, *SIZE)}
    given |= {name: torch.zeros(shape) for name, shape in codes.items()}
    with pytest.raises(UserError, match=re.escape(message)):
        check_prediction(Prediction(**given), np.zeros((1, 1, *SIZE)), "c0", method)


@pytest.mark.parametrize("field", ["sample_codes", "rater_codes"])
def test_codes_stand_beside_their_masks(field: str) -> None:
    method: Any = Net(DATA["binary"], Prediction(mean=torch.zeros(1)))
    shapes = {"samples": (1, 5, *SIZE), "raters": (1, 3, *SIZE), "sample_codes": (1, 5, 2), "rater_codes": (1, 3, 2)}
    given: dict[str, Any] = {name: torch.zeros(shape) for name, shape in shapes.items()}
    images = np.zeros((1, 1, *SIZE))
    check_prediction(Prediction(**given), images, "c0", method)
    del given["samples" if field == "sample_codes" else "raters"]
    with pytest.raises(UserError, match=f"gave {field} without"):
        check_prediction(Prediction(**given), images, "c0", method)


def test_sigmoids_where_classes_exclude_each_other_are_refused() -> None:
    method: Any = Net(DATA["exclusive"], Prediction(mean=torch.zeros(1)))
    with pytest.raises(UserError, match=r"channels sum to \[1.5, 1.5\].*apply a softmax, not a sigmoid"):
        check_prediction(Prediction(mean=torch.full((1, 3, *SIZE), 0.5)), np.zeros((1, 1, *SIZE)), "c0", method)


@pytest.mark.parametrize("lacks", ["mean", "mean_log", "case_ids", "requested", "shape"])
def test_a_file_that_lacks_a_part_is_damaged_and_can_be_made_again(lacks: str, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    write_predictions(path, predicted(DATA["binary"]))
    with safe_open(path, framework="numpy") as file:
        metadata = {k: v for k, v in file.metadata().items() if k != lacks}
        tensors = {k: file.get_tensor(k) for k in file.keys() if k != lacks}  # noqa: SIM118 (not a dict)
    save_file(tensors, path, metadata)
    with pytest.raises(DamagedPredictions, match=lacks):
        read_predictions(path)
