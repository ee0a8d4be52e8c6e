"""TAB: one transformer query for the consensus and one per rater, each decoded into a low-rank Gaussian over masks.

Liao, Xie, Hu, Xia, "Transformer-based Annotation Bias-aware Medical Image Segmentation", MICCAI 2023,
arXiv 2306.01340. The authors' repository has no licence: written from its described behaviour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..core.errors import UnsupportedPair, UserError
from ..datasets.base import DataDescription
from .backbones import channels_last
from .base import Deviation, Method, Prediction
from .chunks import chunks
from .latent import draw_seeds, seeded_noise
from .light_decoder import LightDecoder, ResNetTaps
from .losses import mean_valid
from .modes import evaluating
from .tab_deviations import DEVIATIONS
from .tab_layers import AttentionMaps, QueryTransformer, freeze_batch_norms, sine_positions
from .targets import cross_entropy, output_channels, prediction_layout, target_channels, to_probabilities

StemTap = Literal["relu", "raw"]
FactorLayout = Literal["channels", "reinterpreted"]
Draw = Literal["low_rank", "independent_variance"]
Count = Annotated[int, Field(ge=1)]

FIDELITY: dict[str, tuple[StemTap, FactorLayout, Draw]] = {
    "default": ("relu", "channels", "low_rank"),
    "authors": ("raw", "reinterpreted", "independent_variance"),
}
STRIDE = 32  # of the bottleneck
CONSENSUS = 0  # the first query; query 1 + r is rater r


@dataclass
class LowRankGaussian:
    """``N(mean, W Wᵀ + diag d)`` over the logits of whole maps.

    Attributes:
        mean: …×C×H×W.
        factor: …×C×H×W×k, the factor W.
        diagonal: …×C×H×W, d > 0.
    """

    mean: Tensor
    factor: Tensor
    diagonal: Tensor

    def __getitem__(self, index: Any) -> LowRankGaussian:
        return LowRankGaussian(self.mean[index], self.factor[index], self.diagonal[index])

    @property
    def variance(self) -> Tensor:
        """Marginal variance ``d + Σ_k W²``."""
        return self.diagonal + self.factor.square().sum(-1)

    def sample(self, shared: Tensor, own: Tensor) -> Tensor:
        """``mean + W ε₁ + √d ε₂``.

        Args:
            shared: ε₁ …×k, one number a factor for the whole map.
            own: ε₂ …×C×H×W.
        """
        return self.mean + torch.einsum("...chwk,...k->...chw", self.factor, shared) + self.diagonal.sqrt() * own


class TAB(Method):
    """TAB: shared encoder, transformer with R + 1 queries, one decoder for all of them.

    The training loss is the cross-entropy of one sample of every rater's distribution, and of one sample of the
    consensus distribution per rater, against the rater's mask. `predict` gives the rater's mean maps, the consensus
    mean map, and samples. Options that are null follow `fidelity`; a value that is given wins over it.
    """

    gives_samples: ClassVar[bool] = True
    gives_raters: ClassVar[bool] = True
    needs_identity: ClassVar[bool] = True
    multiclass: ClassVar[bool] = True
    deviations: ClassVar[tuple[Deviation, ...]] = DEVIATIONS

    def __init__(
        self,
        data: DataDescription,
        fidelity: Annotated[
            Literal["default", "authors"],
            "authors: what is null below as in the released code (stem tapped before batch norm, factors "
            "reinterpreted in memory, samples drawn pixel by pixel with the variance as standard deviation)",
        ] = "default",
        width: Annotated[int, Field(ge=4, multiple_of=4), "channels of the stem; all others scale (paper: 64)"] = 64,
        encoder_blocks: Annotated[
            tuple[Count, Count, Count, Count], "basic blocks of the four ResNet stages (paper: ResNet-34)"
        ] = (3, 4, 6, 3),
        backbone_weights: Annotated[
            str | None, "local ImageNet weights of ResNet-34 (the authors'); null: from scratch"
        ] = None,
        encoder_norm: Annotated[
            Literal["frozen", "batch"] | None,
            "batch norm of the encoder: frozen pretrained statistics, or trained; null: frozen if weights are given",
        ] = None,
        train_stem: Annotated[
            bool | None, "train the 7x7 convolution and the first stage; null: unless weights are given"
        ] = None,
        stem_tap: Annotated[
            StemTap | None, "first skip connection: after ReLU, or the convolution itself (raw); null: by fidelity"
        ] = None,
        heads: Annotated[int, Field(ge=1), "attention heads, and attention maps given to the decoder"] = 8,
        dropout: Annotated[float, Field(ge=0, lt=1), "dropout in the transformer"] = 0.1,
        attention_softmax: Annotated[
            Literal["joint", "per_head"], "softmax of the attention maps over heads and positions, or over positions"
        ] = "joint",
        query_start: Annotated[
            Literal["zero", "vector"],
            "what queries carry into the transformer: nothing, as the code, so that raters differ by where they look "
            "alone; or their learned vectors too, for images whose bottleneck has a few positions",
        ] = "zero",
        rank: Annotated[int, Field(ge=1), "rank k of the covariance factor"] = 7,
        factor_layout: Annotated[
            FactorLayout | None,
            "factor j of a class is a channel of the factor head; or its memory is reinterpreted as pixels x rank, "
            "which scatters the factors over the image (the code); null: by fidelity",
        ] = None,
        rater_weight: Annotated[float, Field(ge=0), "weight of the raters' loss, lambda"] = 1.0,
        output_bias: Annotated[float | None, "start of the bias of the mean head, -4: near an empty mask"] = None,
        sample_from: Annotated[
            Literal["consensus", "raters"], "distribution of a sample: the consensus's, or that of a random rater"
        ] = "consensus",
        draw: Annotated[
            Draw | None,
            "low_rank: a sample of the distribution; independent_variance: every pixel on its own with the variance "
            "as standard deviation (the code's test script); null: by fidelity",
        ] = None,
    ) -> None:
        hparams = {name: value for name, value in locals().items() if name not in ("self", "data", "__class__")}
        super().__init__(data, **hparams)
        tap, layout, draw_by_fidelity = FIDELITY[fidelity]
        self.width = width
        self.rank = rank
        self.factor_layout = factor_layout or layout
        self.rater_weight = rater_weight
        self.sample_from = sample_from
        self.draw = draw or draw_by_fidelity
        pretrained = backbone_weights is not None
        self.train_stem = train_stem if train_stem is not None else not pretrained
        self.outputs = output_channels(data)
        size = 4 * width
        if size % heads:
            raise UserError(
                f"method.heads={heads} does not divide the token size {size} (4 x method.width); give a divisor"
            )
        self.encoder = ResNetTaps(
            data.channels, width, encoder_blocks, backbone_weights, raw_stem=(stem_tap or tap) == "raw"
        )
        if (encoder_norm or ("frozen" if pretrained else "batch")) == "frozen":
            freeze_batch_norms(self.encoder)
        self.project = nn.Conv2d(8 * width, size, 1)
        self.queries = nn.Parameter(torch.randn(1 + data.raters, size))
        self.transformer = QueryTransformer(size, heads, 8 * width, dropout, carry=query_start == "vector")
        self.maps = AttentionMaps(size, heads, attention_softmax)
        self.decoder = LightDecoder(size + heads, self.encoder.tap_widths, size, width // 2)
        for part in self.decoder.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_uniform_(part.weight, a=1)
                assert part.bias is not None
                nn.init.zeros_(part.bias)
        self.norm = nn.BatchNorm2d(width // 2)
        self.mean_head = nn.Conv2d(width // 2, self.outputs, 1)
        self.diagonal_head = nn.Conv2d(width // 2, self.outputs, 1)
        self.factor_head = nn.Conv2d(width // 2, self.outputs * rank, 1)
        if output_bias is not None:
            assert self.mean_head.bias is not None
            nn.init.constant_(self.mean_head.bias, output_bias)
        channels_last(self)

    @classmethod
    def label(cls, hparams: dict[str, Any]) -> str:
        named = [] if hparams["fidelity"] == "default" else [f"fidelity {hparams['fidelity']}"]
        if hparams["width"] != 64:
            named.append(f"width {hparams['width']}")
        elif hparams["backbone_weights"] is None:
            named.append("from scratch")
        if hparams["sample_from"] == "raters":
            named.append("samples of random raters")
        return ", ".join(named)

    @classmethod
    def check_supported(cls, data: DataDescription, hparams: dict[str, Any]) -> None:
        """As every personalised 2D method; the transformer must see at least two positions.

        Raises:
            UnsupportedPair: with the reason and what to do.
        """
        super().check_supported(data, hparams)
        if max(data.size) <= STRIDE:
            raise UnsupportedPair(
                f"the queries of {cls.__name__} differ by where they look, but images of "
                f"{'x'.join(map(str, data.size))} pixels have one position at its bottleneck (stride {STRIDE}); use "
                f"images of more than {STRIDE} pixels"
            )

    def parameters_for(self, stage: str | None) -> Iterable[nn.Parameter]:
        if self.train_stem:
            return self.parameters()
        net = self.encoder.net
        fixed = {id(p) for part in (net.conv1, net.bn1, net.layer1) for p in part.parameters()}
        return [p for p in self.parameters() if id(p) not in fixed]

    # -- the network ----------------------------------------------------------------------------

    def forward(self, images: Tensor) -> LowRankGaussian:
        """The distributions B×(1 + R)×…: the consensus's, then the raters'."""
        taps, x = self.attend(images)
        return self.decode(taps, x, images.shape[-2:])

    def attend(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Encoder taps and the bottleneck B×(1 + R)×(d + heads)×h×w of every query."""
        taps = self.encoder(images)
        projected = self.project(taps[-1])
        size = projected.shape[-2:]
        tokens = projected.flatten(2).transpose(1, 2)
        positions = sine_positions(size[0], size[1], tokens.shape[-1], tokens)
        queries, memory = self.transformer(tokens, positions, self.queries)
        maps = self.maps(queries, memory).unflatten(-1, tuple(size))
        shared = projected.unsqueeze(1).expand(-1, maps.shape[1], -1, -1, -1)
        return taps, torch.relu(torch.cat([shared, maps], 2))

    def decode(self, taps: list[Tensor], bottleneck: Tensor, size: torch.Size | tuple[int, int]) -> LowRankGaussian:
        """The distributions B×Q×… of bottlenecks B×Q×…, all in one batch."""
        kinds = bottleneck.shape[:2]
        x, _ = self.decoder(bottleneck.flatten(0, 1), taps, size)
        x = torch.relu(self.norm(x))
        factor = self.factor_head(x)
        if self.factor_layout == "channels":
            factor = factor.unflatten(1, (self.outputs, self.rank)).movedim(2, -1)
        else:
            factor = factor.contiguous().view(len(x), self.outputs, *size, self.rank)
        parts = (self.mean_head(x), factor, self.diagonal_head(x).abs() + 1e-5)
        return LowRankGaussian(*(part.unflatten(0, kinds) for part in parts))

    # -- training -------------------------------------------------------------------------------

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """``Σ_r CE(s⁰_r, y_r) + λ Σ_r CE(s_r, y_r)`` and its two terms."""
        images = batch["image"]
        masks = target_channels(batch["masks"], self.data)
        distributions = self(images)
        shape = (2, len(images), self.data.raters)
        shared = torch.randn(*shape, self.rank, device=images.device, dtype=images.dtype)
        own = torch.randn(*shape, self.outputs, *images.shape[-2:], device=images.device, dtype=images.dtype)
        loss, terms = self.sampled_loss(distributions, masks, batch["rater_valid"], shared, own)
        return loss, {name: term.detach() for name, term in terms.items()}

    def sampled_loss(
        self, distributions: LowRankGaussian, masks: Tensor, rater_valid: Tensor, shared: Tensor, own: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss for given noise; sums over raters are R times the mean over those available.

        Args:
            distributions: B×(1 + R)×….
            masks: B×R×C×H×W in {0, 1}.
            rater_valid: B×R.
            shared: 2×B×R×k noise of the consensus and of the raters.
            own: 2×B×R×C×H×W.
        """
        consensus = distributions[:, CONSENSUS : CONSENSUS + 1].sample(shared[0], own[0])
        raters = distributions[:, CONSENSUS + 1 :].sample(shared[1], own[1])
        terms = {
            name: masks.shape[1] * mean_valid(cross_entropy(drawn, masks, self.data), rater_valid)
            for name, drawn in (("consensus", consensus), ("raters", raters))
        }
        return terms["consensus"] + self.rater_weight * terms["raters"], terms

    # -- prediction -----------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        """Samples B×S×H×W, the raters' mean maps B×R×H×W and the consensus's mean map as the mean.

        The encoder and the transformer run once an image; each image has a noise seed of its own.
        """
        seeds = draw_seeds(len(images), generator, shared=self.slices_share_noise)
        samples, raters, means = [], [], []
        with evaluating(self):
            for image, seed in zip(images.split(1), seeds, strict=True):
                distributions = self._distributions(image)
                samples.append(self._samples(distributions, n_samples, seed))
                maps = to_probabilities(distributions.mean, self.data, 2)
                raters.append(maps[:, CONSENSUS + 1 :])
                means.append(maps[:, CONSENSUS])
        return Prediction(
            samples=prediction_layout(torch.cat(samples), self.data, 2),
            raters=prediction_layout(torch.cat(raters), self.data, 2),
            mean=prediction_layout(torch.cat(means), self.data, 1),
        )

    def _distributions(self, image: Tensor) -> LowRankGaussian:
        """Of one image; queries are decoded as many at once as memory allows."""
        size = image.shape[-2:]
        taps, bottleneck = self.attend(image)
        floats = 4 * self.width + self.outputs * (2 + self.rank)
        query = floats * size[0] * size[1] * image.element_size()
        parts = [
            self.decode(taps, bottleneck[:, some], size) for some in chunks(bottleneck.shape[1], query, image.device)
        ]
        return LowRankGaussian(*(torch.cat([getattr(p, f) for p in parts], 1) for f in ("mean", "factor", "diagonal")))

    def _samples(self, distributions: LowRankGaussian, n_samples: int, seed: int) -> Tensor:
        """Probabilities 1×S×C×H×W of samples of one image."""
        event = distributions.mean.shape[2:]
        noise = seeded_noise(n_samples, 1 + self.rank + event.numel(), seed, distributions.mean)
        which = torch.full((n_samples,), CONSENSUS, device=noise.device)
        if self.sample_from == "raters":  # a uniform rater: the distribution function of its normal number
            share = torch.special.ndtr(noise[:, 0])
            which = CONSENSUS + 1 + (share * self.data.raters).long().clamp_max(self.data.raters - 1)
        shared, own = noise[:, 1 : 1 + self.rank], noise[:, 1 + self.rank :].unflatten(1, event)
        out = []
        item = event.numel() * (4 + self.rank) * noise.element_size()
        for some in chunks(n_samples, item, noise.device):
            # samples of one distribution share its tensors: nothing is copied but for samples of several raters
            chosen = distributions[0, CONSENSUS] if self.sample_from == "consensus" else distributions[0, which[some]]
            if self.draw == "low_rank":
                drawn = chosen.sample(shared[some], own[some])
            else:
                drawn = chosen.mean + chosen.variance * own[some]
            out.append(to_probabilities(drawn, self.data, 1))
        return torch.cat(out).unsqueeze(0)
