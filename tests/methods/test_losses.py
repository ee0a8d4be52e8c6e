from __future__ import annotations

import numpy as np
import pytest
import torch
from multirater.methods.losses import (
    batch_dice_loss,
    draw_rater,
    image_dice_loss,
    pick_rater,
    soft_bce_loss,
    union_and_intersection,
)
from torch import Tensor

ROW, COLUMN = np.mgrid[:128, :128]
distance = np.hypot(ROW - 64, COLUMN - 64)
LOGITS = torch.tensor(8 - 0.5 * distance)[None, None]
MASKS = torch.tensor(np.stack([distance**2 < (16 + 4 * r) ** 2 - 1e-6 for r in range(4)]).astype(np.uint8))[None]
VALID = torch.ones(1, 4, dtype=torch.bool)


def close(got: Tensor, wanted: float, tolerance: float = 1e-9) -> None:
    assert abs(got.item() - wanted) < tolerance, (got.item(), wanted)


def test_batch_dice_of_the_released_code() -> None:
    assert MASKS.sum((0, 2, 3)).tolist() == [793, 1245, 1789, 2449]
    close(batch_dice_loss(LOGITS, MASKS[:, :1]), 0.089551105)
    close(batch_dice_loss(LOGITS, MASKS[:, 3:]), 0.270869736)
    close(batch_dice_loss(LOGITS.expand(-1, 4, -1, -1), MASKS), 0.311599197)
    bounds = union_and_intersection(MASKS, VALID)
    close(batch_dice_loss(torch.cat([LOGITS + 1, LOGITS - 1], 1), bounds), 0.297099779)
    close(batch_dice_loss(LOGITS, torch.zeros_like(LOGITS)), 0.513244313)


def test_a_single_channel_is_not_scored_as_foreground_only() -> None:
    foreground = batch_dice_loss(LOGITS.expand(-1, 2, -1, -1), MASKS[:, :1].expand(-1, 2, -1, -1))
    close(foreground, 0.170146111)


def test_batch_dice_sums_over_the_batch_and_image_dice_does_not() -> None:
    small, large = MASKS[:, :1], MASKS[:, 3:]
    logits, target = torch.cat([LOGITS, LOGITS]), torch.cat([small, large])
    each = torch.stack([image_dice_loss(LOGITS, small), image_dice_loss(LOGITS, large)])
    torch.testing.assert_close(image_dice_loss(logits, target), each.mean())
    p = torch.sigmoid(LOGITS)
    overlap = 2 * (p * small).sum() + 2 * (p * large).sum()
    wanted = 1 - overlap / (2 * p.sum() + small.sum() + large.sum())
    twice = batch_dice_loss(logits.expand(-1, 2, -1, -1), target.expand(-1, 2, -1, -1))
    torch.testing.assert_close(twice, wanted)


def test_image_dice_by_hand() -> None:
    logits = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]]]])
    target = torch.tensor([[[[1, 0], [0, 0]]]], dtype=torch.uint8)
    close(image_dice_loss(logits, target), 1 - (2 * 0.5 + 1) / (2 + 1 + 1), 1e-6)


def test_large_batches_cost_nothing_when_perfect() -> None:
    target = torch.ones(8, 1, 512, 512)
    assert batch_dice_loss((target * 200 - 100).expand(-1, 2, -1, -1), target.expand(-1, 2, -1, -1)) < 1e-5


@pytest.mark.parametrize("loss", [batch_dice_loss, image_dice_loss, soft_bce_loss])
def test_missing_raters_do_not_count(loss) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 8, 8, generator=generator, requires_grad=True)
    target = (torch.rand(3, 4, 8, 8, generator=generator) > 0.5).to(torch.uint8)
    valid = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 0, 1]], dtype=torch.bool)
    value = loss(logits, target, valid)
    value.backward()
    assert logits.grad is not None
    touched = logits.grad.abs().amax((2, 3)) > 0
    assert torch.equal(touched, valid)
    other = torch.where(valid[:, :, None, None], target, 1 - target)
    assert torch.equal(loss(logits, other, valid), value)


def test_bce_reductions() -> None:
    target = torch.full_like(LOGITS, 0.25)
    mean = soft_bce_loss(LOGITS, target)
    p = torch.sigmoid(LOGITS)
    torch.testing.assert_close(mean, -(0.25 * p.log() + 0.75 * (1 - p).log()).mean())
    torch.testing.assert_close(soft_bce_loss(LOGITS, target, pixel_sum=True), mean * 128 * 128)


def test_draw_is_uniform_among_available_raters() -> None:
    torch.manual_seed(0)
    valid = torch.tensor([[True, False, True, True]]).expand(6000, 4)
    share = torch.bincount(draw_rater(valid), minlength=4) / 6000
    assert share[1] == 0
    assert ((share[[0, 2, 3]] - 1 / 3).abs() < 0.03).all()


def test_one_rater_a_batch() -> None:
    torch.manual_seed(0)
    valid = torch.ones(12, 5, dtype=torch.bool)
    draws = torch.stack([draw_rater(valid, per_image=False) for _ in range(40)])
    assert (draws == draws[:, :1]).all()
    assert len(draws[:, 0].unique()) == 5
    valid[3, :4] = False
    assert all(draw_rater(valid, per_image=False)[3] == 4 for _ in range(10))


def test_pick_and_bounds() -> None:
    masks = torch.tensor([[[[1, 1, 0]], [[1, 0, 0]], [[0, 0, 1]]]], dtype=torch.uint8)
    assert pick_rater(masks, torch.tensor([1])).tolist() == [[[[1, 0, 0]]]]
    everybody = union_and_intersection(masks, torch.tensor([[True, True, True]]))
    assert everybody.tolist() == [[[[1, 1, 1]], [[0, 0, 0]]]]
    two = union_and_intersection(masks, torch.tensor([[True, True, False]]))
    assert two.tolist() == [[[[1, 1, 0]], [[1, 0, 0]]]]
