"""From a request (method, data set, preset, overrides) to one resolved configuration.

Layers, later ones win: class defaults, generic preset, the data set's preset, the method's preset, ``--set``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..core.errors import UserError, unknown
from ..core.options import options_of, resolve_options
from ..core.overrides import SECTIONS
from ..datasets import DATASETS
from ..methods import METHODS
from .augment_kinds import BATCH_KINDS, PARTS, parts_of
from .presets import preset_names


class StageBudget(BaseModel):
    """What may differ from stage to stage."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    steps: int | None = Field(None, ge=1)
    epochs: int | None = Field(None, ge=1)
    lr: float | None = Field(None, gt=0)
    warmup_steps: int | None = Field(None, ge=0)
    batch_size: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_budget(self) -> StageBudget:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give only one of steps and epochs")
        return self


class TrainConfig(BaseModel):
    """The suite's loop, the same for every method of a comparison."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    steps: int | None = Field(None, ge=1, description="updates per stage (or give epochs)")
    epochs: int | None = Field(None, ge=1, description="passes over the training cases per stage (or give steps)")
    batch_size: int = Field(12, ge=1)
    lr: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(0, ge=0, description="linear warm-up of the learning rate")
    schedule: Literal["cosine_step", "cosine_epoch", "constant", "poly_epoch", "decay_after_40", "decay_after_10"] = (
        "cosine_step"
    )
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: float = Field(0.0, ge=0)
    augment: str = Field(
        "flips_transpose",
        description=f"{'|'.join(BATCH_KINDS)}, or parts joined by +, drawn per case and epoch: {', '.join(PARTS)}",
    )
    select: Literal["last", "best"] = Field("last", description="checkpoint: last step, or best on validation patients")
    validate_every: int = Field(1, ge=0, description="epochs between validations; 0: only at the end of a stage")
    validate_samples: int = Field(16, ge=2, description="samples a case in validation")
    grad_clip: float | None = Field(None, gt=0, description="largest gradient norm; none: no clipping")
    max_nonfinite: int = Field(10, ge=0, description="steps with a non-finite loss that are skipped before giving up")
    channels_last: bool = True
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: forward passes of the training under autocast"
    )
    tf32: bool = Field(False, description="let CUDA round the factors of products to TF32 (CPU: no effect)")
    compile: bool = Field(False, description="torch.compile on training_step")
    processes: int = Field(1, ge=1, description="share every batch among so many processes (GPUs) through torchrun")
    stage: dict[str, StageBudget] = Field(default_factory=dict, description="per-stage overrides")

    @field_validator("augment")
    @classmethod
    def _parts_in_order(cls, value: str) -> str:
        return "+".join(parts_of(value)) or value

    @model_validator(mode="after")
    def _one_budget(self) -> TrainConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of train.steps and train.epochs")
        return self

    def for_stage(self, name: str) -> TrainConfig:
        """This configuration with the overrides of one stage."""
        changes = self.stage.get(name, StageBudget()).model_dump(exclude_none=True)
        values = self.model_dump(exclude={"stage"})
        if "steps" in changes or "epochs" in changes:
            values.update(steps=None, epochs=None)
        return TrainConfig(**{**values, **changes})


class EvalConfig(BaseModel):
    """What is predicted and scored."""

    model_config = ConfigDict(extra="forbid")

    n_samples: int = Field(50, ge=1, description="samples a test case")
    max_cases: int | None = Field(None, ge=1, description="score only so many cases, spread over patients (plumbing)")


def load_yaml(path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {str(error).splitlines()[0]}; correct that file") from error


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`; nested mappings merge; a new budget replaces the old one in either unit."""
    merged = dict(base)
    if "steps" in over or "epochs" in over:
        merged.pop("steps", None)
        merged.pop("epochs", None)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, Mapping):
            merged[key] = _merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)  # files are read once: never hand out their parts
    return merged


@cache
def _preset_file(path: Path) -> dict[str, Any]:
    return load_yaml(path) if path.is_file() else {}


def preset_layers(
    preset: str, method: type, method_name: str, dataset: type, dataset_name: str
) -> list[dict[str, Any]]:
    """The layers of a preset for one pair; a pair needs no file of its own."""
    if preset not in preset_names():
        raise unknown("preset", preset, preset_names())
    generic = dict(_preset_file(Path(__file__).parent / "presets" / f"{preset}.yaml"))
    # A generic preset speaks to every method: its method options apply where the method has such an option.
    known = options_of(method)
    generic["method"] = {k: v for k, v in generic.get("method", {}).items() if k in known}
    beside = [(dataset, dataset_name), (method, method_name)]
    return [generic] + [_presets_beside(cls, name).get(preset, {}) for cls, name in beside]


def _presets_beside(cls: type, name: str) -> dict[str, Any]:
    try:
        folder = Path(inspect.getfile(cls)).parent
    except (TypeError, OSError):  # a class written in a notebook has no file
        return {}
    return _preset_file(folder / "presets" / f"{name}.yaml")


def validated(model: type[BaseModel], values: Mapping[str, Any], prefix: str) -> Any:
    """`values` checked against a model, or one sentence why not."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            allowed = StageBudget.model_fields if len(first["loc"]) > 1 else model.model_fields
            raise unknown(f"override {prefix}.{where}: option", str(first["loc"][-1]), allowed) from error
        what = first["msg"].removeprefix("Value error, ")
        given = f"{prefix}.{where} = {first['input']!r} is not allowed: " if where else ""
        raise UserError(f"{given}{what}") from error


def resolve(method: str, dataset: str, preset: str, overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The resolved ``method``, ``dataset``, ``train`` and ``eval`` sections of a cell.

    Raises:
        UserError: unknown name, preset or key (with the nearest valid one), or a value that is not allowed.
    """
    method_entry, dataset_entry = METHODS.entry(method), DATASETS.entry(dataset)
    overrides = {**overrides, "dataset": DATASETS.with_implied(dataset, overrides.get("dataset") or {})}
    return resolve_classes(
        METHODS.get(method), method_entry.name, DATASETS.get(dataset), dataset_entry.name, preset, overrides
    )


def resolve_classes(
    method_class: Any,
    method: str,
    dataset_class: Any,
    dataset: str,
    preset: str,
    overrides: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """`resolve` for a method and a data set that need not be registered under their names.

    Raises:
        UserError: unknown preset or key, or a value that is not allowed.
    """
    merged: dict[str, Any] = {section: {} for section in SECTIONS}
    for layer in [*preset_layers(preset, method_class, method, dataset_class, dataset), overrides]:
        for section, values in layer.items():
            if section not in SECTIONS:
                raise unknown("section", section, SECTIONS)
            merged[section] = _merge(merged[section], values or {})
        given = layer.get("train") or {}
        if layer is overrides and ("steps" in given or "epochs" in given):
            # A budget set by hand is meant for every stage; only a stage's own override stands above it.
            own = given.get("stage", {})
            for name, stage in merged["train"].get("stage", {}).items():
                for unit in ("steps", "epochs"):
                    if unit not in own.get(name, {}):
                        stage.pop(unit, None)
    train = validated(TrainConfig, merged["train"], "train")
    method_options = resolve_options(method_class, merged["method"], "method")
    stages = method_class.stages_for(method_options)
    for name in overrides.get("train", {}).get("stage", {}):
        if name not in stages:
            raise unknown(f"override train.stage.{name}: stage of {method}", name, stages)
    return {
        "method": {
            "name": method,
            "version": method_class.version,
            "options": method_options,
            "label": _label(method_class, method_options),
        },
        "dataset": {
            "name": dataset,
            "version": dataset_class.version,
            "options": resolve_options(dataset_class, merged["dataset"], "dataset"),
        },
        "train": {**train.model_dump(exclude={"stage"}), "stages": _stage_budgets(train, stages)},
        "eval": validated(EvalConfig, merged["eval"], "eval").model_dump(),
        "preset": preset,
    }


def _label(method: Any, options: Mapping[str, Any]) -> str:
    """The method's own words, and that ImageNet weights were not at hand where the backbone was made for them."""
    scratch = options.get("backbone") == "unet_r34" and options.get("backbone_weights", "") is None
    return ", ".join(filter(None, [method.label(dict(options)), "from scratch" if scratch else ""]))


def _stage_budgets(train: TrainConfig, stages: tuple[str, ...]) -> list[dict[str, Any]]:
    """The budget of each stage that will run, spelled out: what is recorded is what is done."""
    keep = StageBudget.model_fields
    return [{"name": s, **train.for_stage(s).model_dump(include=set(keep))} for s in stages]
