"""What the records of a results folder hold, as models; ``schemas/*.json`` are the JSON Schemas made from them.

Fields that a version does not know are kept, so that a record may carry more than it must.
    python -m multirater.benchmark.records    writes the schemas again
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core.errors import UserError
from .cell import SCHEMA

SCHEMAS = Path(__file__).parent / "schemas"


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", populate_by_name=True)


class SchemaOf(_Open):
    name: str
    version: int = Field(ge=1)


class Named(_Open):
    """A method or data set: its name, version and options."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: int
    options: dict[str, Any]


class DataSpec(Named):
    fingerprint: str = Field(min_length=1, description="of cases, raters, masks and what made them")
    split: str
    split_hash: str


class EvalSpec(_Open):
    n_samples: int = Field(ge=1)
    max_cases: int | None = None


class _Record(_Open):
    schema_: SchemaOf = Field(alias="schema")


class CellRecord(_Record):
    """``spec.json``: the resolved configuration of a cell."""

    protocol: int
    method: Named
    dataset: DataSpec
    train: dict[str, Any]
    eval: EvalSpec
    preset: str
    fold: int = Field(ge=0)
    seed: int = Field(ge=0)
    train_key: str = Field(pattern="^[0-9a-f]{64}$")
    eval_key: str = Field(pattern="^[0-9a-f]{64}$")


class TrainRecord(_Record):
    """``train.json``: a finished training."""

    train_key: str
    outcome: Literal["ok", "diverged"]
    stages: list[dict[str, Any]]
    parameters: int = Field(ge=0)
    seconds: dict[str, float] = Field(description="wall time by phase")
    peak_memory_mb: float
    memory_mb: dict[str, float] = Field(description="largest resident memory by phase")
    numerics: dict[str, Any]
    samples_seen: int | None
    code: dict[str, Any]
    machine: dict[str, Any]


class ResultRecord(_Record):
    """``result.json``: a finished evaluation; its presence means done."""

    train_key: str
    eval_key: str
    metrics: dict[str, int] | None = Field(None, description="versions of the metrics, part of the evaluation key")
    metrics_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    n_cases: int = Field(ge=1)
    n_patients: int = Field(ge=1)
    outputs: dict[str, dict[str, Any]]
    seconds: dict[str, float]
    memory_mb: dict[str, float]
    code: dict[str, Any]


class AttemptRecord(_Record):
    """``attempt.json``: how an attempt ended."""

    outcome: Literal[
        "ok", "error", "diverged", "refused", "interrupted", "time_limit", "oom", "disk_full", "lost", "hung"
    ]
    message: str


class IndexRecord(_Record):
    """``index.json`` of a results folder."""

    suite: str


class BundleRecord(_Record):
    """``bundle.json`` of an exported bundle."""

    suite: str
    ids: Literal["hashed", "plain"]
    images: bool
    files: dict[str, str] = Field(description="SHA-256 of every other file by its path")


MODELS: dict[str, type[_Record]] = {
    "cell": CellRecord,
    "train": TrainRecord,
    "result": ResultRecord,
    "attempt": AttemptRecord,
    "multirater-results": IndexRecord,
    "bundle": BundleRecord,
}


def validate(record: Any, name: str, where: str) -> None:
    """Refuse a record (of the present version) that is not what its schema says.

    Raises:
        UserError: with the first field that is wrong.
    """
    try:
        MODELS[name].model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where} is not a valid {name!r} record: {field}: {first['msg']}") from error


def schema_text(name: str) -> str:
    """The JSON Schema of a record."""
    made = MODELS[name].model_json_schema(by_alias=True)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"{name}, version {SCHEMA[name]}"}
    return json.dumps({**made, **head}, indent=1, sort_keys=True) + "\n"


def schema_path(name: str) -> Path:
    return SCHEMAS / f"{name}.v{SCHEMA[name]}.json"


if __name__ == "__main__":
    for _name in MODELS:
        schema_path(_name).write_text(schema_text(_name))
