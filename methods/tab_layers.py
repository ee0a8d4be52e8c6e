"""The parts of TAB around its U-Net decoder: frozen batch norm, one DETR encoder and decoder layer, attention maps.

Liao et al., MICCAI 2023; the transformer is that of DETR (Carion et al., ECCV 2020) with learned queries.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters are buffers: they belong to the pretrained weights."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, trained: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = trained.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(trained, name).detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def freeze_batch_norms(module: nn.Module) -> None:
    """Replace every `nn.BatchNorm2d` inside `module` by a `FrozenBatchNorm2d` with its values."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child))
        else:
            freeze_batch_norms(child)


def sine_positions(height: int, width: int, size: int, like: Tensor) -> Tensor:
    """Position code (H·W)×size in the dtype and on the device of `like`: half for the row, half for the column.

    Row y of H is (y + 1) / H · 2π; sines and cosines alternate, temperature 10 000.
    """
    half = size // 2
    pair = torch.arange(half, device=like.device, dtype=like.dtype) // 2
    period = 10_000 ** (2 * pair / half)

    def axis(count: int) -> Tensor:
        place = torch.arange(1, count + 1, device=like.device, dtype=like.dtype) / (count + 1e-6) * 2 * math.pi
        angle = place[:, None] / period
        code = torch.empty_like(angle)
        code[:, 0::2], code[:, 1::2] = angle[:, 0::2].sin(), angle[:, 1::2].cos()
        return code

    rows, columns = axis(height)[:, None].expand(-1, width, -1), axis(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], -1).flatten(0, 1)


class _Attending(nn.Module):
    """A residual branch with post-norm: ``norm(x + dropout(change))``."""

    def __init__(self, size: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(size, heads, dropout=dropout, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, size)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def residual(self, x: Tensor, change: Tensor, norm: nn.Module) -> Tensor:
        out: Tensor = norm(x + self.dropout(change))
        return out


class EncoderLayer(_Attending):
    """Self-attention of the positions; their code is added to queries and keys, not to values."""

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        placed = x + positions
        x = self.residual(x, self.attention(placed, placed, x, need_weights=False)[0], self.norms[0])
        return self.residual(x, self.feed_forward(x), self.norms[1])


class DecoderLayer(_Attending):
    """Self-attention of the queries, their attention over the memory, feed-forward, and a closing layer norm.

    Queries carry nothing at first, so the self-attention of this only layer gives the same bias to all of them (its
    input projection never learns), and a query enters through its attention weights alone: over one position of
    memory all queries are equal, over few positions nearly so. With `carry` they start with their learned vectors.
    """

    def __init__(self, size: int, heads: int, hidden: int, dropout: float, carry: bool = False) -> None:
        super().__init__(size, heads, hidden, dropout)
        self.carry = carry
        self.cross = nn.MultiheadAttention(size, heads, dropout=dropout, batch_first=True)
        self.norms.extend(nn.LayerNorm(size) for _ in range(2))

    def forward(self, places: Tensor, memory: Tensor, positions: Tensor) -> Tensor:
        # What a query carries starts at 0, its learned vector is its position; or it carries that vector too.
        x = places if self.carry else torch.zeros_like(places)
        asked = x + places
        x = self.residual(x, self.attention(asked, asked, x, need_weights=False)[0], self.norms[0])
        found = self.cross(x + places, memory + positions, memory, need_weights=False)[0]
        x = self.residual(x, found, self.norms[1])
        x = self.residual(x, self.feed_forward(x), self.norms[2])
        out: Tensor = self.norms[3](x)
        return out


class QueryTransformer(nn.Module):
    """One post-norm encoder layer over the positions and one decoder layer over the queries.

    Args:
        size: d of tokens and queries.
        heads: attention heads.
        hidden: width of the feed-forward layers.
        dropout: in attention, feed-forward and residual branches.
        carry: queries carry their learned vectors from the start instead of 0.
    """

    def __init__(self, size: int, heads: int, hidden: int, dropout: float, carry: bool = False) -> None:
        super().__init__()
        self.encoder = EncoderLayer(size, heads, hidden, dropout)
        self.decoder = DecoderLayer(size, heads, hidden, dropout, carry)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, tokens: Tensor, positions: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Query features B×Q×d and memory B×N×d of tokens B×N×d, their positions N×d and learned queries Q×d."""
        memory = self.encoder(tokens, positions)
        return self.decoder(queries.expand(len(tokens), -1, -1), memory, positions), memory


class AttentionMaps(nn.Module):
    """The maps of each query over the memory, one a head, without multiplication by values.

    Args:
        size: d of queries and memory.
        heads: number of maps.
        softmax: ``joint`` over heads and positions together, as in the code (and in DETR); ``per_head`` over the
            positions of each head.
    """

    def __init__(self, size: int, heads: int, softmax: Literal["joint", "per_head"]) -> None:
        super().__init__()
        self.heads = heads
        self.softmax = softmax
        self.query, self.key = nn.Linear(size, size), nn.Linear(size, size)
        for linear in (self.query, self.key):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Maps B×Q×heads×N of queries B×Q×d and memory B×N×d."""
        query = self.query(queries).unflatten(-1, (self.heads, -1))
        key = self.key(memory).unflatten(-1, (self.heads, -1))
        scores = torch.einsum("bqhd,bnhd->bqhn", query * query.shape[-1] ** -0.5, key)
        if self.softmax == "per_head":
            return scores.softmax(-1)
        return F.softmax(scores.flatten(2), -1).view_as(scores)
