"""From a request to cells: every name and key is checked, the data are prepared, the specifications written.

A plan is remembered in ``derived/plans``, so that asking for the same cells again imports no method. It holds as long
as the request, the source files of the suite and its plug-ins, the data and the specifications on disk are the same.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import UnsupportedPair, UserError
from ..core.files import write_text
from ..core.hashing import digest, file_digest
from ..datasets import DATASETS, open_dataset
from ..methods import METHODS
from . import provenance
from .cell import HUMAN, PATHS, PROTOCOL, Cell, eval_key, open_results, schema, train_key
from .metric_lists import metric_versions
from .monitor import Monitor
from .states import Found, file_signature, scan

_FORM = 2


@dataclass
class Plan:
    """Planned cells, human rows included, and the pairs that a method refuses.

    Attributes:
        skipped: (method, reason).
        found: every cell of the results folder, where planning has looked already.
    """

    results: Path
    cells: list[Cell] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    found: list[Found] | None = None

    def states(self) -> list[tuple[Cell, str]]:
        """Each cell with its state now."""
        if self.found is None and (self.results / "index.json").is_file():
            self.found = scan(self.results)
        known = {one.path: one for one in self.found or ()}
        return [(cell, known[cell.path].state_for(cell) if cell.path in known else "pending") for cell in self.cells]


def method_names(methods: Sequence[str]) -> list[str]:
    return METHODS.names() if list(methods) == ["all"] else list(dict.fromkeys(methods))


def plan(
    methods: Sequence[str],
    dataset: str,
    preset: str,
    folds: Sequence[int] | None,
    seeds: Sequence[int],
    overrides: Mapping[str, Mapping[str, Any]],
    results: Path,
    monitor: Monitor,
    write: bool = True,
) -> Plan:
    """Validate every name and key, prepare the data, and write the specifications of all cells.

    Args:
        methods: registry names, or ``["all"]``.
        folds: folds of the split; None: all of them.
        overrides: sections to options.
        write: False: nothing is written into the results folder, which need not exist.

    Raises:
        UserError: anything unknown or not allowed; one refused pair if it is the only one asked for.
    """
    names = method_names(methods)
    if not names:
        raise UserError("no method given; name one or several with --method, or all (`multirater list methods`)")
    DATASETS.entry(dataset)
    for name in names:
        METHODS.entry(name)
    overrides = {section: absolute(options) for section, options in overrides.items()}
    request = [
        names,
        dataset,
        preset,
        folds,
        seeds,
        overrides,
        [[path, file_signature(path)] for path in _files(overrides)],
    ]
    key = digest([_FORM, request, provenance.signature()])[:16]
    memory = results / "derived" / "plans" / f"{key}.json"
    known = _remembered(results, memory) if write else None
    if known is not None:
        return known
    from .config import resolve

    # Keys under `method.` must exist in every method of a list: a silent drop would compare different things.
    configs = {name: resolve(name, dataset, preset, overrides) for name in names}
    for name, config in configs.items():
        _check_importable(name)
        config["overrides"] = {k: dict(v) for k, v in overrides.items()}
    made, data_sets = _plan(configs, folds, seeds, results, monitor, write)
    if write:
        _remember(made, data_sets, memory)
    return made


def _plan(
    configs: Mapping[str, dict[str, Any]],
    folds: Sequence[int] | None,
    seeds: Sequence[int],
    results: Path,
    monitor: Monitor,
    write: bool,
) -> tuple[Plan, list[dict[str, Any]]]:
    """The cells of resolved configurations by method, and what the plan rests on of their data."""
    made = Plan(open_results(results, create=True) if write else results)
    accepted, data_sets = [], {}
    for name, config in configs.items():
        data = open_dataset(config["dataset"]["name"], **config["dataset"]["options"])
        with monitor.preparing(config["dataset"]["name"]) as progress:
            data.prepare(progress)
        if (known := (data.fingerprint, str(config["dataset"]))) not in data_sets:
            data_sets[known] = _facts(data, config["dataset"])
        try:
            METHODS.get(name).check_supported(data.describe(), config["method"]["options"])
        except UnsupportedPair as refusal:
            if len(configs) == 1:
                raise
            made.skipped.append((name, str(refusal)))
            continue
        chosen = list(range(data.folds)) if folds is None else folds
        for fold in chosen:
            _check_split(data, fold, config["train"]["select"])
        accepted.append((config, data, chosen))
    # Nothing is written before everything is checked.
    for config, data, chosen in accepted:
        for fold in chosen:
            # One cell per evaluation: the rows of another number of samples or cases are other rows.
            human = {"method": {"name": HUMAN, "version": 1, "options": {}}, "train": {"eval": config["eval"]}}
            made.cells += _cells(results, data, {**config, **human}, fold, [0], write)
            made.cells += _cells(results, data, config, fold, seeds, write)
    made.cells = list(dict.fromkeys(made.cells))
    return made, list(data_sets.values())


# -- memory ---------------------------------------------------------------------------------------


def _facts(data: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """What must still hold of a data set for a plan to be used again."""
    splits = [data.split(fold).hash for fold in range(data.folds)]
    return {"name": given["name"], "options": given["options"], "fingerprint": data.fingerprint, "splits": splits}


def _remember(made: Plan, data_sets: list[dict[str, Any]], memory: Path) -> None:
    cells = [[cell.path, file_signature(str(cell.folder / "spec.json")), cell.asked] for cell in made.cells]
    record = {"cells": cells, "skipped": made.skipped, "data": data_sets}
    with contextlib.suppress(UserError, OSError, TypeError):  # planned again next time
        write_text(memory, json.dumps(record))


def _remembered(results: Path, memory: Path) -> Plan | None:
    """The plan of an earlier run of the same request, if nothing that it rests on has changed."""
    try:
        record = json.loads(memory.read_bytes())
        open_results(results)
        for facts in record["data"]:
            data = open_dataset(facts["name"], **facts["options"])
            if not data.prepared() or _facts(data, facts) != facts:
                return None
        found = scan(results)
        signatures = {one.path: one.spec_signature for one in found}
        if any(signatures.get(path) != signature for path, signature, _ in record["cells"]):
            return None
        cells = [Cell(results / "cells" / path).asking(asked) for path, _, asked in record["cells"]]
        skipped = [(str(name), str(reason)) for name, reason in record["skipped"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Plan(results, cells, skipped, found)


def absolute(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options whose paths hold in any working directory: a cell may be run again from another one."""
    return {
        k: os.path.abspath(os.path.expanduser(v)) if k in PATHS and v and isinstance(v, str | Path) else v
        for k, v in options.items()
    }


def _files(value: Any) -> Iterator[str]:
    """Values of options that name a file."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _files(part)
    elif isinstance(value, str) and os.path.isfile(os.path.expanduser(value)):
        yield os.path.expanduser(value)


# -- cells ----------------------------------------------------------------------------------------


def _check_split(data: Any, fold: int, select: str) -> None:
    """Refuse a fold that could not be trained, selected or scored before anything is spent on it.

    Raises:
        UserError: which part is empty and what to do.
    """
    split = data.split(fold)
    needed = {"training": split.train, "test": split.test} | ({"validation": split.val} if select == "best" else {})
    for part, cases in needed.items():
        if not len(cases):
            advice = "--set train.select=last" if part == "validation" else "another --fold or more patients"
            raise UserError(
                f"fold {fold} of {data.name!r} (split {split.name}, {len(data)} cases) has no {part} cases; "
                f"use {advice}"
            )


def _cells(
    results: Path, data: Any, config: dict[str, Any], fold: int, seeds: Sequence[int], write: bool
) -> Iterator[Cell]:
    description, split = data.describe(), data.split(fold)
    spec: dict[str, Any] = {
        "schema": schema("cell"),
        "protocol": PROTOCOL,
        **config,
        "dataset": {
            **config["dataset"],
            # As the data set settled them: an option left to it (which slices?) is recorded with its value.
            "options": {**config["dataset"]["options"], **data.options},
            "fingerprint": data.fingerprint,
            "split": split.name,
            "split_hash": split.hash,
            "notice": data.full_notice,
            "identity": description.identity,
            "rater_ids": list(description.rater_ids),
            **_classes(data, description),
        },
        "fold": fold,
    }
    files = {k: v for k, v in spec["method"]["options"].items() if k in PATHS and v is not None}
    spec["method"] = {**spec["method"], "files": {k: _digest(k, v) for k, v in files.items()}}
    versions = metric_versions()
    for seed in seeds:
        keyed = {**spec, "seed": seed}
        keyed["train_key"] = train_key(keyed)
        keyed["eval_key"] = eval_key(keyed, versions)
        yield Cell.plan(results, keyed) if write else Cell.at(results, keyed).asking(keyed)


def _classes(data: Any, description: Any) -> dict[str, Any]:
    """What the tables say of several classes; nothing of binary data, whose keys are older than this."""
    if description.classes == 1:
        return {}
    names = data.store.meta.get("class_names") or [str(k + 1) for k in range(description.classes)]
    return {"class_names": list(names), "overlapping": description.overlapping}


def _digest(option: str, value: str) -> str:
    path = Path(value).expanduser()
    if not path.is_file():
        raise UserError(f"method.{option} = {value!r} is not a file; give the path of a weights file or leave it out")
    return file_digest(path)


def _check_importable(name: str) -> None:
    """A cell runs in a process of its own, which knows entry points only."""
    if METHODS.entry(name).local:
        raise UserError(
            f"method {name!r} is registered in this process only, but cells run in processes of their own; "
            f"install it as a package with an entry point (docs/adding-a-method.md)"
        )
