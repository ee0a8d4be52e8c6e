"""D-Persona's second stage: one query per rater attends over a bank of prior codes (Wu et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import channels_last
from .latent import init_relu_conv


class ExpertHeads(nn.Module):
    """R projection heads as one grouped network: features B×F×H×W to queries B×R×L.

    A head is a row of blocks [conv 3×3, ReLU, Dropout2d, conv 3×3, ReLU] with 2×2 average pools between them and a
    global average at the end. All heads see the same features, so the first convolution is an ordinary one with R
    times the channels and the others are grouped: the same arithmetic as R networks, without a loop over raters.

    Args:
        raters: number of heads R.
        features: channels of the feature map.
        widths: channels of the blocks of one head; the last is the latent size L.
        padding: of every convolution. The authors' code has 3 (a misplaced argument), so that a map grows by 4 a
            convolution and border values made of biases enter the query.
        final_relu: ReLU after the last convolution, as published. It can silence a head for good: the query becomes 0,
            attention uniform and the output the mean code, which looks like a trained model.
        dropout: probability of dropping a channel after the first ReLU of a block.
        pool_input: 2×2 average pool of the features first, for speed.
    """

    def __init__(
        self,
        raters: int,
        features: int,
        widths: Sequence[int],
        padding: int = 3,
        final_relu: bool = False,
        dropout: float = 0.1,
        pool_input: bool = False,
    ) -> None:
        super().__init__()
        self.raters = raters
        self.final_relu = final_relu
        self.dropout = dropout
        self.pool_input = pool_input
        self.convs = nn.ModuleList()
        inputs, groups = features, 1
        for width in widths:
            for _ in range(2):
                self.convs.append(
                    nn.Conv2d(inputs * (raters if groups > 1 else 1), width * raters, 3, padding=padding, groups=groups)
                )
                inputs, groups = width, raters
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            init_relu_conv(conv)
        channels_last(self)

    def forward(self, features: Tensor) -> Tensor:
        x = F.avg_pool2d(features, 2, ceil_mode=True) if self.pool_input else features
        last = len(self.convs) - 1
        for index, conv in enumerate(self.convs):
            second = index % 2
            if index and not second:
                x = F.avg_pool2d(x, 2)
            x = conv(x)
            if index < last or self.final_relu:
                x = F.relu(x, inplace=True)
            if not second:
                x = F.dropout2d(x, self.dropout, self.training)
        return x.mean((2, 3)).unflatten(1, (self.raters, -1))


def heads_fit(size: Sequence[int], blocks: int, padding: int, pool_input: bool) -> bool:
    """Whether the maps of an `ExpertHeads` of so many blocks keep at least one pixel on images of `size` pixels."""
    side = min(size)
    if pool_input:
        side = -(-side // 2)
    for block in range(blocks):
        if block:
            side //= 2
        for _ in range(2):
            side += 2 * padding - 2
            if side < 1:
                return False
    return True


def attend(queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Codes B×R×L and attention B×R×S of queries B×R×L over a bank of codes B×S×L.

    Softmax over the codes of the plain inner product, without scaling or projections, as published; a rater's code is
    therefore a convex combination of the bank and depends on its size.
    """
    attention = torch.softmax(queries @ bank.transpose(1, 2), -1)
    return attention @ bank, attention


def flat_share(queries: Tensor, bank: Tensor, threshold: float = 0.01) -> Tensor:
    """Share of (image, rater) whose attention scores hardly vary over the bank (std below `threshold`).

    Such a query picks the mean code whatever the image: the head is dead.
    """
    scores = queries.detach() @ bank.detach().transpose(1, 2)
    return (scores.std(-1) < threshold).to(scores.dtype).mean()
