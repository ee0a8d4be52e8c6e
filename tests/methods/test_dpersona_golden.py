"""Numbers obtained by running the authors' released modules in float64 on filled parameters.

The i-th tensor of a module holds RandomState(i).standard_normal, times sqrt(2 / fan_in) for weights and 0.1 for biases.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.dpersona import DPersona
from multirater.methods.experts import attend
from multirater.methods.latent import kl_divergence, sum_of_norms
from multirater.methods.losses import pick_rater
from torch import Tensor, nn

ROW, COLUMN = np.mgrid[:128, :128]
squared_distance = (ROW - 64) ** 2 + (COLUMN - 64) ** 2


def tensor(array: np.ndarray) -> Tensor:
    return torch.tensor(array, dtype=torch.float64)


IMAGE = tensor(0.5 + 0.5 * np.sin(0.1 * ROW + 0.07 * COLUMN))[None, None]
MASKS = tensor(np.stack([squared_distance < (16 + 4 * r) ** 2 for r in range(4)]))[None]
FEATURES = tensor(np.stack([np.cos(0.1 * c + 0.05 * ROW - 0.03 * COLUMN) for c in range(1, 17)]))[None]
VALID = torch.ones(1, 4, dtype=torch.bool)


def filling(index: int, shape: tuple[int, ...]) -> Tensor:
    scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
    return tensor(np.random.RandomState(index).standard_normal(shape) * scale)


def fill(module: nn.Module) -> None:
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.copy_(filling(index, tuple(parameter.shape)))


def fill_heads(heads: nn.Module, raters: int) -> None:
    """Head after head, although the heads are groups of one network."""
    tensors = list(heads.parameters())
    with torch.no_grad():
        for rater in range(raters):
            for index, parameter in enumerate(tensors):
                rows = parameter.shape[0] // raters
                part = parameter[rater * rows : (rater + 1) * rows]
                part.copy_(filling(rater * len(tensors) + index, tuple(part.shape)))


def describe(channels: int = 1, raters: int = 4) -> DataDescription:
    ids = tuple(str(r + 1) for r in range(raters))
    return DataDescription("golden", channels, 1, raters, ids, "derived", 2, (128, 128))


def filled(**options: object) -> DPersona:
    # the small trunk: the golden values start from given features
    method = create_method("dpersona", describe(), fidelity="authors", backbone="unet_small", **options)
    method = method.double().eval()
    for part in (method.prior, method.posterior, method.fusion):
        fill(part)
    fill_heads(method.heads, 4)
    return method


@pytest.fixture(scope="module")
def method() -> DPersona:
    return filled()


def close(got: Tensor, wanted: list[float] | float, tolerance: float = 5e-9) -> None:
    torch.testing.assert_close(
        got.detach().flatten(), torch.as_tensor(wanted, dtype=torch.float64).flatten(), rtol=0, atol=tolerance
    )


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("channels", "prior", "posterior", "optimised", "total"),
    [(1, 1_967_724, 1_968_300, 28_366_905, 28_455_033), (3, 1_968_012, 1_968_588, 28_373_753, 28_461_881)],
)
def test_parameter_counts(channels: int, prior: int, posterior: int, optimised: int, total: int) -> None:
    method = create_method("dpersona", describe(channels))
    assert count(method.prior) == prior
    assert count(method.posterior) == posterior
    assert count(method.fusion) == 929
    assert count(method.heads) == 88_128
    assert sum(p.numel() for p in method.parameters_for("diverse")) == optimised
    assert sum(p.numel() for p in method.parameters_for("personalised")) == 88_128
    assert count(method) == total


def test_head_parameters_grow_linearly() -> None:
    assert count(create_method("dpersona", describe(raters=1), backbone="unet_small").heads) == 22_032
    assert count(create_method("dpersona", describe(raters=7), backbone="unet_small").heads) == 7 * 22_032


def test_mask_areas() -> None:
    assert MASKS.sum((0, 2, 3)).tolist() == [793, 1245, 1789, 2449]


def test_prior_and_posterior(method: DPersona) -> None:
    prior, posterior = method.prior(IMAGE), method.posterior(torch.cat([IMAGE, MASKS], 1))
    close(prior.mean, [-1.58786301, 0.66935032, 1.23314044, 0.23932567, 0.69523807, 0.53313456], 1e-8)
    close(prior.std, [1.96420127, 2.15914226, 0.54366391, 0.4719595, 0.32068523, 1.93535282], 1e-8)
    close(posterior.mean, [-1.21507082, 0.52536936, 0.92087304, 0.18143404, 0.39452867, 0.47575102], 1e-8)
    close(posterior.std, [1.58548126, 1.88438502, 0.6342578, 0.59365244, 0.46811755, 1.61738253], 1e-8)
    close(kl_divergence(posterior, prior), 0.993654836, 1e-9)


def test_sum_of_norms(method: DPersona) -> None:
    close(sum_of_norms([method.posterior]), 208.925718, 1e-6)
    close(sum_of_norms([method.prior]), 208.976516, 1e-6)
    close(sum_of_norms(method.fusion.hidden_layers), 18.448642, 1e-6)


def test_fusion_head(method: DPersona) -> None:
    code = torch.arange(1, 7, dtype=torch.float64) / 10
    logits = method.fusion(FEATURES, code.view(1, 1, 6))[0, 0]
    close(logits.mean(), -0.861097649, 1e-9)
    close(torch.stack([logits[0, 0], logits[64, 64], logits[127, 127]]), [-0.998356096, -0.463363395, -1.407594651])


def test_queries_and_attention(method: DPersona) -> None:
    queries = method.heads(FEATURES)
    assert queries.shape == (1, 4, 6)
    close(queries[0, 0], [0.42279462, 0.11688273, 0.70045745, 0.00132094, 0.06334093, 0.54010385], 1e-8)
    sample, dimension = np.mgrid[1:9, 1:7]
    codes, attention = attend(queries, tensor(np.sin(sample * dimension))[None])
    wanted = [0.218007, 0.123174, 0.146471, 0.055949, 0.088407, 0.041677, 0.243252, 0.083063]
    close(attention[0, 0], wanted, 1e-6)
    close(codes[0, 0], [0.41934727, 0.26603808, 0.18118074, 0.0168439, -0.2248791, -0.70311287], 1e-8)


def test_queries_with_ordinary_padding_are_others() -> None:
    method = filled(head_padding=1)
    wanted = [0.622372, 0.185984, 1.309971, 0.001129, 0.108628, 0.992424]
    close(method.heads(FEATURES)[0, 0], wanted, 1e-6)


def test_stage_1_terms(method: DPersona) -> None:
    prior, posterior = method.prior(IMAGE), method.posterior(torch.cat([IMAGE, MASKS], 1))
    bound_noise = tensor(np.random.RandomState(0).standard_normal((10, 6)))[None]
    noise = torch.zeros(1, 1, 6, dtype=torch.float64)
    loss, terms = method.diverse_loss(FEATURES, prior, posterior, MASKS, VALID, torch.tensor([0]), noise, bound_noise)
    close(terms["rec"], 0.537585813, 1e-9)
    close(terms["bound"], 0.845639965, 1e-9)
    close(terms["kl"], 0.993654836, 1e-9)
    close(1e-5 * terms["norms"], 0.004363509, 1e-9)
    close(loss, 1.958424141, 1e-9)
    close(method.fusion(FEATURES, posterior.codes(noise)).mean(), -0.963344199, 1e-9)
    close(method.fusion(FEATURES, prior.codes(bound_noise)).mean(), -1.346135147, 1e-9)
    extremes = method.fusion.extremes(FEATURES, prior.codes(bound_noise))
    close(extremes.mean((2, 3)), [-0.170789965, -3.213278314], 1e-9)


def test_reconstruction_from_the_prior_is_another_loss() -> None:
    method = filled(recon_source="prior")
    prior, posterior = method.prior(IMAGE), method.posterior(torch.cat([IMAGE, MASKS], 1))
    noise = torch.zeros(1, 10, 6, dtype=torch.float64)
    _, terms = method.diverse_loss(FEATURES, prior, posterior, MASKS, VALID, torch.tensor([0]), noise[:, :1], noise)
    wanted = method.dice(method.fusion(FEATURES, prior.mean[:, None]), pick_rater(MASKS, torch.tensor([0])))
    close(terms["rec"], wanted.item(), 1e-12)
    assert abs(terms["rec"].item() - 0.537585813) > 1e-4


def test_stage_2(method: DPersona) -> None:
    bank = method.prior(IMAGE).codes(tensor(np.random.RandomState(1).standard_normal((100, 6)))[None])
    logits, queries = method.personalised_logits(FEATURES, bank)
    codes, _ = attend(queries, bank)
    close(logits.mean((2, 3)), [-1.38276135, -0.84662005, -1.61765816, -2.24606994], 1e-8)
    close(method.dice(logits, MASKS), 0.888755365, 1e-9)
    close(codes[0, 0], [-0.27524, 1.312917, 1.423094, 0.182411, 0.69792, 2.301976], 1e-6)
    close(codes[0, 3], [-3.832822, 7.179241, 1.488618, 0.399961, 0.44238, 0.784706], 1e-6)
