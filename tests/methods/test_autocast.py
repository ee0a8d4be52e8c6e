"""Every method under bfloat16 autocast: networks in bfloat16, losses in float32, about the numbers of float32."""

from __future__ import annotations

import pytest
import torch
from method_support import BUILT_IN, RATERS, small_method, small_size


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
    given = batch(small_size(name))
    whole = small_method(name)
    for stage in whole.stages_for(whole.hparams):
        losses, gradients = [], []
        for autocast in (False, True):
            torch.manual_seed(0)
            method = small_method(name).train()
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
