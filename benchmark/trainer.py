"""The loop, the same for every method: data order, budget, learning rate, augmentation, validation, checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core.seeding import numpy_generator, seed_for, torch_generator
from ..datasets.base import Dataset
from ..methods.base import Method, output_of_stage
from . import numerics, resume
from .augment import augment
from .augment_cases import augment_cases
from .augment_kinds import parts_of
from .distributed import Team, check_batch
from .progress import Heartbeat
from .resume import StateKeeper
from .stopping import StopFlag
from .validation import SCORES, validate


class Diverged(Exception):
    """The loss was not finite too often: a result of the method, shown as such in every table."""


@dataclass
class StageRecord:
    """What happened in one stage; goes into ``train.json``."""

    name: str
    steps: int = 0
    samples: int = 0  # training cases seen, repetitions included
    epochs: int = 0
    selected: str = "last"
    selected_epoch: int | None = None
    val_metric: str = ""
    val_score: float | None = None
    nonfinite_steps: int = 0
    seconds: float = 0.0


@dataclass
class History:
    """Long log of a training: (stage, epoch, step, key, value)."""

    rows: list[tuple[str, int, int, str, float]] = field(default_factory=list)

    def add(self, stage: str, epoch: int, step: int, values: dict[str, float]) -> None:
        self.rows += [(stage, epoch, step, key, float(value)) for key, value in values.items()]


@dataclass
class Progress:
    """Where a stage stands between two steps: all that a step may change beside weights, optimiser and generators.

    Attributes:
        step: steps done.
        best: signed validation score and weights of the best checkpoint so far.
        log: scalars of the running epoch.
        augment: state of the generator of the augmentation of the running epoch.
    """

    record: StageRecord
    step: int = 0
    best: tuple[float, dict[str, torch.Tensor]] | None = None
    log: dict[str, list[torch.Tensor | float]] = field(default_factory=dict)
    augment: torch.Tensor | None = None


class Trainer:
    """Trains one stage after the other.

    Seeds: initial weights and training noise depend on (method, data set, fold, seed, stage); data order and
    augmentation on (data set, fold, seed, stage) only, so that all methods see the same batches.

    Args:
        keeper: keeps the state of the running stage, from which it goes on after a stop or a kill with the same bits;
            None: nothing is kept.
        stop: looked at after every step; once it is set, the state is kept and `Stopped` is raised.
    """

    def __init__(
        self,
        method: Method,
        dataset: Dataset,
        spec: dict[str, Any],
        device: torch.device,
        heartbeat: Heartbeat,
        keeper: StateKeeper | None = None,
        stop: StopFlag | None = None,
    ) -> None:
        self.method = method
        self.dataset = dataset
        self.spec = spec
        self.config = spec["train"]
        self.device = device
        self.heartbeat = heartbeat
        self.keeper = keeper
        self.stop = StopFlag() if stop is None else stop  # (a flag that is not set is false)
        self.split = dataset.split(spec["fold"])
        self.history = History()
        self.team = Team()
        self.axes = {"dataset": dataset.name, "fold": spec["fold"], "seed": spec["seed"]}

    def run_stage(self, budget: dict[str, Any]) -> StageRecord:
        """Train one stage, from its kept state if there is one; the method holds the selected checkpoint afterwards.

        Raises:
            Diverged: more than ``train.max_nonfinite`` steps had a non-finite loss.
            Stopped: a stop was asked for; the state is kept.
        """
        name = budget["name"]
        started = time.perf_counter()
        team = self.team
        own = {} if team.first else {"process": team.rank}  # noise of its own in every process of a team
        resume.seed_all(seed_for("train", method=self.spec["method"]["name"], stage=name, **self.axes, **own))
        batch_size = min(budget["batch_size"], len(self.split.train))
        check_batch(team.size, batch_size)
        per_epoch = len(self.split.train) // batch_size
        total = budget["steps"] or budget["epochs"] * per_epoch
        output = output_of_stage(self.method, name)
        optimizer, parameters = build_optimizer(self.method, name, self.config, budget["lr"])
        at = Progress(StageRecord(name, val_metric=SCORES[output].metric, selected=self.config["select"]))
        self._first_row = len(self.history.rows)
        if self.keeper is not None:
            self.keeper.start(sum(t.numel() * t.element_size() for t in self.method.state_dict().values()) * 3)
            at = self._restored(name, optimizer) or at
        record = at.record
        before = record.seconds  # spent in earlier attempts
        batches = self._batches(name, batch_size, per_epoch, at)
        numerics.apply(self.config)
        training_step = numerics.compiled(team.step(self.method), self.config)
        self.method.train()
        for step in range(at.step, total):
            epoch = step // per_epoch
            scale = lr_scale(self.config["schedule"], step, total, per_epoch, budget["warmup_steps"])
            for group in optimizer.param_groups:
                group["lr"] = budget["lr"] * group["lr_scale"] * scale
            batch = team.share(next(batches))
            with numerics.autocast(self.config, self.device):
                loss, scalars = training_step(batch, stage=name)
            optimizer.zero_grad(set_to_none=True)
            value = float(loss.detach())
            bad, stopping = team.any(not math.isfinite(value), bool(self.stop))
            value = team.mean(value)
            if not bad:
                loss.backward()
                if self.config["grad_clip"]:
                    nn.utils.clip_grad_norm_(parameters, self.config["grad_clip"])
                optimizer.step()
            else:
                record.nonfinite_steps += 1
                if record.nonfinite_steps > self.config["max_nonfinite"]:
                    raise Diverged(
                        f"stage {name!r}: {record.nonfinite_steps} steps with a non-finite loss by step {step}"
                    )
            for key, scalar in {"loss": value, **scalars}.items():
                at.log.setdefault(key, []).append(scalar.detach() if isinstance(scalar, torch.Tensor) else scalar)
            self._beat(name, epoch, step, total, value, record)

            last = step + 1 == total
            epoch_end = (step + 1) % per_epoch == 0 or last
            if epoch_end:
                self.history.add(name, epoch + 1, step + 1, {**finite_means(at.log), "lr": budget["lr"] * scale})
                at.log.clear()
                every = self.config["validate_every"]
                if team.first and len(self.split.val) and (last or (every and (epoch + 1) % every == 0)):
                    record.val_score = self._validate(name, epoch + 1, step + 1, output)
                    signed = (record.val_score or 0.0) * (1 if SCORES[output].higher else -1)
                    chosen = self.config["select"] == "best" and record.val_score is not None
                    # Ties go to the later epoch, as in the authors' code.
                    if chosen and (at.best is None or signed >= at.best[0]):
                        at.best = (signed, {k: v.detach().clone() for k, v in self.method.state_dict().items()})
                        record.selected_epoch = epoch + 1
            at.step = step + 1
            if self.keeper is not None:
                stopping = stopping if team.size > 1 else bool(self.stop)
                due = team.first and (stopping or (not last and self.keeper.due(epoch_end)))
                if team.any(due)[0]:
                    record.seconds = before + time.perf_counter() - started
                    self._keep(at, optimizer)
            if stopping and team.size > 1:  # all at the same step, whoever was asked
                self.stop.reason = self.stop.reason or "another process of its team"
            if team.size == 1 or stopping:
                self.stop.check()
        self.check_weights(name, total)
        if at.best is not None:
            self.method.load_state_dict(at.best[1])
            record.val_score = at.best[0] * (1 if SCORES[output].higher else -1)
        record.samples = total * batch_size
        record.steps, record.epochs = total, math.ceil(total / per_epoch)
        record.seconds = before + time.perf_counter() - started
        return record

    # -- state ----------------------------------------------------------------------------------

    def _keep(self, at: Progress, optimizer: torch.optim.Optimizer) -> None:
        """Hand everything that the next step depends on to the keeper; between two steps only."""
        assert self.keeper is not None
        values, moments = resume.optimizer_state(optimizer)
        generators, generator_tensors = resume.generator_states()
        states = self.team.gather((generators, generator_tensors))
        if not self.team.first:
            return
        facts = {
            "stage": at.record.name,
            "step": at.step,
            "record": asdict(at.record),
            "history": self.history.rows[self._first_row :],
            # A scalar of the log is used as a Python float only, so that it may be kept as one.
            "log": {key: [float(v) for v in given] for key, given in at.log.items()},
            "optimizer": values,
            "generators": generators,
            "others": [state[0] for state in states[1:]],
            "best": at.best[0] if at.best is not None else None,
        }
        tensors = {
            **resume.prefixed("method", self.method.state_dict()),
            **resume.prefixed("optimizer", moments),
            **resume.prefixed("generator", generator_tensors),
            **{k: v for n, s in enumerate(states[1:], 1) for k, v in resume.prefixed(f"generator{n}", s[1]).items()},
            **resume.prefixed("best", at.best[1] if at.best is not None else {}),
        }
        if at.augment is not None:
            tensors["augment"] = at.augment
        self.keeper.save(facts, tensors)

    def _restored(self, stage: str, optimizer: torch.optim.Optimizer) -> Progress | None:
        """Put method, optimiser, generators and history back to the kept state of a stage, if there is one."""
        assert self.keeper is not None
        found = self.keeper.load(stage)
        if found is None:
            return None
        facts, tensors = found
        self.method.load_state_dict(resume.part("method", tensors))
        resume.restore_optimizer(optimizer, facts["optimizer"], resume.part("optimizer", tensors))
        self.history.rows += [tuple(row) for row in facts["history"]]
        best = None
        if facts["best"] is not None:
            best = (facts["best"], {k: v.to(self.device) for k, v in resume.part("best", tensors).items()})
        at = Progress(StageRecord(**facts["record"]), facts["step"], best, facts["log"], tensors.get("augment"))
        if self.team.first:
            resume.restore_generators(facts["generators"], resume.part("generator", tensors))
        else:
            own = f"generator{self.team.rank}"
            resume.restore_generators(facts["others"][self.team.rank - 1], resume.part(own, tensors))
        return at

    # -- parts ----------------------------------------------------------------------------------

    def _batches(self, stage: str, batch_size: int, per_epoch: int, at: Progress) -> Iterator[dict[str, Any]]:
        """Endless batches from ``at.step`` on; each epoch is a seeded permutation cut into whole batches (no tiny batch
        for batch norm)."""
        records = self.dataset.records
        parts = parts_of(self.config["augment"])
        epoch, done = divmod(at.step, per_epoch)
        while True:
            order = numpy_generator("order", stage=stage, epoch=epoch, **self.axes).permutation(self.split.train)
            noise = torch_generator("augment", stage=stage, epoch=epoch, **self.axes)
            if done and at.augment is not None:
                noise.set_state(at.augment)
            for start in range(done * batch_size, per_epoch * batch_size, batch_size):
                indices = order[start : start + batch_size]
                images, masks, valid = (torch.from_numpy(a) for a in self.dataset.arrays(indices))
                if parts:
                    axes = {"stage": stage, "epoch": epoch, **self.axes}
                    streams = [numpy_generator("augment case", case=records[i].case_id, **axes) for i in indices]
                    images, masks = augment_cases(images, masks, parts, streams)
                else:
                    images, masks = augment(images, masks, self.config["augment"], noise)
                at.augment = noise.get_state()
                if self.config["channels_last"] and images.ndim == 4:
                    images = images.contiguous(memory_format=torch.channels_last)
                yield {
                    "image": images.to(self.device, non_blocking=True),
                    "masks": masks.to(self.device, non_blocking=True),
                    "rater_valid": valid.to(self.device, non_blocking=True),
                    "case_id": [records[i].case_id for i in indices],
                    "patient_id": [records[i].patient_id for i in indices],
                }
            epoch, done = epoch + 1, 0

    def _validate(self, stage: str, epoch: int, step: int, output: str) -> float | None:
        """The validation score, None if it is undefined in every case; leaves torch's global generator as it was."""
        self.check_weights(stage, step)
        with torch.random.fork_rng(enabled=True):
            score = validate(
                self.method, self.dataset, self.split.val, output, self.config, self.spec["seed"], self.device
            )
        self.method.train()
        if not math.isfinite(score):
            return None
        self.history.add(stage, epoch, step, {f"val_{SCORES[output].metric}": score})
        return score

    def check_weights(self, stage: str, step: int) -> None:
        """Weights that are not finite are a divergence, whatever the loss said; found before anything is predicted."""
        for name, value in self.method.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise Diverged(f"stage {stage!r}: {name} is not finite after step {step}")

    def _beat(self, stage: str, epoch: int, step: int, total: int, loss: float, record: StageRecord) -> None:
        self.heartbeat.write(
            f"train {stage}",
            step + 1,
            total,
            epoch=epoch + 1,
            loss=loss if math.isfinite(loss) else None,
            val_metric=record.val_metric,
            val=record.val_score,
        )


def build_optimizer(
    method: Method, stage: str, config: dict[str, Any], lr: float
) -> tuple[torch.optim.Optimizer, list[nn.Parameter]]:
    """The optimiser of a stage and what it optimises; gradients of everything else are switched off.

    Args:
        method: asked for the parameters of `stage`.
        stage: name of the stage.
        config: ``optimizer`` and ``weight_decay`` of the train section.
        lr: learning rate of groups without an ``lr_scale``.
    """
    given = list(method.parameters_for(stage))
    groups = [dict(g) for g in given if isinstance(g, dict)] or [{"params": given}]
    for group in groups:
        group["params"] = list(group["params"])
        group.setdefault("lr_scale", 1.0)
    chosen = [p for group in groups for p in group["params"]]
    ids = {id(p) for p in chosen}
    for parameter in method.parameters():
        parameter.requires_grad_(id(parameter) in ids)  # frozen means frozen
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[config["optimizer"]]
    return kind(groups, lr=lr, weight_decay=config["weight_decay"]), chosen


def finite_means(log: dict[str, list[torch.Tensor | float]]) -> dict[str, float]:
    """Mean of the finite values of each key; a key without any is left out (the skipped steps are counted apart)."""
    values = {key: [v for v in map(float, given) if math.isfinite(v)] for key, given in log.items()}
    return {key: float(np.mean(found)) for key, found in values.items() if found}


def lr_scale(schedule: str, step: int, total: int, per_epoch: int, warmup: int) -> float:
    """Factor of the learning rate at a step: linear warm-up, then constant, or cosine to 0 (per step or per epoch).

    ``decay_after_N``: constant, then divided by 1.1 at the end of every epoch of index above N (Pionono's schedule).
    ``poly_epoch``: (1 - epoch / epochs)^0.9 (TAB's).
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    if schedule.startswith("decay_after_"):
        last = int(schedule.removeprefix("decay_after_"))
        return float(1.1 ** -max(0, step // per_epoch - last - 1))
    if schedule == "poly_epoch":
        return float((1 - step // per_epoch / math.ceil(total / per_epoch)) ** 0.9)
    if schedule == "cosine_epoch":
        step, total = step // per_epoch, math.ceil(total / per_epoch)
    else:
        step, total = step - warmup, total - warmup
    return 0.5 * (1 + math.cos(math.pi * step / max(total, 1)))
