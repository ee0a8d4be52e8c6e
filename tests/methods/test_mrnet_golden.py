"""Numbers obtained by running the authors' released modules (R = 6 raters, disc and cup, RGB)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.mrnet import MRNet, draw_expertness, feature_distance
from multirater.methods.mrnet_layers import (
    ExpertnessLSTM,
    PerceptionHead,
    ReconstructionNet,
    SoftAttention,
    normal_kernel,
)
from multirater.metrics import Convention, score_case
from torch import Tensor, nn

RIGA = DataDescription("riga", 3, 2, 6, tuple("123456"), "consistent", 2, (256, 256), overlapping=True)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def close(got: Tensor | float, wanted: float, tolerance: float = 5e-8) -> None:
    assert float(got) == pytest.approx(wanted, rel=0, abs=tolerance)


@pytest.fixture(scope="module")
def full() -> MRNet:
    with torch.device("meta"):  # shapes and counts need no numbers
        return MRNet(RIGA)


def test_parameters_of_the_coarse_net(full: MRNet) -> None:
    coarse = full.coarse
    assert count(coarse) == 40_928_648 - 13_382  # without two layers that the authors' forward pass never calls
    assert count(coarse.encoder) == 21_284_672
    assert count(coarse.eim.condition) == 28_160
    assert count(coarse.eim.gates) == 18_876_416
    assert [count(level) for level in coarse.decoder.levels] == [295_680, 148_224, 140_032, 140_032]
    assert count(coarse.decoder.last) == 2_050


def test_parameters_of_the_reconstruction(full: MRNet) -> None:
    mrm = full.reconstruction
    assert count(mrm) == 40_115_525
    assert count(mrm.fuse) == 138
    assert count(mrm.blocks) == 14_723_149
    assert (count(mrm.eim.condition), count(mrm.eim.gates)) == (28_160, 18_876_416)
    assert count(mrm.up) == 1_049_088
    assert [count(branch) for branch in mrm.branches] == [131_584, 1_180_160, 1_180_160, 1_180_160]
    assert count(mrm.image_branch) == 131_585
    assert (count(mrm.merge), count(mrm.low_level), count(mrm.refine)) == (328_192, 12_384, 1_291_265)
    assert count(mrm.heads) == 6 * 514


def test_parameters_of_the_perception_and_in_all(full: MRNet) -> None:
    mpm = full.perception
    assert (count(mpm), count(mpm.features), count(mpm.head), count(mpm.attention)) == (145_414, 139_843, 4_610, 961)
    assert count(full) == 81_189_587 - 13_382


def test_lstm_step() -> None:
    cell = ExpertnessLSTM(6, 512).double()
    nn.init.constant_(cell.gates.weight, 1e-4)
    nn.init.zeros_(cell.gates.bias)
    half = torch.full((1, 512, 8, 8), 0.5, dtype=torch.float64)
    with torch.no_grad():
        hidden, state = cell.step(torch.ones_like(half), half, half)
    # the reference ran in float32: its last digit is rounded
    close(hidden[0, 0, 4, 4], 0.4159317, 5e-7)
    close(state[0, 0, 4, 4], 0.7320255, 5e-7)
    close(hidden[0, 511, 0, 4], 0.3163491, 5e-7)
    close(hidden[0, 100, 0, 0], 0.2476949, 5e-7)


def test_gates_are_in_the_order_input_forget_output_candidate() -> None:
    cell = ExpertnessLSTM(2, 4).double()
    x, hidden, state = (torch.randn(2, 4, 5, 5, dtype=torch.float64) for _ in range(3))
    gates = nn.functional.conv2d(torch.cat([x, hidden], 1), cell.gates.weight, cell.gates.bias, padding=1)
    i, f, o, g = gates[:, :4], gates[:, 4:8], gates[:, 8:12], gates[:, 12:]
    wanted = torch.sigmoid(f) * state + torch.sigmoid(i) * torch.tanh(g)
    got_hidden, got_state = cell.step(x, hidden, state)
    torch.testing.assert_close(got_state, wanted)
    torch.testing.assert_close(got_hidden, torch.sigmoid(o) * torch.tanh(wanted))


def test_kernel() -> None:
    kernel = normal_kernel()
    close(kernel.sum(), 1.0, 1e-12)
    close(kernel[15, 15], 0.0056965)
    close(kernel[15, 16], 0.0055962)
    close(kernel[0, 0], 1.91391e-6, 5e-12)
    close(kernel[0, 15], 1.04415e-4, 5e-10)
    offset = torch.arange(31) - 15.0
    close((kernel.sum(0) * offset**2).sum().sqrt(), 5.217, 5e-4)


@torch.no_grad()
def test_soft_attention() -> None:
    attend = SoftAttention().double()
    attend.kernel.copy_(normal_kernel())
    impulse = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    impulse[..., 32, 32] = 1
    soft = attend(impulse)[0, 0]
    for row, column, wanted in (
        (32, 32, 1.0),
        (32, 33, 0.982382),
        (33, 33, 0.965076),
        (32, 42, 0.169080),
        (47, 32, 0.018330),
        (32, 48, 0.0),
    ):
        close(soft[row, column], wanted, 5e-7)
    flat = attend(torch.full((1, 1, 64, 64), 0.5, dtype=torch.float64))[0, 0]
    close(flat[32, 32], 1.0, 1e-6)
    close(flat[32, 7], 0.891797, 5e-7)
    close(flat[32, 0], 0.5, 1e-12)
    assert attend(torch.zeros(2, 3, 20, 20, dtype=torch.float64)).abs().max() == 0


def test_initial_weights() -> None:
    torch.manual_seed(0)
    mrm = ReconstructionNet(1, 2, 1, 16, (1, 1, 1, 1, 1))
    assert mrm.branches[1][0].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert mrm.eim.gates.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert mrm.eim.gates.bias.abs().max() == 0
    up = mrm.up.weight
    assert (up.diagonal() == 0.25).all()
    assert up.abs().sum().item() == pytest.approx(0.25 * 4 * up.shape[0])
    mpm = PerceptionHead(1, 16)
    assert mpm.features[3].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert mpm.features[0].weight.std().item() > 0.02  # the transposed convolution keeps PyTorch's start


def test_shapes_of_the_six_encoder_features(full: MRNet) -> None:
    with torch.device("meta"):
        features, low_level = full.reconstruction.encode(torch.empty(2, 3, 256, 256), torch.empty(2, 2, 256, 256))
    assert [tuple(f.shape) for f in features] == [
        (2, 3, 256, 256),
        (2, 64, 128, 128),
        (2, 128, 64, 64),
        (2, 256, 32, 32),
        (2, 512, 16, 16),
        (2, 512, 16, 16),
    ]
    assert tuple(low_level.shape) == (2, 256, 64, 64)


def test_shapes_of_the_coarse_net(full: MRNet) -> None:
    with torch.device("meta"):
        taps = full.coarse.encoder(torch.empty(2, 3, 256, 256))
        logits, features = full.coarse(torch.empty(2, 3, 256, 256), torch.empty(2, 3, 6))
        raters = full.reconstruction(torch.empty(2, 3, 256, 256), logits, torch.empty(2, 3, 6))
    assert [tuple(t.shape[1:]) for t in taps] == [
        (64, 128, 128),
        (64, 64, 64),
        (128, 32, 32),
        (256, 16, 16),
        (512, 8, 8),
    ]
    assert tuple(logits.shape) == (6, 2, 256, 256)
    assert tuple(features.shape) == (6, 256, 128, 128)
    assert tuple(raters.shape) == (6, 6, 2, 256, 256)


def test_consistency_term_of_the_code_teaches_the_coarse_net_nothing() -> None:
    method = create_method("mrnet", RIGA, width=2, fidelity="authors").train()
    images, maps = torch.randn(2, 3, 32, 32), torch.rand(2, 2, 32, 32)
    logits, _ = method.coarse(images, torch.full((2, 1, 6), 1 / 6))
    pairs = [method.reconstruction.encode(images, x)[0] for x in (logits.detach(), maps)]
    feature_distance(*pairs, "channel_sum").backward()
    assert all(p.grad is None for p in method.coarse.parameters())
    assert sum(p.grad is not None for p in method.reconstruction.parameters()) == 67
    # the authors' six rater heads are 12 tensors, here they are one convolution
    assert len(list(method.reconstruction.parameters())) + 10 == 114


def test_distances_of_the_consistency_term() -> None:
    first, second = torch.zeros(2, 3, 4, 8), torch.ones(2, 3, 4, 8)
    assert feature_distance([first], [second], "channel_mean") == 1
    assert feature_distance([first], [second], "channel_sum") == 3
    assert feature_distance([first, first], [second, second], "width_sum") == 16


def test_expertness_of_six_raters() -> None:
    torch.manual_seed(0)
    drawn = draw_expertness(torch.ones(4000, 6, dtype=torch.bool))
    torch.testing.assert_close(drawn.sum(-1), torch.ones(4000, 3))
    single, mixed, average = drawn.unbind(1)
    assert (single.amax(1) == 1).all()
    assert single.mean(0).numpy() == pytest.approx([1 / 6] * 6, abs=0.02)
    assert mixed.min() >= 1 / 51 - 1e-7
    assert mixed.max() <= 10 / 15 + 1e-7
    assert mixed.mean(0).numpy() == pytest.approx([1 / 6] * 6, abs=0.01)
    assert (average == 1 / 6).all()


ROW, COLUMN = np.mgrid[:64, :64]
SQUARED = (ROW - 32) ** 2 + (COLUMN - 32) ** 2
RADII = np.arange(8, 14)[:, None, None]
DISCS = RADII**2 >= SQUARED


@pytest.mark.parametrize(
    ("prediction", "inclusive", "wanted"),
    [
        ((SQUARED <= 121).astype(float), True, (0.848715, 0.752235)),
        ((SQUARED <= 121).astype(float), False, (0.831424, 0.720405)),
        (np.exp(-SQUARED / 200), True, (0.730727, 0.608067)),
        (np.exp(-SQUARED / 200), False, (0.713639, 0.580607)),
    ],
)
def test_soft_scores_of_its_evaluation(prediction: np.ndarray, inclusive: bool, wanted: tuple[float, float]) -> None:
    assert DISCS.sum((1, 2)).tolist() == [197, 253, 317, 377, 441, 529]
    for metric, epsilon, value in (("dice_soft", 1e-4, wanted[0]), ("iou_soft", 1e-6, wanted[1])):
        levels = tuple(t - 1e-4 if inclusive else t for t in (0.1, 0.3, 0.5, 0.7, 0.9))
        convention = Convention(smooth_num=epsilon, smooth_den=epsilon, thresholds=levels)
        got = score_case(DISCS, probs=prediction[None], metrics=[metric], variant=convention)[metric]
        assert got == pytest.approx(value, abs=1e-6)


def test_loss_at_zero_logits() -> None:
    """Every cross-entropy is ln 2, whatever the targets: 0.7 + 1 + 1 of them."""
    method = create_method("mrnet", RIGA, width=2, encoder_blocks=[1, 1, 1, 1], vgg_convs=[1, 1, 1, 1, 1]).double()
    for last in (method.coarse.decoder.last, method.reconstruction.heads, method.perception.head):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    masks = (torch.rand(2, 6, 2, 32, 32) > 0.5).double()
    valid = torch.ones(2, 6, dtype=torch.bool)
    loss, terms = method.losses(torch.rand(2, 3, 32, 32).double(), masks, valid, draw_expertness(valid).double())
    assert loss.item() == pytest.approx(2.7 * math.log(2), abs=1e-12)
    assert all(term.item() == pytest.approx(math.log(2), abs=1e-12) for term in terms.values())
