import math

import pytest
import torch
from multirater.benchmark.augment import augment, rotate
from multirater.core.errors import UserError


def batch(n=6, size=16, width=None):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n, 1, size, width or size, generator=generator)
    masks = (images > 0.5).to(torch.uint8).expand(-1, 3, -1, -1).clone()
    return images, masks


@pytest.mark.parametrize("kind", ["none", "flips", "flips_transpose"])
def test_image_and_masks_move_together(kind):
    images, masks = batch()
    moved, moved_masks = augment(images, masks, kind, torch.Generator().manual_seed(3))
    assert torch.equal((moved > 0.5).to(torch.uint8).expand(-1, 3, -1, -1), moved_masks)
    assert torch.equal(moved.flatten(1).sort().values, images.flatten(1).sort().values)  # pixels are only permuted


def test_draws_differ_between_cases_and_repeat_with_the_seed():
    images, masks = batch(32)
    first = augment(images, masks, "flips_transpose", torch.Generator().manual_seed(5))[0]
    again = augment(images, masks, "flips_transpose", torch.Generator().manual_seed(5))[0]
    other = augment(images, masks, "flips_transpose", torch.Generator().manual_seed(6))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    variants = [
        next(k for k in range(8) if torch.equal(moved, _symmetry(image, k)))
        for image, moved in zip(images, first, strict=True)
    ]
    assert len(set(variants)) >= 6  # 32 draws of 8 equally likely symmetries


def _symmetry(image, k):
    image = image.flip(-1) if k & 1 else image
    image = image.flip(-2) if k & 2 else image
    return image.transpose(-1, -2) if k & 4 else image


def test_rotation_by_a_quarter_turn_is_exact():
    images, _ = batch(2, 8)
    turned = rotate(images, torch.tensor([math.pi / 2, -math.pi / 2]))
    expected = {k: torch.rot90(images[0], k, (-2, -1)) for k in (1, 3)}
    direction = next(k for k, e in expected.items() if torch.allclose(turned[0], e))
    assert torch.allclose(turned[1], torch.rot90(images[1], 4 - direction, (-2, -1)))


def test_rotation_keeps_a_centred_disc_and_fills_with_zero():
    axis = torch.arange(64) - 31.5
    disc = ((axis[:, None] ** 2 + axis[None] ** 2) < 20**2).to(torch.uint8)[None, None].expand(8, 2, -1, -1)
    turned = rotate(disc, torch.linspace(0.1, 3, 8))
    assert turned.dtype == torch.uint8
    radius = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
    away = (radius - 20).abs() > 1  # nearest neighbour may move the edge by one pixel, nothing else
    assert torch.equal(turned[..., away], disc[..., away])
    full = rotate(torch.ones(1, 1, 64, 64), torch.tensor([math.pi / 4]))
    assert full[0, 0, 0, 0] == 0
    assert full[0, 0, 32, 32] == 1


def test_transposing_a_rectangle_is_refused():
    images, masks = batch(2, 8, 12)
    with pytest.raises(UserError, match="square images, but these are 8x12"):
        augment(images, masks, "flips_transpose", torch.Generator().manual_seed(0))
