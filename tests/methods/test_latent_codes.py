"""Codes that come with a prediction are those its masks were decoded from, and survive being stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from multirater.benchmark.predictions import StoredPredictions, read_predictions, write_predictions
from multirater.datasets.base import DataDescription
from multirater.methods import create_method

DATA = DataDescription("tiny", 1, 1, 3, ("a", "b", "c"), "derived", 2, (32, 32), False)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def predict(method: Any, images: torch.Tensor) -> Any:
    with torch.inference_mode():
        return method.eval().predict(images, n_samples=5, generator=torch.Generator().manual_seed(0))


def test_dpersona(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    method: Any = create_method("dpersona", DATA, backbone="unet_small", widths=[16, 16])
    first = predict(method, images)
    assert first.rater_codes is None  # before stage 2
    method.personalised_trained.fill_(True)
    found = predict(method, images)
    assert found.sample_codes.shape == (2, 5, method.latent)
    assert found.rater_codes.shape == (2, 3, method.latent)
    with torch.inference_mode():
        features = method.trunk(images)
        torch.testing.assert_close(torch.sigmoid(method.fusion(features, found.sample_codes)), found.samples)
        torch.testing.assert_close(torch.sigmoid(method.fusion(features, found.rater_codes)), found.raters)


def test_pionono(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    method: Any = create_method("pionono", DATA, backbone="unet_small", widths=[16, 16])
    found = predict(method, images)
    assert found.sample_codes.shape == (2, 5, method.latent)
    with torch.inference_mode():
        maps = method._probabilities(method.head(method.trunk(images), found.sample_codes))
    torch.testing.assert_close(maps.reshape(found.samples.shape), found.samples)
    torch.testing.assert_close(found.rater_codes[1], method.raters.mean.detach()[:3])
    found.rater_codes.numpy()  # nothing that waits for a gradient


def test_stored_codes_are_selected_with_their_cases(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mean = rng.random((3, 4, 4), np.float32)
    samples = rng.random((3, 6, 4, 4)) > 0.5
    codes = rng.normal(size=(3, 6, 2)).astype(np.float32)
    own = rng.normal(size=(3, 2, 2)).astype(np.float32)
    stored = StoredPredictions(
        list("abc"), mean, np.zeros((3, 2, 4, 4), np.float32), samples, None, 6, sample_codes=codes, rater_codes=own
    )
    write_predictions(tmp_path / "p.safetensors", stored)
    found = read_predictions(tmp_path / "p.safetensors").select(["c", "a"], 4)
    assert found.sample_codes is not None
    assert found.rater_codes is not None
    np.testing.assert_array_equal(found.sample_codes, codes[[2, 0], :4])
    np.testing.assert_array_equal(found.rater_codes, own[[2, 0]])
    write_predictions(
        tmp_path / "q.safetensors", StoredPredictions(["a"], mean[:1], np.zeros((1, 2, 4, 4), np.float32))
    )
    assert read_predictions(tmp_path / "q.safetensors").sample_codes is None
