"""Checks of `training_step`: the loss, its gradient, its randomness, hard masks."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...methods.base import output_of_stage
from .check import contract, few, require, situation
from .data import filled
from .subject import STEPS, Subject, Training, loss_of, set_rate, snapshot, update

_WARMUP = 10  # a full first step of Adam can throw an ELBO far off, which says nothing of the method
_LAST = 5  # steps whose mean loss is compared with the first


@contract(
    "trains",
    "every stage trains, with finite losses and gradients, goes on after predict, and gives what it is judged by",
    needs=("constructs", "stages"),
)
def trains(subject: Subject) -> str:
    method, batch = subject.build(), subject.batch()
    training = Training(method)
    for stage in subject.stages:
        optimizer = subject.optimizer(method, stage)
        losses = training.losses[stage] = []
        for step in range(STEPS):
            method.train()
            set_rate(optimizer, subject.rate(stage) * min(1.0, (step + 1) / _WARMUP))
            losses.append(update(method, optimizer, batch, stage, seed=1))
            if step == STEPS // 2:  # as validation does; tensors made there must not end up in a later graph
                subject.predict(method, batch["image"][:1], 2)
        training.logs[stage] = loss_of(method.train(), batch, stage, seed=1)[1]
        output = output_of_stage(method, stage)
        prediction = subject.predict(method, batch["image"][:1], 2)
        require(
            getattr(prediction, output) is not None,
            f"stage {stage!r} is judged by {output}, but predict gives none after it; mend stage_gives or predict",
        )
    for name, value in snapshot(method).items():
        finite = not value.is_floating_point() or bool(torch.isfinite(value).all())
        require(finite, f"{name} is not finite after {STEPS} steps a stage")
    state = method.state_dict()
    training.state = {name: value.detach().clone() for name, value in state.items() if isinstance(value, Tensor)}
    subject.training = training
    return f"{STEPS} steps of {', '.join(subject.stages)}"


@contract("loss_falls", "the loss falls on one batch with the same noise in every step", needs=("trains",))
def loss_falls(subject: Subject) -> str:
    assert subject.training is not None
    words = []
    for stage, losses in subject.training.losses.items():
        first, last = losses[0], sum(losses[-_LAST:]) / _LAST
        require(
            last < first,
            f"the loss of stage {stage!r} is {first:.4g} at first and {last:.4g} in the mean of the last {_LAST} of "
            f"{STEPS} steps on one batch; the preset's learning rate may be too high (--set train.lr=1e-4)",
        )
        words.append(f"{stage}: {first:.4g} to {last:.4g}")
    return ", ".join(words)


@contract("logs", "what it logs are numbers with names", needs=("trains",))
def logs(subject: Subject) -> str:
    assert subject.training is not None
    names = []
    for stage, scalars in subject.training.logs.items():
        kind = type(scalars).__name__
        require(isinstance(scalars, dict), f"stage {stage!r} logs a {kind} instead of a dictionary")
        for name, value in scalars.items():
            require(isinstance(name, str) and bool(name), f"stage {stage!r} logs under {name!r}, which is no name")
            number = isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.ndim == 0)
            shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
            require(
                number,
                f"{name!r} in the log of stage {stage!r} is a {type(value).__name__}{shape} instead of one number",
            )
            names.append(name)
    return ", ".join(dict.fromkeys(names)) or "nothing beside the loss"


@contract(
    "gradients",
    "the loss reaches every parameter that a stage optimises and no other; only the suite changes them",
    needs=("trains",),
)
def gradients(subject: Subject) -> str:
    method, batch = subject.build(), subject.batch()
    everything = dict(method.named_parameters())
    optimised: set[str] = set()
    for stage in subject.stages:
        optimizer = subject.optimizer(method, stage)
        ids = {id(p) for group in optimizer.param_groups for p in group["params"]}
        chosen = {name for name, p in everything.items() if id(p) in ids}
        optimised |= chosen
        waiting = set(chosen)
        # Noise differs from step to step: a method may train one drawn rater at a time, or start a layer at zero.
        for step in range(STEPS):
            before = {name: everything[name].detach().clone() for name in chosen}
            loss, _ = loss_of(method.train(), batch, stage, seed=step)
            changed = {name for name in chosen if not torch.equal(before[name], everything[name])}
            require(not changed, f"training_step of stage {stage!r} itself changes {few(changed)}; the suite does that")
            method.zero_grad(set_to_none=True)
            loss.backward()
            stray = {n for n, p in everything.items() if n not in chosen and p.grad is not None}
            require(
                not stray,
                f"stage {stage!r} gives a gradient to {few(stray)}, which it does not optimise; leave requires_grad to "
                f"the suite",
            )
            waiting = {n for n in waiting if (g := everything[n].grad) is None or not bool((g != 0).any())}
            if not waiting:
                break
            optimizer.step()
        require(
            not waiting,
            f"the loss of stage {stage!r} never reaches {few(waiting)} within {STEPS} steps; use it, or leave "
            f"it out of parameters_for",
        )
    rest = len(everything) - len(optimised)
    return f"all {len(optimised)} tensors" + (f"; {rest} are in no stage" if rest else "")


@contract("training_seed", "initial weights and training depend on torch's seed alone", needs=("trains",))
def training_seed(subject: Subject) -> str:
    batch = subject.batch()
    runs = []
    for other in (1, 2):  # what must not matter
        np.random.seed(other)  # noqa: NPY002
        random.seed(other)
        method = subject.build(seed=0)
        tensors = snapshot(method)
        for stage in subject.stages:
            optimizer = subject.optimizer(method, stage)
            for step in range(2):
                update(method.train(), optimizer, batch, stage, seed=step)
        runs.append((tensors, snapshot(method)))
    for when, first, second in zip(("built", "trained"), *runs, strict=True):
        differing = {name for name in first if not subject.same(first[name], second[name])}
        require(
            not differing,
            f"{few(differing)} differ when it is {when} twice under the same torch seed; draw from torch's global "
            f"generator only",
        )
    _check_reseeding(subject, batch)
    return "the same bits twice" if subject.device.type == "cpu" else "nearly the same numbers twice"


def _check_reseeding(subject: Subject, batch: dict[str, Any]) -> None:
    """A method that sets the seed itself makes all seeds of a comparison one."""
    states = []
    for seed in (1, 2):
        method = subject.build(seed=seed)
        states.append(torch.get_rng_state())
    require(not torch.equal(*states), "its __init__ sets torch's global seed, so that the suite's seeds have no effect")
    for stage in subject.stages:
        states = []
        for seed in (1, 2):
            loss_of(method.train(), batch, stage, seed)
            states.append(torch.get_rng_state())
        require(
            not torch.equal(*states),
            f"training_step of stage {stage!r} sets torch's global seed, so that the suite's seeds have no effect",
        )


@contract("empty_and_full_masks", "empty and full masks give finite losses and gradients", needs=("trains",))
def empty_and_full_masks(subject: Subject) -> str:
    method, batch = subject.build(), subject.batch()
    for stage in subject.stages:
        optimizer = subject.optimizer(method, stage)
        for word, value in (("empty", 0), ("full", 1)):
            with_masks = filled(batch, value)
            with situation(f"with {word} masks"):
                for step in range(2):
                    update(method.train(), optimizer, with_masks, stage, seed=step)
    return "finite in every stage"
