"""The method contract: losses, stages and `predict` are the method's; loop, data, budget, checkpoint the suite's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..core.errors import UnsupportedPair
from ..datasets.base import DataDescription
from ..datasets.registry import DATASETS


@dataclass
class Prediction:
    """Probabilities in [0, 1]; a method leaves out what it does not claim.

    Attributes:
        samples: B×S×H×W anonymous samples (multi-class: B×S×C×H×W).
        raters: B×R×H×W, map r is meant for rater r.
        mean: B×H×W; if left out, the mean of the samples, else of the rater maps.
        sample_codes, rater_codes: B×S×D and B×R×D latent codes behind `samples` and `raters`, in one space; for
            figures only, nothing is scored by them.
    """

    samples: Tensor | None = None
    raters: Tensor | None = None
    mean: Tensor | None = None
    sample_codes: Tensor | None = None
    rater_codes: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mean is None:
            source = self.samples if self.samples is not None else self.raters
            if source is None:
                raise ValueError("a Prediction needs at least one of samples, raters, mean")
            self.mean = source.mean(1)


@dataclass(frozen=True)
class Deviation:
    """A deliberate difference from the authors' code, printed by ``multirater info``."""

    subject: str
    authors: str
    ours: str
    option: str = ""  # the option that restores the authors' behaviour
    effect: str = ""


class Method(nn.Module):
    """Base class of all methods; the keyword parameters of ``__init__`` after `data` are its options (``method.*``).

    Class attributes:
        gives_samples, gives_raters: what `predict` claims to answer.
        needs_identity: rater slots must mean something (refuses data with identity ``none``).
        multiclass: can handle more than one foreground class.
        missing_raters: can be trained when some raters are missing in some cases.
        spatial_dims: image dimensions it works on.
        version: raised when results would change.
        stages: names of the training stages, in order (`stages_for` may leave some out).
        stage_gives: per stage ``"samples"``, ``"raters"`` or ``"mean"``: which validation score chooses its checkpoint.
        deviations: differences from the authors' code.
    """

    gives_samples: ClassVar[bool] = False
    gives_raters: ClassVar[bool] = False
    needs_identity: ClassVar[bool] = False
    multiclass: ClassVar[bool] = False
    missing_raters: ClassVar[bool] = True
    spatial_dims: ClassVar[tuple[int, ...]] = (2,)
    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("main",)
    stage_gives: ClassVar[dict[str, str]] = {}
    deviations: ClassVar[tuple[Deviation, ...]] = ()

    # Set by the suite while it predicts a volume: the images of the call are its slices, and sample s is one draw for
    # all of them. What a method draws for an image it then draws once.
    slices_share_noise: bool = False
    # Set by a method whose authors draw each slice for itself, where it follows them in that too.
    slices_apart: bool = False

    def __init__(self, data: DataDescription, **hparams: Any) -> None:
        super().__init__()
        self.data = data
        self.hparams = hparams

    @classmethod
    def check_supported(cls, data: DataDescription, hparams: dict[str, Any]) -> None:
        """Refuse data that the method cannot answer for.

        Raises:
            UnsupportedPair: with the reason and what to do.
        """
        name = cls.__name__
        if cls.needs_identity and data.identity == "none":
            known = str(DATASETS.entry(data.name).info.get("identity", "")) if data.name in DATASETS else ""
            example = (
                ", for example --set dataset.identity=by_area" if "by_area" in known or data.name == "folder" else ""
            )
            raise UnsupportedPair(
                f"{name} personalises to named raters, but the raters of {data.name!r} have no identity "
                f"(dataset.identity=none); choose one that `multirater info {data.name}` lists{example}"
            )
        if data.classes > 1 and not cls.multiclass:
            raise UnsupportedPair(
                f"{name} is binary, but {data.name!r} has {data.classes} classes; choose another method"
            )
        if data.spatial_dims not in cls.spatial_dims:
            raise UnsupportedPair(
                f"{name} works on {'/'.join(map(str, cls.spatial_dims))}D data, "
                f"but {data.name!r} is {data.spatial_dims}D; choose another method"
            )
        if data.has_missing and not cls.missing_raters:
            raise UnsupportedPair(
                f"{name} needs every rater in every case, but {data.name!r} misses some; "
                f"choose a method that allows missing raters"
            )

    @classmethod
    def stages_for(cls, hparams: dict[str, Any]) -> tuple[str, ...]:
        """The stages that will run under these options (default: all)."""
        return cls.stages

    @classmethod
    def label(cls, hparams: dict[str, Any]) -> str:
        """Words that stand beside the method's name in every table: what a reader must know to compare the row."""
        return ""

    def parameters_for(self, stage: str | None) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
        """Parameters optimised in a stage, or parameter-group dicts (``lr_scale`` and ``weight_decay`` understood).

        The suite switches gradients off for all others.
        """
        return self.parameters()

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Loss of one batch and scalars to log.

        Args:
            batch: ``image`` B×C×H×W float32, ``masks`` B×R×H×W uint8, ``rater_valid`` B×R bool,
                ``case_id``, ``patient_id``.
            stage: name of the running stage.

        Random draws may use torch's global generator; the suite seeds it.
        """
        raise NotImplementedError

    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        """Predictions of a batch of images, in eval mode and without gradient; all noise from `generator`.

        The first S of n samples must not depend on n: curves over S use the first S of one stored set. While
        `slices_share_noise` is set, the images are the slices of one volume and share all noise.
        """
        raise NotImplementedError


def output_of_stage(method: Method | type[Method], stage: str) -> str:
    """What a stage is judged by: its declared output, else samples, raters, mean in that order of preference."""
    declared = method.stage_gives.get(stage)
    if declared:
        return declared
    return "samples" if method.gives_samples else "raters" if method.gives_raters else "mean"
