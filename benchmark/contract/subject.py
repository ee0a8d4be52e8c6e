"""The method under check: its class, its options at smoke sizes, and what the checks do with it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.registry import Entry
from ...datasets.base import DataDescription
from ...datasets.registry import DATASETS
from ...methods.backbones import channels_last
from ...methods.base import Method, Prediction
from ..config import resolve_classes
from ..trainer import build_optimizer
from .check import Fault, require
from .data import describe, fresh, make_batch

STEPS = 20
SAMPLES = 16


@dataclass
class Training:
    """What happened in the common training: every stage for `STEPS` steps on one batch with the same noise.

    Attributes:
        method: trained; only through `Subject.trained`, which puts its tensors back.
        state: its tensors after training.
        losses: of every step, by stage.
        logs: the scalars of the last step, by stage.
    """

    method: Method
    state: dict[str, Tensor] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    logs: dict[str, Any] = field(default_factory=dict)


class Subject:
    """A method class with its options.

    Args:
        cls: the class.
        name: its registry name, or the name of the class.
        entry: its registry entry, None if it is not registered.
        overrides: sections ``method`` and ``train``, on top of the smoke preset.
        device: where the checks run.
        size: side of the made images; volumes have half of it.

    Raises:
        UserError: an option that does not exist or is not allowed.
    """

    def __init__(
        self,
        cls: type[Method],
        name: str,
        entry: Entry | None,
        overrides: Mapping[str, Mapping[str, Any]],
        device: str,
        size: int,
    ) -> None:
        self.cls, self.name, self.entry, self.overrides = cls, name, entry, overrides
        self.device = torch.device(device)
        self.size = size
        chosen = configuration(cls, name, overrides)
        self.smoke_options: dict[str, Any] = configuration(cls, name, {})["method"]["options"]
        self.options: dict[str, Any] = chosen["method"]["options"]
        self.train: dict[str, Any] = chosen["train"]
        self.training: Training | None = None

    # -- what it is given ------------------------------------------------------------------------

    @property
    def dims(self) -> int:
        return min(self.cls.spatial_dims)

    def describe(self, dims: int | None = None, **changes: Any) -> DataDescription:
        """Binary data of three raters with identity, unless changed."""
        dims = dims or self.dims
        size = changes.pop("size", self.size if dims == 2 else self.size // 2)
        return describe(size, dims, **changes)

    def batch(self, data: DataDescription | None = None, **changes: Any) -> dict[str, Any]:
        return make_batch(data or self.describe(), device=self.device, **changes)

    # -- what it does ----------------------------------------------------------------------------

    def build(
        self, data: DataDescription | None = None, seed: int = 0, options: Mapping[str, Any] | None = None
    ) -> Method:
        """A new method as a cell builds it, its initial weights from `seed`."""
        data = data or self.describe()
        options = dict(self.options if options is None else options)
        torch.manual_seed(seed)
        self.cls.check_supported(data, options)
        method = self.cls(data, **options)
        method.hparams = options
        if self.train["channels_last"] and data.spatial_dims == 2:
            method = channels_last(method)
        return method.to(self.device)

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(self.cls.stages_for(self.options))

    def claims(self, output: str) -> bool:
        """Whether ``samples`` or ``raters`` must be there after all stages that run under the options.

        Where stages declare what they give (D-Persona), an output whose stage is left out is not expected.
        """
        if not getattr(self.cls, f"gives_{output}"):
            return False
        declared = self.cls.stage_gives
        if output not in declared.values():
            return True
        return any(declared.get(stage) == output for stage in self.stages)

    def rate(self, stage: str) -> float:
        """The smoke preset's learning rate of a stage."""
        return {budget["name"]: budget["lr"] for budget in self.train["stages"]}[stage]

    def optimizer(self, method: Method, stage: str) -> torch.optim.Optimizer:
        """The suite's optimiser of a stage; gradients of everything else are switched off."""
        optimizer, _ = build_optimizer(method, stage, self.train, self.rate(stage))
        set_rate(optimizer, self.rate(stage))
        return optimizer

    def predict(self, method: Method, images: Tensor, n_samples: int = SAMPLES, seed: int = 0) -> Prediction:
        """As evaluation does: eval mode, no gradient, a generator of its own."""
        method.eval()
        generator = torch.Generator(device=self.device.type).manual_seed(seed)
        with torch.inference_mode():
            found = method.predict(images.clone(), n_samples=n_samples, generator=generator)
        require(isinstance(found, Prediction), f"predict returns a {type(found).__name__} instead of a Prediction")
        return found

    def trained(self) -> Method:
        """The method after the common training, in eval mode, its tensors as they were then."""
        if self.training is None:
            raise RuntimeError("the common training has not run; name `trains` in `needs`")
        self.training.method.load_state_dict(self.training.state, strict=False)  # it holds tensors only
        return self.training.method.requires_grad_(True).eval()

    def same(self, first: Tensor, second: Tensor) -> bool:
        """The same bits; on a GPU, whose sums have no fixed order, nearly the same nearly everywhere."""
        if self.device.type == "cpu" or first.shape != second.shape:
            return torch.equal(first, second)
        # Adam makes a whole step of a gradient's last bit, and a threshold a pixel.
        return float(((first.float() - second.float()).abs() > 0.02).float().mean()) < 0.01


def configuration(cls: type[Method], name: str, overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The smoke preset of a method with `overrides`.

    Raises:
        UserError: an option that does not exist or is not allowed.
    """
    return resolve_classes(cls, name, DATASETS.get("synthetic"), "synthetic", "smoke", overrides)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate as the trainer sets it, with the ``lr_scale`` of each group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def loss_of(method: Method, batch: dict[str, Any], stage: str, seed: int) -> tuple[Tensor, Any]:
    """Loss and scalars of one `training_step` under a seed.

    Raises:
        Fault: the answer is not a finite scalar with a gradient, and something to log.
    """
    torch.manual_seed(seed)
    answer = method.training_step(fresh(batch), stage=stage)
    require(
        isinstance(answer, tuple) and len(answer) == 2,
        f"training_step of stage {stage!r} returns a {type(answer).__name__} instead of (loss, scalars)",
    )
    loss, scalars = answer
    require(
        isinstance(loss, Tensor) and loss.ndim == 0,
        f"the loss of stage {stage!r} is not a scalar tensor (0 dimensions); sum or average it",
    )
    require(loss.requires_grad, f"the loss of stage {stage!r} has no gradient; do not detach it")
    require(bool(torch.isfinite(loss)), f"the loss of stage {stage!r} is {float(loss.detach())}")
    return loss, scalars


def update(method: Method, optimizer: torch.optim.Optimizer, batch: dict[str, Any], stage: str, seed: int) -> float:
    """One step of training; the loss before it.

    Raises:
        Fault: loss or gradient is not finite.
    """
    loss, _ = loss_of(method, batch, stage, seed)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for name, parameter in method.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            raise Fault(f"the gradient of {name} in stage {stage!r} is not finite although the loss is")
    optimizer.step()
    return float(loss.detach())


def snapshot(method: Method) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, also of those that are not saved."""
    tensors = {**dict(method.named_parameters()), **dict(method.named_buffers())}
    return {name: value.detach().clone() for name, value in tensors.items()}


def random_states() -> dict[str, Any]:
    """States of the global generators, comparable with ``==``."""
    numpy_state: tuple[Any, ...] = np.random.get_state()  # type: ignore[assignment]  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": bytes(torch.get_rng_state().numpy()),
        "numpy": (bytes(numpy_state[1]), *numpy_state[2:]),
        "Python": random.getstate(),
        "CUDA": [bytes(state.cpu().numpy()) for state in cuda],
    }


@contextmanager
def keeping_random_states() -> Iterator[None]:
    """The global generators of torch, numpy and Python are afterwards what they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
