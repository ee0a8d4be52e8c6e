"""The two parts of Pionono that are its own: one Gaussian per rater, and the head that fuses code and features."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .chunks import chunks

Diagonal = Literal["exp", "plain"]
# Pixels decoded at once on the CPU: the maps of one chunk then stay in the caches of a core (several times faster than
# fifty samples at once on 64² pixels).
_CPU_PIXELS = 2 * 64 * 64


class RaterGaussians(nn.Module):
    """``q(z|r) = N(μ_r, L_r L_rᵀ)`` of R raters, the same for every image (section 3.2 of the paper).

    Args:
        raters: number of Gaussians.
        latent: size D of the code.
        prior_std: σ of the prior ``N(0, σ² I)``; all ``L_r`` start at ``σ I``.
        mean_spread: standard deviation of the initial means.
        diagonal: ``exp`` keeps the diagonal of ``L_r`` positive and stores the lower triangle only. ``plain`` is the
            authors': D×D parameters of which the upper triangle is dead, and a diagonal that may reach 0, where the
            Kullback-Leibler divergence ends (here: a loss that is not finite).
    """

    def __init__(
        self, raters: int, latent: int, prior_std: float = 2.0, mean_spread: float = 8.0, diagonal: Diagonal = "exp"
    ) -> None:
        super().__init__()
        self.latent = latent
        self.prior_std = prior_std
        self.diagonal = diagonal
        self.mean = nn.Parameter(torch.randn(raters, latent) * mean_spread)
        if diagonal == "plain":
            self.full = nn.Parameter((torch.eye(latent) * prior_std).repeat(raters, 1, 1))
        else:
            self.log_diagonal = nn.Parameter(torch.full((raters, latent), math.log(prior_std)))
            self.below = nn.Parameter(torch.zeros(raters, latent * (latent - 1) // 2))

    def scale_tril(self) -> Tensor:
        """L, R×D×D."""
        if self.diagonal == "plain":
            return self.full.tril()
        rows, columns = torch.tril_indices(self.latent, self.latent, -1, device=self.mean.device)
        factor = torch.diag_embed(self.log_diagonal.exp())
        factor[:, rows, columns] = self.below
        return factor

    def codes(self, rater: Tensor, noise: Tensor) -> Tensor:
        """Reparameterised codes ``μ_r + L_r ε``.

        Args:
            rater: index of the rater, any shape that broadcasts with the leading axes of `noise`.
            noise: ...×D, standard normal.
        """
        return self.mean[rater] + (self.scale_tril()[rater] @ noise.unsqueeze(-1)).squeeze(-1)

    def kl(self) -> Tensor:
        """KL(q(z|r) ‖ N(0, σ² I)) of each rater, R."""
        factor, variance = self.scale_tril(), self.prior_std**2
        spread = (factor.square().sum((1, 2)) + self.mean.square().sum(1)) / variance
        log_diagonal = self.log_diagonal if self.diagonal == "exp" else factor.diagonal(dim1=1, dim2=2).log()
        return 0.5 * (spread - self.latent) + self.latent * math.log(self.prior_std) - log_diagonal.sum(1)


class PiononoHead(nn.Module):
    """1×1 convolutions on the features and a code that is the same at every pixel.

    The first layer is linear, so its weight splits: ``W_f v + b`` is computed once an image and a code adds one vector
    ``W_z z``. The last layer is affine, so that a mean of logits is the last layer of the mean hidden map.

    Args:
        features: channels of the feature map, also the width of the hidden layers.
        latent: size D of the code.
        outputs: channels C of a map.
        layers: number of convolutions.
        sample_chunk: codes decoded at once; None chooses. The numbers do not depend on it beyond rounding.
    """

    def __init__(
        self, features: int, latent: int, outputs: int, layers: int = 3, sample_chunk: int | None = None
    ) -> None:
        super().__init__()
        self.features = features
        self.sample_chunk = sample_chunk
        sizes = [features + latent, *[features] * (layers - 1), outputs]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in itertools.pairwise(sizes))
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def hidden_layers(self) -> list[nn.Module]:
        """All layers but the last: what the authors' regulariser covers."""
        return list(self.layers[:-1])

    def forward(self, features: Tensor, codes: Tensor) -> Tensor:
        """Logits B×S×C×H×W of codes B×S×D on features B×F×H×W."""
        maps = [self._last(hidden) for hidden in self._hidden(features, codes)]
        return maps[0] if len(maps) == 1 else torch.cat(maps, 1)

    def mean_logits(self, features: Tensor, codes: Tensor) -> Tensor:
        """Logits B×C×H×W averaged over the codes B×S×D."""
        total = sum(hidden.sum(1) for hidden in self._hidden(features, codes))
        out: Tensor = self.layers[-1](total / codes.shape[1])
        return out

    def group_means(
        self, features: Tensor, codes: Tensor, activation: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Means over T of logits, or of `activation` of them: B×G×C×H×W of codes B×G×T×D. No gradient is needed."""
        groups, count = codes.shape[1:3]
        member = torch.eye(groups, device=codes.device, dtype=codes.dtype).repeat_interleave(count, 1)
        total: Tensor | None = None
        first = 0
        for hidden in self._hidden(features, codes.flatten(1, 2)):
            maps = self._last(hidden)
            maps = maps if activation is None else activation(maps)
            part = torch.einsum("gs,bschw->bgchw", member[:, first : first + maps.shape[1]], maps)
            total = part if total is None else total.add_(part)
            first += maps.shape[1]
        assert total is not None
        return total / count  # not shares that are summed: rounded, they may add up to more than 1

    def _hidden(self, features: Tensor, codes: Tensor) -> Iterator[Tensor]:
        """Last hidden maps B×s×F×H×W, chunk after chunk."""
        first = self.layers[0]
        assert isinstance(first, nn.Conv2d)
        base = F.conv2d(features, first.weight[:, : self.features], first.bias)
        offsets = F.linear(codes, first.weight[:, self.features :, 0, 0])
        for part in self._chunks(base, codes.shape[1]):
            hidden = F.relu(base.unsqueeze(1) + offsets[:, part, :, None, None], inplace=True).flatten(0, 1)
            for layer in self.layers[1:-1]:
                hidden = F.relu(layer(hidden), inplace=True)
            yield hidden.unflatten(0, (len(base), -1))

    def _last(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.layers[-1](hidden.flatten(0, 1))
        return out.unflatten(0, hidden.shape[:2])

    def _chunks(self, base: Tensor, n: int) -> Iterator[slice]:
        size = self.sample_chunk
        if size is None and not base.is_cuda:
            size = max(1, _CPU_PIXELS // (base[:, 0].numel()))
        if size is None:
            yield from chunks(n, 3 * base.numel() * base.element_size(), base.device)
            return
        for start in range(0, n, size):
            yield slice(start, min(start + size, n))
