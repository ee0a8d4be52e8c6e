"""Confusion matrices against a literal reading of the released codes: the same loss in less time.

The reference expands global matrices to every pixel, runs the head of every annotator by itself, also where one
annotator an image is wanted, and multiplies one small matrix at every pixel. Processor time of one thread at the sizes
of the preset quick, the least of alternating rounds. A whole step contains the trunk on both sides, which bounds its
gain: with global matrices the trunk is nearly all of it, and with all annotators the pixel heads are the same
convolutions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.annotator_matrices import PixelMatrices
from multirater.methods.confusion_matrix import ConfusionMatrix
from torch import Tensor

pytestmark = pytest.mark.perf
BATCH, RATERS, SIZE, LABELS = 12, 4, 64, 2


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(BATCH, 1, SIZE, SIZE, generator=generator),
        "masks": (torch.rand(BATCH, RATERS, SIZE, SIZE, generator=generator) > 0.9).to(torch.uint8),
        "rater_valid": torch.ones(BATCH, RATERS, dtype=torch.bool),
    }


def build(name: str, **options: Any) -> ConfusionMatrix:
    torch.manual_seed(0)
    data = DataDescription("perf", 1, 1, RATERS, ("1", "2", "3", "4"), "derived", 2, (SIZE, SIZE))
    return create_method(name, data, backbone="unet_small", form="softplus", trace_warmup=0, **options).train()


# -- the literal reference ------------------------------------------------------------------------


def raw_of(method: ConfusionMatrix, features: Tensor, rater: int) -> Tensor:
    """Outputs B×C²×H×W of one annotator's own network, or its table expanded to every pixel."""
    matrices = method.matrices
    if not isinstance(matrices, PixelMatrices):
        table = matrices.raw[rater].repeat(BATCH, 1, 1).unsqueeze(3).unsqueeze(4).repeat(1, 1, 1, SIZE, SIZE)
        return F.softplus(table).view(BATCH, LABELS**2, SIZE, SIZE)
    x = features
    for block in matrices.blocks:
        x = F.conv2d(x, block.conv.weight[rater], padding=1)  # type: ignore[union-attr, index]
        x = F.instance_norm(x, weight=block.scale[rater], bias=block.shift[rater])  # type: ignore[index]
        x = F.prelu(x, block.slope[rater].view(1))  # type: ignore[index]
    assert matrices.last.bias is not None
    return F.softplus(F.conv2d(x, matrices.last.weight[rater], matrices.last.bias[rater]))


def literal_pair(raw: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """What the annotator sees, B×C×H×W, and the mean trace."""
    vectors = truth.view(BATCH, LABELS, -1).permute(0, 2, 1).contiguous().view(-1, LABELS, 1)
    matrices = raw.view(BATCH, LABELS**2, -1).permute(0, 2, 1).contiguous().view(-1, LABELS, LABELS)
    matrices = matrices / matrices.sum(1, keepdim=True)
    seen = torch.bmm(matrices, vectors).view(BATCH, SIZE * SIZE, LABELS).permute(0, 2, 1).contiguous()
    return seen.view(BATCH, LABELS, SIZE, SIZE), torch.trace(matrices.sum(0)) / len(matrices)


def literal_dense(method: ConfusionMatrix, batch: dict[str, Any]) -> Tensor:
    features = method.trunk(batch["image"])
    raws = [raw_of(method, features, rater) for rater in range(RATERS)]
    truth = method.head(features).softmax(1)
    loss = torch.zeros(())
    for rater, raw in enumerate(raws):
        seen, trace = literal_pair(raw, truth)
        nll = F.nll_loss(seen.clamp_min(1e-7).log(), batch["masks"][:, rater].long())
        loss = loss + nll + method.trace_weight * trace
    return loss


def literal_single(method: ConfusionMatrix, batch: dict[str, Any], who: Tensor) -> Tensor:
    """One annotator an image; all heads are run, then one is picked image by image."""
    features = method.trunk(batch["image"])
    raws = [raw_of(method, features, rater) for rater in range(RATERS)]
    used = torch.zeros_like(raws[0])
    for i, rater in enumerate(who.tolist()):
        used[i] = raws[rater][i]
    seen, trace = literal_pair(used, method.head(features).softmax(1))
    labels = batch["masks"][torch.arange(BATCH), who].long()
    return F.nll_loss(seen.clamp_min(1e-7).log(), labels) + method.trace_weight * trace


# -- timing ---------------------------------------------------------------------------------------


@pytest.fixture
def ratio(race: Callable[..., float]) -> Callable[..., float]:
    def agree(value: Tensor, reference: Tensor) -> None:
        torch.testing.assert_close(value, reference, rtol=2e-5, atol=2e-5)

    return partial(race, rounds=4, agree=agree, cpu=True)


def step_ratio(ratio: Callable[..., float], name: str, batch: dict[str, Any], single: bool) -> float:
    method = build(name, annotators="one" if single else "all")
    plain = copy.deepcopy(method)

    def ours() -> Tensor:
        method.zero_grad()
        torch.manual_seed(5)
        loss, _ = method.training_step(batch)
        loss.backward()
        return loss.detach()

    def literal() -> Tensor:
        plain.zero_grad()
        torch.manual_seed(5)
        if single:
            priority = torch.rand(BATCH, RATERS)  # the draw of `training_step`
            loss = literal_single(plain, batch, priority.argmax(1))
        else:
            loss = literal_dense(plain, batch)
        loss.backward()
        return loss.detach()

    return ratio(name, f"training step, {'one annotator' if single else 'all annotators'} an image", ours, literal)


def test_global_matrices_of_all(ratio: Callable[..., float], batch: dict[str, Any]) -> None:
    assert step_ratio(ratio, "cm_global", batch, False) >= 1.15


def test_global_matrices_of_one(ratio: Callable[..., float], batch: dict[str, Any]) -> None:
    assert step_ratio(ratio, "cm_global", batch, True) >= 1.0


def test_pixel_matrices_of_all(ratio: Callable[..., float], batch: dict[str, Any]) -> None:
    assert step_ratio(ratio, "cm_pixel", batch, False) >= 0.85  # the same convolutions: measured 0.96 to 1.07


def test_pixel_matrices_of_one(ratio: Callable[..., float], batch: dict[str, Any]) -> None:
    assert step_ratio(ratio, "cm_pixel", batch, True) >= 1.5


def test_mixing_by_global_matrices(ratio: Callable[..., float], batch: dict[str, Any]) -> None:
    """Without the trunk: forward and backward of the four annotators' maps."""
    method = build("cm_global")
    truth = torch.randn(BATCH, LABELS, SIZE, SIZE).softmax(1).requires_grad_()

    def backward(seen: Tensor) -> Tensor:
        method.zero_grad()
        truth.grad = None
        seen.square().mean().backward()
        return seen.detach()

    def literal() -> Tensor:
        maps = [literal_pair(raw_of(method, truth, rater), truth)[0] for rater in range(RATERS)]
        return backward(torch.stack(maps, 1))

    def ours() -> Tensor:
        return backward(method.matrices(truth, truth[:, None])[0][:, :, 0])

    assert ratio("cm_global", "mixing four annotators' maps, with gradient", ours, literal) >= 3
