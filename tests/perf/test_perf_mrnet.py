"""MR-Net at the widths of the preset quick against a literal reading of the released code: the same numbers, less time.

The literal training step makes three passes of every network, convolves image and condition together, runs one rater
head after the other at full resolution, blurs by a convolution of 961 taps, and goes forward and backward through the
consistency term that teaches the coarse net nothing. Least wall time of alternating rounds, two threads.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.mrnet import AVERAGE, MRNet, draw_expertness, feature_distance
from multirater.methods.mrnet_layers import blur
from multirater.methods.targets import target_channels
from torch import Tensor

pytestmark = [pytest.mark.perf, pytest.mark.usefixtures("two_threads")]
SIZE, BATCH = 64, 12
QUICK: dict[str, Any] = {"width": 16, "encoder_blocks": [1, 1, 1, 1], "vgg_convs": [1, 1, 1, 1, 1]}


@pytest.fixture(scope="module")
def literal() -> ModuleType:
    """The references that the tests of the numbers use."""
    path = Path(__file__).parent.parent / "methods" / "test_mrnet.py"
    spec = importlib.util.spec_from_file_location("literal_mrnet", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(raters: int) -> MRNet:
    torch.manual_seed(0)
    ids = tuple(str(r) for r in range(raters))
    data = DataDescription("perf", 1, 1, raters, ids, "derived", 2, (SIZE, SIZE))
    return create_method("mrnet", data, **QUICK)


@pytest.fixture
def ratio(race: Callable[..., float]) -> Callable[..., float]:
    """How many times less time ours takes for about the same value; the first round warms up."""

    def run(
        what: str, ours: Callable[[], float], literal: Callable[[], float], tolerance: float, rounds: int = 4
    ) -> float:
        def agree(value: float, reference: float) -> None:
            assert value == pytest.approx(reference, rel=tolerance)

        return race("mrnet", what, ours, literal, rounds=rounds - 1, warm=1, agree=agree)

    return run


def test_training_step(ratio: Callable[..., float], literal: ModuleType) -> None:
    method = build(4).train()
    plain = copy.deepcopy(method).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.rand(BATCH, 1, SIZE, SIZE, generator=generator),
        "masks": (torch.rand(BATCH, 4, SIZE, SIZE, generator=generator) > 0.5).to(torch.uint8),
        "rater_valid": torch.ones(BATCH, 4, dtype=torch.bool),
    }
    masks = target_channels(batch["masks"], method.data).float()

    def ours() -> float:
        method.zero_grad()
        torch.manual_seed(5)
        loss, _ = method.losses(batch["image"], masks, batch["rater_valid"], draw_expertness(batch["rater_valid"]))
        loss.backward()
        return loss.item()

    def literally() -> float:
        plain.zero_grad()
        torch.manual_seed(5)
        expertness = draw_expertness(batch["rater_valid"])
        losses, shown = literal.literal_losses(plain, batch, expertness)
        average = torch.einsum("br,brchw->bchw", expertness[:, AVERAGE], masks)
        pair = [plain.reconstruction.encode(batch["image"], x)[0] for x in (shown.detach(), average)]
        inert = feature_distance(*pair, "channel_sum")
        loss = 0.7 * losses["coarse"] + losses["mrm"] + losses["mpm"]
        (loss + 0.3e-3 * inert).backward()
        return loss.item()

    # batch norm sees the three kinds together in one and apart in the other: the losses agree roughly
    assert ratio("training step", ours, literally, 0.05) >= 1.5


@torch.no_grad()
@pytest.mark.parametrize(("raters", "gate"), [(4, 2.5), (20, 4.0)])
def test_maps_of_all_raters(ratio: Callable[..., float], literal: ModuleType, raters: int, gate: float) -> None:
    method = build(raters).eval()
    plain = copy.deepcopy(method).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    image = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    vectors = torch.cat([torch.eye(raters), torch.full((1, raters), 1 / raters)])

    def ours() -> float:
        prediction = method.predict(image)
        assert prediction.raters is not None
        return prediction.raters.mean().item()

    def literally() -> float:
        maps = []
        for vector in vectors:
            z, features = literal.literal_coarse(plain, image, vector[None])
            each = literal.literal_reconstruction(plain, image, z, vector[None])
            maps.append(torch.sigmoid(literal.literal_perception(plain, features, z, each)))
        return torch.cat(maps[:-1]).mean().item()

    assert ratio(f"maps of {raters} raters", ours, literally, 1e-4, 8) >= gate


def test_blur(ratio: Callable[..., float]) -> None:
    maps = torch.rand(3 * BATCH, 2, SIZE, SIZE)
    kernel = torch.rand(1, 1, 31, 31, requires_grad=True)

    def backward(blurred: Tensor) -> float:
        value = blurred.square().mean()
        value.backward()
        return value.item()

    def convolve() -> float:
        return backward(F.conv2d(maps.view(-1, 1, SIZE, SIZE), kernel, padding=15))

    assert ratio("blur", lambda: backward(blur(maps, kernel)), convolve, 1e-3) >= 8
