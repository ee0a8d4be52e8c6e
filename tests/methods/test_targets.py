"""Channel layouts of binary, overlapping and exclusive classes."""

from __future__ import annotations

import torch
from multirater.datasets import DataDescription
from multirater.methods.targets import (
    cross_entropy,
    mean_target,
    output_channels,
    prediction_layout,
    target_channels,
    to_probabilities,
)

BINARY = DataDescription(raters=2, size=(4, 4))
NESTED = DataDescription(raters=2, size=(4, 4), classes=2, overlapping=True)
EXCLUSIVE = DataDescription(raters=2, size=(4, 4), classes=3)


def test_channels():
    assert [output_channels(d) for d in (BINARY, NESTED, EXCLUSIVE)] == [1, 2, 4]


def test_targets():
    labels = torch.randint(0, 4, (3, 2, 4, 4), dtype=torch.uint8)
    hot = target_channels(labels, EXCLUSIVE)
    assert hot.shape == (3, 2, 4, 4, 4)
    assert (hot.argmax(2) == labels).all()
    assert (hot.sum(2) == 1).all()
    masks = torch.randint(0, 2, (3, 2, 4, 4), dtype=torch.uint8)
    assert (target_channels(masks, BINARY)[:, :, 0] == masks).all()
    both = torch.randint(0, 2, (3, 2, 2, 4, 4), dtype=torch.uint8)
    assert target_channels(both, NESTED) is both


def test_probabilities_and_layout():
    logits = torch.randn(3, 5, 4, 4, 4)
    maps = to_probabilities(logits, EXCLUSIVE, 2)
    torch.testing.assert_close(maps.sum(2), torch.ones(3, 5, 4, 4))
    assert prediction_layout(maps, EXCLUSIVE, 2) is maps
    single = to_probabilities(logits[:, :, :1], BINARY, 2)
    assert prediction_layout(single, BINARY, 2).shape == (3, 5, 4, 4)
    torch.testing.assert_close(single, torch.sigmoid(logits[:, :, :1]))
    assert prediction_layout(logits[:, :, :2], NESTED, 2).shape == (3, 5, 2, 4, 4)


def test_mean_leaves_missing_raters_out():
    targets = torch.tensor([1, 0], dtype=torch.uint8).view(1, 2, 1, 1, 1).expand(3, 2, 1, 4, 4)
    valid = torch.tensor([[True, True], [True, False], [False, True]])
    mean = mean_target(targets, valid)
    assert mean[:, 0, 0, 0].tolist() == [0.5, 1.0, 0.0]


def test_cross_entropy_in_every_layout():
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 4, 6, 6)
    shares = torch.rand(3, 1, 4, 6, 6).softmax(2)  # soft, and broadcast over the second axis
    exclusive = cross_entropy(logits, shares, EXCLUSIVE)
    assert exclusive.shape == (3, 5)
    for b in range(3):
        for r in range(5):
            wanted = torch.nn.functional.cross_entropy(logits[b, r][None], shares[b, 0][None])
            torch.testing.assert_close(exclusive[b, r], wanted)
    labels = torch.randint(0, 2, (3, 5, 2, 6, 6), dtype=torch.uint8)
    nested = cross_entropy(logits[:, :, :2], labels, NESTED)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, :, :2], labels.float(), reduction="none")
    torch.testing.assert_close(nested, wanted.mean((2, 3, 4)))
