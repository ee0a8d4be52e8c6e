"""Every method under bfloat16 autocast: networks in bfloat16, losses in float32, about the numbers of float32."""

from __future__ import annotations

import pytest
import torch
from multirater.benchmark.config import resolve_classes
from multirater.datasets.base import DataDescription
from multirater.datasets.synthetic import Synthetic
from multirater.methods import METHODS

BUILT_IN = [entry.name for entry in METHODS.entries() if entry.origin.startswith("multirater")]
RATERS = 3


def batch(size):
    row, column = torch.meshgrid(torch.arange(size) - size / 2, torch.arange(size) - size / 2, indexing="ij")
    discs = torch.stack([row**2 + column**2 < (size * (0.15 + 0.06 * r)) ** 2 for r in range(RATERS)])
    masks = discs.to(torch.uint8).repeat(4, 1, 1, 1)
    valid = torch.ones(4, RATERS, dtype=torch.bool)
    valid[0, 1] = False
    draw = torch.Generator().manual_seed(0)
    images = 0.5 * masks.float().mean(1, keepdim=True) + 0.1 * torch.rand(4, 1, size, size, generator=draw)
    return {"image": images, "masks": masks * valid[:, :, None, None], "rater_valid": valid}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_step_under_autocast_is_that_of_float32(name):
    size = 64 if name in ("phiseg", "tab") else 32  # strides of 32
    options = resolve_classes(METHODS.get(name), name, Synthetic, "synthetic", "smoke", {})["method"]["options"]
    data = DataDescription("d", raters=RATERS, rater_ids=tuple("123"), identity="derived", size=(size, size))
    given = batch(size)
    for stage in METHODS.get(name).stages_for(options):
        losses, gradients = [], []
        for autocast in (False, True):
            torch.manual_seed(0)
            method = METHODS.get(name)(data, **options).train()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss, _ = method.training_step(given, stage)
            assert loss.dtype == torch.float32
            loss.backward()
            learned = [p.grad.flatten() for p in method.parameters() if p.grad is not None]
            losses.append(loss.item())
            gradients.append(torch.cat(learned))
        assert losses[1] == pytest.approx(losses[0], rel=1e-2)
        assert losses[1] != losses[0]  # something did run in bfloat16
        assert torch.isfinite(gradients[1]).all()
        assert torch.cosine_similarity(*gradients, 0) > 0.9
