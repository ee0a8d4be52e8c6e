"""Numbers obtained by running the authors' released modules (7 queries, rank 7, disc and cup, 256×256 RGB)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.tab import TAB, LowRankGaussian
from multirater.methods.tab_layers import AttentionMaps, sine_positions
from torch import Tensor, nn

RIGA = DataDescription("riga", 3, 2, 6, tuple("123456"), "consistent", 2, (256, 256), overlapping=True)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.fixture(scope="module")
def full() -> TAB:
    with torch.device("meta"):  # shapes and counts need no numbers
        return TAB(RIGA, fidelity="authors", encoder_norm="frozen", train_stem=False)


def test_parameters(full: TAB) -> None:
    assert count(full) == 23_481_202
    assert sum(p.numel() for p in full.parameters_for("main")) == 23_250_610
    assert count(full.encoder) == 21_267_648
    trained = {id(p) for p in full.parameters_for("main")}
    assert sum(p.numel() for p in full.encoder.parameters() if id(p) in trained) == 21_037_056
    assert count(full.transformer) == 1_318_400
    assert (count(full.transformer.encoder), count(full.transformer.decoder)) == (527_104, 791_296)
    assert tuple(full.queries.shape) == (7, 256)
    assert count(full.project) == 131_328
    assert count(full.maps) == 131_584
    assert [count(level) for level in full.decoder.levels] == [168_704, 148_224, 140_032, 140_032]
    assert count(full.decoder.last) == 32_800
    assert count(full.decoder) == 629_792
    assert count(full.norm) == 64
    assert [count(h) for h in (full.mean_head, full.diagonal_head, full.factor_head)] == [66, 66, 462]


def test_a_trained_encoder_has_its_batch_norms_and_all_layers() -> None:
    with torch.device("meta"):
        method = TAB(RIGA)
    assert count(method.encoder) == 21_284_672
    assert sum(p.numel() for p in method.parameters_for("main")) == count(method)


def test_shapes(full: TAB) -> None:
    with torch.device("meta"):
        taps, bottleneck = full.attend(torch.empty(1, 3, 256, 256))
        distributions = full(torch.empty(1, 3, 256, 256))
    assert [tuple(t.shape[1:]) for t in taps] == [
        (64, 128, 128),
        (64, 64, 64),
        (128, 32, 32),
        (256, 16, 16),
        (512, 8, 8),
    ]
    assert tuple(bottleneck.shape) == (1, 7, 264, 8, 8)
    assert tuple(distributions[:, 0].mean.shape) == (1, 2, 256, 256)
    assert tuple(distributions[:, 0].variance.shape) == (1, 2, 256, 256)
    assert tuple(distributions[:, 1:].mean.shape) == (1, 6, 2, 256, 256)
    assert tuple(distributions.factor.shape) == (1, 7, 2, 256, 256, 7)


def test_variance_identity() -> None:
    factor = torch.tensor([[1.0, 2], [0, 1], [3, 0], [1, 1]], dtype=torch.float64).view(1, 2, 2, 2)
    diagonal = torch.full((1, 2, 2), 0.5, dtype=torch.float64)
    gaussian = LowRankGaussian(torch.zeros_like(diagonal), factor, diagonal)
    assert gaussian.variance.flatten().tolist() == [5.5, 1.5, 9.5, 2.5]


def test_loss_of_zero_logits() -> None:
    method = create_method("tab", RIGA, width=4, encoder_blocks=[1, 1, 1, 1])
    shape = (2, 7, 2, 16, 16)
    zero = LowRankGaussian(torch.zeros(shape), torch.zeros(*shape, 7), torch.full(shape, 1e-12))
    masks, valid = torch.rand(2, 6, 2, 16, 16) > 0.5, torch.ones(2, 6, dtype=torch.bool)
    noise = torch.randn(2, 2, 6, 7), torch.randn(2, 2, 6, 2, 16, 16)
    loss, terms = method.sampled_loss(zero, masks, valid, *noise)
    assert loss.item() == pytest.approx(8.3178, abs=5e-5)
    assert loss.item() == pytest.approx(12 * math.log(2), abs=1e-5)
    assert terms["consensus"].item() == pytest.approx(6 * math.log(2), abs=1e-5)


@torch.no_grad()
def test_loss_at_a_random_start() -> None:
    """10.6 in the reference, whose encoder had random weights and a batch norm that does nothing."""
    torch.manual_seed(1)
    method = TAB(RIGA, fidelity="authors", encoder_norm="frozen").train()
    masks = (torch.rand(1, 6, 2, 256, 256) > 0.5).to(torch.uint8)
    batch = {"image": torch.randn(1, 3, 256, 256), "masks": masks, "rater_valid": torch.ones(1, 6, dtype=torch.bool)}
    assert method.training_step(batch)[0].item() == pytest.approx(10.6, abs=0.9)


def test_sampling_agrees_with_the_library_distribution() -> None:
    """Moments of ``mean + W ε₁ + √d ε₂`` are those of torch's low-rank normal, in float64."""
    torch.manual_seed(0)
    mean, factor = torch.randn(1, 3, 4, dtype=torch.float64), torch.randn(1, 3, 4, 2, dtype=torch.float64)
    diagonal = torch.rand(1, 3, 4, dtype=torch.float64) + 0.1
    ours = LowRankGaussian(mean, factor, diagonal)
    library = torch.distributions.LowRankMultivariateNormal(mean.flatten(), factor.flatten(0, 2), diagonal.flatten())
    torch.testing.assert_close(ours.variance.flatten(), library.variance)
    drawn = ours.sample(torch.randn(200_000, 2).double(), torch.randn(200_000, 1, 3, 4).double()).flatten(1)
    torch.testing.assert_close(drawn.mean(0), library.mean, atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), library.covariance_matrix, atol=0.06, rtol=0.02)


@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, 256), (2, 5, 16)])
def test_positions_are_those_of_detr(height: int, width: int, size: int) -> None:
    """Row y of H is (y + 1) / (H + 1e-6) · 2π over temperature^(2⌊i/2⌋/half); rows first, sine and cosine in turn."""
    half = size // 2
    wanted = np.zeros((height, width, size))
    for y in range(height):
        for x in range(width):
            for i in range(half):
                period = 10_000 ** (2 * (i // 2) / half)
                wave = np.cos if i % 2 else np.sin
                wanted[y, x, i] = wave((y + 1) / (height + 1e-6) * 2 * np.pi / period)
                wanted[y, x, half + i] = wave((x + 1) / (width + 1e-6) * 2 * np.pi / period)
    got = sine_positions(height, width, size, torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(got, torch.from_numpy(wanted).flatten(0, 1))


def literal_maps(maps: AttentionMaps, queries: Tensor, memory: Tensor, per_head: bool) -> Tensor:
    out = torch.zeros(len(queries), queries.shape[1], maps.heads, memory.shape[1], dtype=queries.dtype)
    size = queries.shape[-1] // maps.heads
    for b in range(len(queries)):
        for q in range(queries.shape[1]):
            for h in range(maps.heads):
                part = slice(h * size, (h + 1) * size)
                asked = maps.query(queries[b, q])[part] / math.sqrt(size)
                out[b, q, h] = torch.stack([asked @ maps.key(m)[part] for m in memory[b]])
            out[b, q] = out[b, q].softmax(-1) if per_head else out[b, q].flatten().softmax(0).view_as(out[b, q])
    return out


@torch.no_grad()
@pytest.mark.parametrize("per_head", [False, True])
def test_attention_maps(per_head: bool) -> None:
    torch.manual_seed(0)
    maps = AttentionMaps(16, 4, "per_head" if per_head else "joint").double()
    queries, memory = torch.randn(2, 3, 16).double(), torch.randn(2, 6, 16).double()
    got = maps(queries, memory)
    torch.testing.assert_close(got, literal_maps(maps, queries, memory, per_head))
    total = got.sum(-1) if per_head else got.sum((-2, -1))
    torch.testing.assert_close(total, torch.ones_like(total))
