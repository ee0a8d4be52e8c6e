"""Numbers that the specification of the confusion-matrix methods gives, most of them run with the authors' modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.annotator_matrices import GlobalMatrices, PixelMatrices
from multirater.methods.backbones import build_backbone
from multirater.methods.class_dice import batch_class_dice
from multirater.methods.confusion_matrix import ConfusionMatrix
from multirater.methods.zhang_unet import ZhangUNet
from torch import Tensor, nn


def describe(raters: int = 4, classes: int = 1, channels: int = 3) -> DataDescription:
    ids = tuple(str(r + 1) for r in range(raters))
    return DataDescription("golden", channels, classes, raters, ids, "derived", 2, (32, 32))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def inverse_softplus(value: Tensor) -> Tensor:
    return value.expm1().log()


# -- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("labels", "wanted"), [(2, 4), (4, 16), (5, 25)])
def test_global_matrices(labels: int, wanted: int) -> None:
    assert count(GlobalMatrices(3, 1, labels)) == 3 * wanted


@pytest.mark.parametrize(
    ("labels", "width", "wanted"),
    [(1, 16, 9_365), (2, 16, 9_416), (4, 16, 9_620), (5, 16, 9_773), (4, 24, 21_332), (4, 32, 37_652)],
)
def test_pixel_heads(labels: int, width: int, wanted: int) -> None:
    assert count(PixelMatrices(3, 1, labels, width, width, "softplus")) == 3 * wanted


@pytest.mark.parametrize(
    ("channels", "classes", "width", "depth", "net", "full", "overall", "low_rank"),
    [
        (3, 1, 24, 3, 183_014, 267_142, 183_030, 267_242),
        (4, 3, 16, 4, 322_132, 360_612, 322_196, 360_136),
        (4, 3, 32, 4, 1_284_756, 1_435_364, 1_284_820, None),
    ],
)
def test_zhang_models(
    channels: int, classes: int, width: int, depth: int, net: int, full: int, overall: int, low_rank: int | None
) -> None:
    data = describe(4, classes, channels)
    options: dict[str, Any] = {
        "fidelity": "authors",
        "backbone": "unet_zhang",
        "zhang_width": width,
        "zhang_depth": depth,
    }
    pixel = create_method("cm_pixel", data, **options)
    assert count(pixel.trunk) + count(pixel.head) == net
    assert count(pixel) == full
    assert count(create_method("cm_global", data, **options)) == overall
    if low_rank is not None:
        assert count(create_method("cm_pixel", data, rank=1, **options)) == low_rank


def test_models_on_the_resnet() -> None:
    trunk = count(build_backbone("unet_r34", 3))
    assert trunk == 24_436_224
    for classes, wanted in ((1, 24_436_514), (4, 24_436_949)):
        method = create_method("cm_global", describe(classes=classes))
        assert count(method.trunk) + count(method.head) == wanted
    small = create_method("cm_pixel", describe(classes=4), backbone="unet_r18")
    assert count(small.trunk) + count(small.head) == 14_328_789
    # D-Persona's port, whose single channel is no option here: 4 raters, C = 1
    head = count(nn.Conv2d(16, 1, 3))
    assert trunk + head + count(GlobalMatrices(4, 1, 1, "softplus")) == 24_436_373
    assert trunk + head + count(PixelMatrices(4, 1, 1, 16, 16, "softplus")) == 24_473_829


# -- matrices -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("labels", "wanted"), [(2, 0.6545), (3, 0.4865), (4, 0.3871), (5, 0.3214)])
def test_softplus_of_the_identity_is_not_the_identity(labels: int, wanted: float) -> None:
    diagonal = GlobalMatrices(1, 1, labels, "softplus").double().matrices()[0, 0].diagonal()
    torch.testing.assert_close(diagonal, torch.full_like(diagonal, wanted), rtol=0, atol=5e-5)


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_softmax_starts_at_the_diagonal(labels: int) -> None:
    features = torch.randn(2, 8, 6, 6)
    for rank in (None, 1, 2):
        pixel = PixelMatrices(2, 1, labels, 8, 8, rank=rank).matrices(features)
        torch.testing.assert_close(pixel.sum(3), torch.ones_like(pixel[:, :, :, 0]))
        assert (pixel.diagonal(dim1=3, dim2=4).mean((0, 1, 2, 3, 4)) - 0.9).abs().max() < 0.05
    whole = GlobalMatrices(2, 1, labels).double().matrices()
    torch.testing.assert_close(whole[0, 0].diagonal(), torch.full((labels,), 0.9).double(), atol=1e-6, rtol=0)


def test_pixel_heads_of_softplus_start_near_uniform() -> None:
    torch.manual_seed(0)
    matrices = PixelMatrices(1, 1, 5, 16, 16, "softplus").matrices(torch.randn(1, 16, 32, 32))
    assert abs(matrices.diagonal(dim1=3, dim2=4).mean() - 0.2) < 0.03


def test_trace_of_the_identity_is_the_number_of_labels() -> None:
    for labels in (2, 4):
        matrices = GlobalMatrices(3, 1, labels, diagonal=1 - 1e-12).double()
        _, trace = matrices(torch.empty(0), torch.rand(2, 1, labels, 3, 3, dtype=torch.float64))
        torch.testing.assert_close(trace, torch.full((2, 3), float(labels), dtype=torch.float64), rtol=0, atol=1e-5)


@torch.no_grad()
def test_orientation() -> None:
    matrices = GlobalMatrices(1, 1, 2, "softplus").double()
    matrices.raw.copy_(inverse_softplus(torch.tensor([[0.9, 0.3], [0.1, 0.7]], dtype=torch.float64)))
    truth = torch.zeros(1, 1, 2, 2, 2, dtype=torch.float64)
    truth[:, :, 0] = 1
    seen, _ = matrices(torch.empty(0), truth)
    torch.testing.assert_close(seen[0, 0, 0, :, 1, 1], torch.tensor([0.9, 0.1], dtype=torch.float64))


@torch.no_grad()
def test_low_rank_matrix() -> None:
    """The example of the specification: U ∝ (1, 3), s = 1."""
    heads = PixelMatrices(1, 1, 2, 4, 4, "softplus", rank=1).double()
    heads.last.weight.zero_()
    outputs = torch.tensor([0.191176, 0.054878, 1.0, 3.0, 1.0], dtype=torch.float64)  # V, U, s
    heads.last.bias[0] = inverse_softplus(outputs)
    matrix = heads.matrices(torch.randn(1, 4, 3, 3, dtype=torch.float64))[0, 0, 0, :, :, 0, 0]
    wanted = torch.tensor([[0.675, 0.045], [0.325, 0.955]], dtype=torch.float64)
    torch.testing.assert_close(matrix, wanted, rtol=0, atol=1e-4)


# -- losses ---------------------------------------------------------------------------------------


def method_with(raw: list[list[float]], **options: Any) -> ConfusionMatrix:
    small = {"backbone": "unet_small", "widths": [16, 16]}
    method = create_method("cm_global", describe(channels=1), fidelity="authors", **small, **options).double()
    with torch.no_grad():
        method.matrices.raw.copy_(inverse_softplus(torch.tensor(raw, dtype=torch.float64)))
    return method


def test_loss_of_zhang_et_al() -> None:
    logits = torch.tensor([0.0, 2.0], dtype=torch.float64).view(1, 1, 2, 1, 1).expand(2, 1, 2, 4, 4)
    labels = torch.ones(2, 4, 1, 4, 4, dtype=torch.uint8)
    valid = torch.ones(2, 4, dtype=torch.bool)
    method = method_with([[2, 1], [1, 2]], trace_weight=0.5)
    data, trace = method.loss_terms(torch.empty(0), logits, labels, valid)
    assert data.item() == pytest.approx(2.296997, abs=1e-6)
    assert 0.5 * trace.item() == pytest.approx(2.666667, abs=1e-6)
    assert (data + 0.5 * trace).item() == pytest.approx(4.963664, abs=1e-6)
    data, _ = method_with([[2, 1], [1, 2]], loss="nll").loss_terms(torch.empty(0), logits, labels, valid)
    assert data.item() == pytest.approx(1.867667, abs=1e-6)


@pytest.mark.parametrize(("labels", "floor"), [(2, 0.3133), (4, 0.7437), (5, 0.9048)])
def test_second_softmax_has_a_floor(labels: int, floor: float) -> None:
    small = {"backbone": "unet_small", "widths": [16, 16], "fidelity": "authors"}
    perfect = F.one_hot(torch.randint(labels, (1, 3, 1, 4, 4)), labels).movedim(-1, 3).double()
    annotations = perfect.argmax(3)
    for loss, wanted in (("ce_on_probs", floor), ("nll", 0.0)):
        method = create_method("cm_global", describe(3, labels - 1, 1), loss=loss, **small).double()
        each = method._negative_log(perfect, annotations)
        torch.testing.assert_close(each, torch.full_like(each, wanted), rtol=0, atol=5e-5)


def test_data_loss_of_the_port_is_class_mean_batch_dice() -> None:
    small = {"backbone": "unet_small", "widths": [16, 16], "fidelity": "pionono"}
    method = create_method("cm_global", describe(3, 4, 1), **small).double()
    seen = torch.randn(2, 1, 1, 5, 6, 6, dtype=torch.float64)
    annotations = torch.randint(5, (2, 1, 1, 6, 6))
    got = method._dice(seen, annotations, torch.ones(2, 1, dtype=torch.bool))
    p, y = seen[:, 0, 0].softmax(1), F.one_hot(annotations[:, 0, 0], 5).movedim(-1, 1).double()
    dice = [2 * (p[:, c] * y[:, c]).sum() / (p[:, c].sum() + y[:, c].sum()) for c in range(5)]
    torch.testing.assert_close(got, 1 - sum(dice) / 5)
    torch.testing.assert_close(got, batch_class_dice(p[:, None], y[:, None]))


def test_magnified_bottleneck() -> None:
    """The released U-Net joins the deepest map with its own magnified centre; parameters are the same."""
    torch.manual_seed(0)
    plain, magnified = ZhangUNet(1, 4, 3), ZhangUNet(1, 4, 3, magnify=True)
    magnified.load_state_dict(plain.state_dict())
    image = torch.randn(1, 1, 16, 16)
    assert not torch.allclose(plain(image), magnified(image))
    seen: list[Tensor] = []
    hook = magnified.up[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    magnified(image)
    hook.remove()
    deepest, joined = seen[0].chunk(2, 1)
    assert joined.shape == deepest.shape == (1, 8, 4, 4)
    large = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)(deepest)
    torch.testing.assert_close(joined, F.pad(large, [-2, -2, -2, -2]))
