"""Confusion matrices of annotators: one per annotator, or one per annotator and pixel predicted from the features.

Everywhere ``A[i, j] = P(annotator says i | truth is j)``: columns sum to 1. Shapes: N annotations an image (all R
annotators, or one drawn per image), G independent groups of labels (1, or K overlapping classes), C labels each.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .losses import at_least_single

Form = Literal["softmax", "softplus"]
Who = Tensor | slice
ALL = slice(None)


def normalise(raw: Tensor, form: Form, axis: int) -> Tensor:
    """Columns that sum to 1 over the rows `axis`: by softmax, or by softplus and division (the authors')."""
    if form == "softmax":
        return raw.softmax(axis)
    positive = F.softplus(raw)
    return positive / positive.sum(axis, keepdim=True)


def diagonal_logit(diagonal: float, labels: int) -> float:
    """The value on the diagonal, 0 elsewhere, whose column softmax has `diagonal` on the diagonal."""
    return math.log(diagonal * (labels - 1) / (1 - diagonal))


class GlobalMatrices(nn.Module):
    """One C×C matrix per annotator (and group), the same at every pixel of every image.

    Args:
        raters, groups, labels: R, G, C.
        form: ``softmax`` starts at `diagonal`; ``softplus`` starts at softplus of the identity, as the authors, which
            for two labels is 0.65 on the diagonal after normalisation, for five 0.32.
        diagonal: start of the diagonal under ``softmax``.
    """

    def __init__(self, raters: int, groups: int, labels: int, form: Form = "softmax", diagonal: float = 0.9) -> None:
        super().__init__()
        self.form: Form = form
        scale = diagonal_logit(diagonal, labels) if form == "softmax" else 1.0
        self.raw = nn.Parameter((scale * torch.eye(labels)).repeat(raters, groups, 1, 1))

    def matrices(self) -> Tensor:
        """R×G×C×C."""
        return normalise(self.raw, self.form, 2)

    def forward(self, features: Tensor, truth: Tensor, who: Who = ALL) -> tuple[Tensor, Tensor]:
        """The truth as the annotators see it, and their traces; a 1×1 convolution, no matrix per pixel.

        Args:
            features: not used.
            truth: B×G×C×H×W, what is mixed.
            who: a slice of the annotators, or one annotator B for each image.

        Returns:
            B×N×G×C×H×W, and mean traces B×N.
        """
        batch, groups, labels = truth.shape[:3]
        matrices = self.matrices()[who]
        trace = matrices.diagonal(dim1=-2, dim2=-1).sum(-1).mean(-1)
        with torch.autocast(truth.device.type, enabled=False):  # few products, whose logarithm is the loss
            if isinstance(who, slice):
                weight = matrices.transpose(0, 1).reshape(-1, labels, 1, 1)  # group after group, its annotators inside
                seen = F.conv2d(truth.flatten(1, 2), weight, groups=groups)
                seen = seen.view(batch, groups, -1, labels, *truth.shape[-2:]).transpose(1, 2)
                return seen, trace.expand(batch, -1)
            return (matrices @ truth.flatten(3)).view_as(truth).unsqueeze(1), trace.unsqueeze(1)


class PixelMatrices(nn.Module):
    """One C×C matrix per annotator and pixel from a head of its own on the decoder features (Zhang et al., 2020).

    A head is twice [conv 3×3, instance norm, PReLU, conv 3×3, instance norm, PReLU] and a 1×1 convolution. All heads
    run as one grouped network; where every image has one annotator, only that one's head runs on it.

    Args:
        raters, groups, labels: R, G, C.
        features: channels of the feature map.
        width: channels inside a head.
        form: how matrices are made of the outputs; ``softmax`` starts at `diagonal`, ``softplus`` near uniform.
        diagonal: start of the diagonal under ``softmax``.
        rank: None for C² outputs, else ``A = normalise(U V + s I)`` of ``2·rank·C + 1`` outputs. Unlike in the authors'
            code, where prediction normalises U and V apart and forgets the identity, the same matrix everywhere.
    """

    def __init__(
        self,
        raters: int,
        groups: int,
        labels: int,
        features: int,
        width: int,
        form: Form = "softmax",
        diagonal: float = 0.9,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        self.groups, self.labels, self.rank = groups, labels, rank
        self.form: Form = form
        each = labels**2 if rank is None else 2 * rank * labels + 1
        sizes = [features, width, width, width, width]
        self.blocks = nn.ModuleList(RaterBlock(raters, a, b) for a, b in itertools.pairwise(sizes))
        self.last = RaterConv(raters, width, groups * each, 1, bias=True)
        if form == "softmax":
            start = torch.zeros(each)
            logit = diagonal_logit(diagonal, labels)
            if rank is None:
                start[:: labels + 1] = logit
            else:
                start[-1] = logit
            assert self.last.bias is not None
            with torch.no_grad():
                self.last.weight.mul_(0.1)  # near `diagonal` at every pixel, yet with a gradient to all layers
                self.last.bias.copy_(start.repeat(groups).expand(raters, -1))

    def matrices(self, features: Tensor, who: Who = ALL) -> Tensor:
        """B×N×G×C×C×H×W."""
        x = features.contiguous()
        if isinstance(who, Tensor):
            # Annotators as groups of one image: each group has the features of its image and the weights of its rater.
            x = x.view(1, -1, *features.shape[-2:])
        for place, block in enumerate(self.blocks):
            x = block(x, who, shared=place == 0 and isinstance(who, slice))
        raw = self.last(x, who)  # B×(N·G·O)×H×W, or 1×(B·G·O)×H×W
        each = self.last.weight.shape[1] // self.groups
        return self._from_outputs(raw.reshape(len(features), -1, self.groups, each, *raw.shape[-2:]))

    def _from_outputs(self, raw: Tensor) -> Tensor:
        """Matrices of outputs B×N×G×O×H×W; output i·C + j is row i, column j. Normalised in float32 at least."""
        raw = at_least_single(raw)
        labels, rank = self.labels, self.rank
        if rank is None:
            return normalise(raw.unflatten(3, (labels, labels)), self.form, 3)
        positive = F.softplus(raw) if self.form == "softplus" else raw
        v = positive[:, :, :, : rank * labels].unflatten(3, (rank, labels))
        u = positive[:, :, :, rank * labels : 2 * rank * labels].unflatten(3, (labels, rank))
        identity = torch.eye(labels, device=raw.device, dtype=raw.dtype)[..., None, None]
        full = torch.einsum("bngirhw,bngrjhw->bngijhw", u, v) + identity * positive[:, :, :, -1:, None]
        return full.softmax(3) if self.form == "softmax" else full / full.sum(3, keepdim=True)

    def forward(self, features: Tensor, truth: Tensor, who: Who = ALL) -> tuple[Tensor, Tensor]:
        """The truth as the annotators see it, B×N×G×C×H×W, and mean traces B×N; see `GlobalMatrices`."""
        matrices = self.matrices(features, who)
        seen = (matrices * truth[:, None, :, None]).sum(4)
        trace = matrices.diagonal(dim1=3, dim2=4).sum(-1).mean((2, 3, 4))
        return seen, trace


class RaterConv(nn.Module):
    """A convolution for each of R annotators, initialised as torch's.

    Weights R×O×I×k×k become one grouped convolution, of all annotators or of those chosen.
    """

    def __init__(self, raters: int, inputs: int, outputs: int, kernel: int, bias: bool) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs * kernel**2)
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.empty(raters, outputs, inputs, kernel, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(raters, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor, who: Who, shared: bool = False) -> Tensor:
        """Args:
        x: B×(N·I)×H×W; with `shared` all annotators have the same input B×I×H×W.
        who: a slice of the annotators; or N of them, for an x with B = 1.
        shared: an ordinary convolution then does for all.
        """
        weight = self.weight[who]
        bias = None if self.bias is None else self.bias[who].flatten()
        return F.conv2d(x, weight.flatten(0, 1), bias, padding=self.padding, groups=1 if shared else len(weight))


class RaterBlock(nn.Module):
    """Convolution 3×3 without bias, affine instance norm and a PReLU of one slope, for each annotator."""

    def __init__(self, raters: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = RaterConv(raters, inputs, outputs, 3, bias=False)
        self.scale = nn.Parameter(torch.ones(raters, outputs))
        self.shift = nn.Parameter(torch.zeros(raters, outputs))
        self.slope = nn.Parameter(torch.full((raters,), 0.25))

    def forward(self, x: Tensor, who: Who, shared: bool = False) -> Tensor:
        x = self.conv(x, who, shared)
        # Instance norm is group norm with a group for each channel, and PReLU lies on the line from ReLU to x. On CPUs
        # forward and backward take half the time that way, in contiguous layout.
        x = F.group_norm(x, x.shape[1], self.scale[who].flatten(), self.shift[who].flatten())
        slope = self.slope[who].to(x.dtype).repeat_interleave(self.scale.shape[1])
        return torch.lerp(F.relu(x), x, slope[:, None, None])
