"""The fusion head: 1×1 convolutions on features and a latent code that is the same at every pixel."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .chunks import chunk_size
from .latent import init_he_truncated, init_orthogonal

# Pixels decoded at once on the CPU: the intermediate maps of one chunk then stay in the caches of a core.
_CPU_PIXELS = 12 * 64 * 64


class FusionHead(nn.Module):
    """Logits of many latent codes from one feature map, ``fcomb`` in the authors' code.

    The first layer is linear, so its weight splits into a feature part and a latent part,
    ``ReLU((W_F F + b) + W_z z)``: the first term is computed once an image and a code costs one vector. This is
    exact, unlike in a tiling of z over all pixels nothing is repeated.

    Args:
        features: channels of the feature map.
        latent: size L of the code.
        width: channels of the hidden layers.
        layers: number of 1×1 convolutions, the last of which gives one logit.
        sample_chunk: codes decoded at once; None chooses (a loop over codes on the CPU, where a large batch is bound by
            memory; many at once on CUDA). The numbers do not depend on it beyond rounding.
        output_bias: value of the last bias; None leaves the initialisation near 0.
        he_truncated: initialise as the TensorFlow code, instead of orthogonal weights.
    """

    def __init__(
        self,
        features: int,
        latent: int,
        width: int,
        layers: int = 4,
        sample_chunk: int | None = None,
        output_bias: float | None = None,
        he_truncated: bool = False,
    ) -> None:
        super().__init__()
        self.features = features
        self.sample_chunk = sample_chunk
        sizes = [features + latent, *[width] * (layers - 1), 1]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in itertools.pairwise(sizes))
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d)
            (init_he_truncated if he_truncated else init_orthogonal)(layer)
        if output_bias is not None:
            nn.init.constant_(self.layers[-1].bias, output_bias)  # type: ignore[arg-type]

    @property
    def hidden_layers(self) -> list[nn.Module]:
        """All layers but the last: what the authors' regulariser covers."""
        return list(self.layers[:-1])

    def forward(self, features: Tensor, codes: Tensor) -> Tensor:
        """Logits B×S×H×W of codes B×S×L on features B×F×H×W."""
        base, offsets = self._split(features, codes)
        chunk = self._chunk(features)
        parts = [self._decode(base, part) for part in offsets.split(chunk, 1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def extremes(self, features: Tensor, codes: Tensor) -> Tensor:
        """Pixel-wise maximum and minimum of the logits over the S codes, B×2×H×W, differentiable.

        The gradient of a maximum is that of the code that attains it. So all codes are decoded without gradient to
        find, for every pixel, the two that matter, and only these two maps are decoded again with gradient: values
        and gradients are those of ``max`` and ``min`` over `forward`, at a fraction of time and memory.
        """
        base, offsets = self._split(features, codes)
        with torch.no_grad():
            largest, smallest, arg_largest, arg_smallest = self._find_extremes(base, offsets)
        if not torch.is_grad_enabled():
            return torch.stack([largest, smallest], 1)
        chosen = torch.stack([arg_largest, arg_smallest], 1)  # B×2×H×W
        # A one-hot product instead of an index: its backward is a small matrix product too, not a scatter-add.
        one_hot = chosen.unsqueeze(-1) == torch.arange(offsets.shape[1], device=chosen.device)
        pixel_offsets = one_hot.to(offsets.dtype).flatten(1, 3) @ offsets  # B×(2·H·W)×width
        pixel_offsets = pixel_offsets.unflatten(1, chosen.shape[1:]).movedim(-1, 2)
        hidden = F.relu(base.unsqueeze(1) + pixel_offsets, inplace=True).flatten(0, 1)
        return self._tail(hidden).unflatten(0, (-1, 2)).squeeze(2)

    def _split(self, features: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        first = self.layers[0]
        assert isinstance(first, nn.Conv2d)
        base = F.conv2d(features, first.weight[:, : self.features], first.bias)
        return base, F.linear(codes, first.weight[:, self.features :, 0, 0])

    def _decode(self, base: Tensor, offsets: Tensor) -> Tensor:
        """B×s×H×W logits of s codes from the shared base B×width×H×W and their offsets B×s×width."""
        if offsets.shape[1] == 1:
            return self._tail(F.relu(base + offsets[:, 0, :, None, None], inplace=True))
        hidden = F.relu(base.unsqueeze(1) + offsets[..., None, None], inplace=True)
        return self._tail(hidden.flatten(0, 1)).view(*offsets.shape[:2], *base.shape[-2:])

    def _tail(self, hidden: Tensor) -> Tensor:
        for layer in self.layers[1:-1]:
            hidden = F.relu(layer(hidden), inplace=True)
        out: Tensor = self.layers[-1](hidden)
        return out

    def _find_extremes(self, base: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        largest = smallest = arg_largest = arg_smallest = None
        first = 0
        for part in offsets.split(self._chunk(base), 1):
            logits = self._decode(base, part)
            high, arg_high = logits.max(1)
            low, arg_low = logits.min(1)
            arg_high, arg_low = arg_high + first, arg_low + first
            first += part.shape[1]
            if largest is None:
                largest, smallest, arg_largest, arg_smallest = high, low, arg_high, arg_low
                continue
            assert smallest is not None
            assert arg_largest is not None
            assert arg_smallest is not None
            arg_largest = torch.where(high > largest, arg_high, arg_largest)
            arg_smallest = torch.where(low < smallest, arg_low, arg_smallest)
            largest, smallest = torch.maximum(largest, high), torch.minimum(smallest, low)
        assert largest is not None
        assert smallest is not None
        assert arg_largest is not None
        assert arg_smallest is not None
        return largest, smallest, arg_largest, arg_smallest

    def _chunk(self, features: Tensor) -> int:
        if self.sample_chunk is not None:
            return self.sample_chunk
        if features.is_cuda:
            width = self.layers[0].out_channels
            assert isinstance(width, int)
            return chunk_size(3 * width * features[:, 0].numel() * features.element_size(), features.device)
        return max(1, _CPU_PIXELS // features[:, 0].numel())
