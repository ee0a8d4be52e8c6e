"""Augmentations drawn per case: independent of the batch, image and masks in step, each part within its limits."""

import math

import numpy as np
import pytest
import torch
from multirater.benchmark.augment import augment
from multirater.benchmark.augment_cases import augment_cases
from multirater.benchmark.augment_kinds import BATCH_KINDS, PARTS, parts_of
from multirater.benchmark.config import TrainConfig
from multirater.core.errors import UserError
from multirater.core.seeding import numpy_generator

ALL = ("flips", "rotate20", "scale", "shift", "elastic", "gamma", "contrast", "noise")


def streams(n, epoch=0):
    return [numpy_generator("test", case=i, epoch=epoch) for i in range(n)]


def discs(n=6, size=48, channels=1):
    axis = torch.arange(size) - (size - 1) / 2
    distance = ((axis[:, None] - 4) ** 2 + (axis[None] + 6) ** 2).sqrt()
    images = torch.sigmoid(8 - distance).expand(n, channels, -1, -1).clone()
    masks = torch.stack([distance < r for r in (6, 8, 10)]).to(torch.uint8).expand(n, -1, -1, -1).clone()
    return images, masks


def test_a_case_does_not_depend_on_its_batch():
    images, masks = discs(7, channels=2)
    together = augment_cases(images, masks, ALL, streams(7))
    for i in range(7):
        alone = augment_cases(images[i : i + 1], masks[i : i + 1], ALL, streams(7)[i : i + 1])
        assert torch.equal(alone[0][0], together[0][i])
        assert torch.equal(alone[1][0], together[1][i])
    other = augment_cases(images, masks, ALL, streams(7, epoch=1))
    assert not torch.equal(other[0], together[0])
    assert len({moved.numpy().tobytes() for moved in together[1]}) == 7


def test_adding_a_part_leaves_the_draws_of_the_others():
    images, masks = discs()
    few = augment_cases(images, masks, ("flips", "rotate20"), streams(6))
    more = augment_cases(images, masks, ("flips", "rotate20", "gamma", "contrast", "noise"), streams(6))
    assert torch.equal(few[1], more[1])
    assert not torch.equal(few[0], more[0])


@pytest.mark.parametrize("parts", [("flips",), ("flips", "transpose"), ("flips", "transpose", "noise")])
def test_symmetries_only_permute(parts):
    images, masks = discs(32)
    moved, moved_masks = augment_cases(images, masks, parts, streams(32))
    assert moved_masks.dtype == torch.uint8
    kept = moved_masks.flatten(2).sum(-1)
    assert torch.equal(kept, masks.flatten(2).sum(-1))
    if "noise" not in parts:
        assert torch.equal(moved.flatten(1).sort().values, images.flatten(1).sort().values)
        variants = {m.numpy().tobytes() for m in moved}
        assert len(variants) == (8 if "transpose" in parts else 4)


@pytest.mark.parametrize("parts", [("rotate20",), ("rotate180",), ("scale",), ("shift",), ("elastic",)])
def test_image_and_masks_move_together(parts):
    images, masks = discs(12, 64)
    moved, moved_masks = augment_cases(images, masks, parts, streams(12))
    assert set(np.unique(moved_masks)) == {0, 1}
    middle = moved_masks[:, 1]  # radius 8, where the sigmoid passes one half
    assert ((moved[:, 0] > 0.5) != (middle > 0)).float().mean() < 0.01
    assert (moved_masks[:, 0] <= moved_masks[:, 1]).all()
    assert (middle != masks[:, 1]).any()


def centre(masks):
    rows, columns = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in masks.shape[-2:]), indexing="ij")
    area = masks.sum((-2, -1))
    return torch.stack([(rows * masks).sum((-2, -1)) / area, (columns * masks).sum((-2, -1)) / area], -1), area


def test_limits_of_rotation_scale_and_shift():
    images, masks = discs(200, 64)
    before, area = centre(masks[:, 2].float())
    turned, _ = centre(augment_cases(images, masks, ("rotate20",), streams(200))[1][:, 2].float())
    angle = torch.atan2(turned[:, 0], turned[:, 1]) - torch.atan2(before[:, 0], before[:, 1])
    angle = (angle + math.pi) % (2 * math.pi) - math.pi
    assert 17 < math.degrees(float(angle.abs().max())) < 22
    assert (angle > 0).any()
    assert (angle < 0).any()
    _, scaled = centre(augment_cases(images, masks, ("scale",), streams(200))[1][:, 2].float())
    factor = (scaled / area).sqrt()
    assert 0.77 < factor.min() < 0.83
    assert 1.2 < factor.max() < 1.28
    shifted, _ = centre(augment_cases(images, masks, ("shift",), streams(200))[1][:, 2].float())
    assert 5.5 < (shifted - before).abs().max() < 7.5  # a tenth of 64


def test_intensity_stays_in_its_limits_and_never_moves_masks():
    images, masks = discs(100)
    for part in ("gamma", "contrast", "noise"):
        changed, same = augment_cases(images, masks, (part,), streams(100))
        assert torch.equal(same, masks)
        assert torch.isfinite(changed).all()
        assert not torch.equal(changed, images)
    gamma = augment_cases(images, masks, ("gamma",), streams(100))[0]
    assert torch.allclose(gamma.amin((1, 2, 3)), images.amin((1, 2, 3)), atol=1e-6)
    assert torch.allclose(gamma.amax((1, 2, 3)), images.amax((1, 2, 3)), atol=1e-6)
    noise = (augment_cases(images, masks, ("noise",), streams(100))[0] - images).flatten(1).std(1)
    assert noise.max() <= 0.105
    assert noise.min() < 0.01


def test_a_constant_image_stays_finite():
    images, masks = torch.full((3, 1, 16, 16), 0.25), torch.zeros(3, 2, 16, 16, dtype=torch.uint8)
    changed = augment_cases(images, masks, ("gamma", "contrast", "noise"), streams(3))[0]
    assert torch.allclose(changed, images)


def test_overlapping_masks_volumes_and_rectangles():
    images, masks = discs(2, 32)
    planes = torch.stack([masks, masks], 2)
    moved = augment_cases(images, planes, ALL, streams(2))[1]
    assert moved.shape == planes.shape
    assert torch.equal(moved[:, :, 0], augment_cases(images, masks, ALL, streams(2))[1])
    volume, labels = images[:, :, None].repeat(1, 1, 3, 1, 1), masks[:, :, None].repeat(1, 1, 3, 1, 1)
    parts = ("flips", "rotate20", "elastic")
    moved_volume, moved_labels = augment_cases(volume, labels, parts, streams(2))
    assert torch.equal(moved_volume[:, :, 2], augment_cases(images, masks, parts, streams(2))[0])
    assert torch.equal(moved_labels[:, :, 0], moved_labels[:, :, 2])
    wide = augment_cases(images[..., :20], masks[..., :20], ALL, streams(2))
    assert wide[0].shape == (2, 1, 32, 20)
    with pytest.raises(UserError, match="square images, but these are 32x20"):
        augment_cases(images[..., :20], masks[..., :20], ("transpose",), streams(2))


def test_names():
    assert all(parts_of(kind) == () for kind in BATCH_KINDS)
    assert parts_of("noise+flips") == ("flips", "noise")
    assert parts_of("+".join(p for p in PARTS if p != "rotate180"))
    assert TrainConfig(steps=1, augment="noise + flips").augment == "flips+noise"
    assert TrainConfig(steps=1).augment == "flips_transpose"
    for wrong, why in [("flip", "does not exist"), ("flips+flips", "twice"), ("rotate20+rotate180", "two rotations")]:
        with pytest.raises(ValueError, match=why):
            TrainConfig(steps=1, augment=wrong)


# -- the kinds that published results rest on ---------------------------------------------------


def literal(x, flips, transpose):
    """The first form of `augment`: three selections of whole batches."""
    where = [f.view(-1, *[1] * (x.ndim - 1)) for f in flips]
    x = torch.where(where[0], x.flip(-1), x)
    x = torch.where(where[1], x.flip(-2), x)
    return torch.where(where[2], x.transpose(-1, -2), x) if transpose else x


@pytest.mark.parametrize("kind", ["flips", "flips_transpose"])
@pytest.mark.parametrize(("channels", "slots"), [(1, (4,)), (3, (2, 2))])
def test_values_and_memory_order_of_the_batch_kinds_never_change(kind, channels, slots):
    images = torch.rand(9, channels, 16, 16, generator=torch.Generator().manual_seed(1))
    masks = (torch.rand(9, *slots, 16, 16, generator=torch.Generator().manual_seed(2)) > 0.5).to(torch.uint8)
    flips = torch.rand(3, 9, generator=torch.Generator().manual_seed(3)) < 0.5
    found = augment(images, masks, kind, torch.Generator().manual_seed(3))
    for given, moved in zip((images, masks), found, strict=True):
        expected = literal(given, flips, kind == "flips_transpose")
        assert torch.equal(moved, expected)
        assert moved.stride() == expected.stride()
