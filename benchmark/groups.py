"""Which cells may stand in one table, and which of them are one row.

One table: same data set, options that change the data, split, preset, protocol and data fingerprint.
One row: cells that differ in fold and seed only.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .cell import HUMAN, State
from .collect import StoredCell

GROUP_KEYS = ("dataset", "set", "identity", "split", "preset", "fingerprint", "protocol")
_MOST_DIFFERENCES = 3  # in a row's label; the records hold them all


@dataclass
class Row:
    """Cells of one configuration: all its folds and seeds.

    Attributes:
        method: registry name.
        label: options in which configurations of this method differ within the table, else empty.
        cells: finished cells.
        missing: cells without a result.
        wanted_folds: folds that some method of the table was asked for.
    """

    method: str
    label: str = ""
    cells: list[StoredCell] = field(default_factory=list)
    missing: list[StoredCell] = field(default_factory=list)
    wanted_folds: tuple[int, ...] = ()

    @property
    def human(self) -> bool:
        return self.method == HUMAN

    @property
    def name(self) -> str:
        return f"{self.method} ({self.label})" if self.label else self.method

    @property
    def first(self) -> StoredCell:
        """The finished cell of the first fold and seed, for what cannot be averaged over runs; there must be one."""
        return min(self.cells, key=lambda c: (c.spec["fold"], c.spec["seed"]))

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(sorted({int(c.spec["fold"]) for c in self.cells}))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({int(c.spec["seed"]) for c in self.cells}))

    @property
    def missing_folds(self) -> tuple[int, ...]:
        """Wanted folds without any result."""
        return tuple(sorted(set(self.wanted_folds) - set(self.folds)))

    @property
    def not_run(self) -> str:
        """Wanted folds that this row was never asked for, with all or some of its seeds: ``folds 0, 2 not run``."""
        asked = {(int(c.spec["fold"]), int(c.spec.get("seed", 0))) for c in (*self.cells, *self.missing)}
        seeds = sorted({seed for _, seed in asked})
        lacking: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for fold in sorted(self.wanted_folds):
            lacking[tuple(seed for seed in seeds if (fold, seed) not in asked)].append(fold)
        return "; ".join(
            f"{_listed('fold', folds)} not run"
            + (f" with {_listed('seed', without)}" if len(without) < len(seeds) else "")
            for without, folds in lacking.items()
            if without
        )

    @property
    def incomplete(self) -> bool:
        """Whether a run of the row is missing: without a result, or never asked for."""
        return bool(self.missing or self.not_run)

    @property
    def uneven_seeds(self) -> bool:
        """Whether seeds have results of other folds than each other."""
        return len(set(self.folds)) * len(self.seeds) > len({(c.spec["fold"], c.spec["seed"]) for c in self.cells})

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        merged: dict[str, dict[str, Any]] = {}
        for cell in self.cells:
            merged.update(cell.outputs)
        return merged

    def seconds(self, phase: str) -> float | None:
        """Mean seconds of a phase over the cells that recorded it."""
        records = [{**c.train.get("seconds", {}), **c.result.get("seconds", {})} for c in self.cells]
        values = [seconds[phase] for seconds in records if seconds.get(phase) is not None]
        return float(sum(values) / len(values)) if values else None

    @property
    def peak_memory_mb(self) -> float | None:
        values = [c.train["peak_memory_mb"] for c in self.cells if c.train.get("peak_memory_mb") is not None]
        return float(max(values)) if values else None


@dataclass
class Group:
    """One table: its key, its rows, and what its header says."""

    key: dict[str, Any]
    rows: list[Row]

    @cached_property
    def _data(self) -> dict[str, Any]:
        return dict((self.rows[0].cells or self.rows[0].missing)[0].spec["dataset"])

    @property
    def notice(self) -> str:
        return str(self._data.get("notice") or "")

    @property
    def rater_ids(self) -> tuple[str, ...]:
        return tuple(str(r) for r in self._data.get("rater_ids", ()))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the foreground classes; empty for binary data."""
        return tuple(str(c) for c in self._data.get("class_names", ()))

    @property
    def overlapping(self) -> bool:
        """Whether a pixel may have several of the classes."""
        return bool(self._data.get("overlapping"))

    @property
    def identity_kind(self) -> str:
        """``none``, ``derived``, ``consistent`` or ``synthetic``."""
        return str(self._data.get("identity") or "none")

    @property
    def methods(self) -> list[Row]:
        return [row for row in self.rows if not row.human]

    @property
    def title(self) -> str:
        """One line that names the table."""
        k = self.key
        parts = [k["dataset"], *(f"{n}={k[n]}" for n in ("set", "identity", "split") if k[n])]
        return " · ".join(parts) + (f" [{k['preset']}]" if k["preset"] else "")

    @property
    def slug(self) -> str:
        """The same for file names, where one data set has several tables."""
        k = self.key
        return "-".join(str(k[n]) for n in ("preset", "set", "identity", "split", "fingerprint") if k[n])


def make_groups(cells: Sequence[StoredCell]) -> list[Group]:
    """The tables of a results folder, sorted; each has at least one row.

    The human cell belongs to a data set, not to a preset: its rows stand beside every row that is scored by the same
    evaluation (number of samples, cases).
    """
    by_key: dict[tuple[Any, ...], list[StoredCell]] = defaultdict(list)
    humans: dict[tuple[Any, ...], list[StoredCell]] = defaultdict(list)
    for cell in cells:
        identity = cell.identity
        key = tuple(identity[k] for k in GROUP_KEYS)
        if cell.method == HUMAN:
            humans[_without_preset(key)].append(cell)
        else:
            by_key[key].append(cell)
    for key, found in list(humans.items()):
        if not any(_without_preset(k) == key for k in by_key):
            identity = found[0].identity
            by_key[tuple(identity[k] for k in GROUP_KEYS)] = []
    groups = []
    for key in sorted(by_key, key=lambda k: tuple(map(str, k))):
        members = by_key[key]
        evaluations = {_json(c.spec.get("eval")) for c in members}
        beside = [
            c
            for c in humans.get(_without_preset(key), [])
            if not evaluations or _json(c.spec.get("eval")) in evaluations
        ]
        same = [c for c in beside if c.identity["preset"] == key[GROUP_KEYS.index("preset")]]
        members = [*members, *(same or beside)]
        for part, note in _same_splits(members):
            rows = _rows(part)
            groups.append(Group({**dict(zip(GROUP_KEYS, key, strict=True)), "note": note}, rows))
    return groups


def _without_preset(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(v for k, v in zip(GROUP_KEYS, key, strict=True) if k != "preset")


def _same_splits(cells: list[StoredCell]) -> list[tuple[list[StoredCell], str]]:
    """Cells of one table, taken apart if one fold was split in two ways (a change of the splitting rule)."""
    hashes: dict[int, set[str]] = defaultdict(set)
    for cell in cells:
        hashes[int(cell.spec["fold"])].add(str(cell.spec["dataset"].get("split_hash", "")))
    if all(len(h) == 1 for h in hashes.values()):
        return [(cells, "")]
    parts: dict[str, list[StoredCell]] = defaultdict(list)
    for cell in cells:
        parts[str(cell.spec["dataset"].get("split_hash", ""))].append(cell)
    return [(part, f"split {name}") for name, part in sorted(parts.items())]


def _rows(cells: list[StoredCell]) -> list[Row]:
    configs: dict[str, list[StoredCell]] = defaultdict(list)
    for cell in cells:
        configs[_json([cell.method, *_configuration(cell)])].append(cell)
    labels = _labels({key: found[0] for key, found in configs.items()})
    rows = []
    for key, found in configs.items():
        done = [c for c in found if c.state == State.DONE]
        rows.append(Row(found[0].method, labels[key], done, [c for c in found if c.state != State.DONE]))
    wanted = {int(c.spec["fold"]) for row in rows if not row.human for c in (*row.cells, *row.missing)}
    for row in rows:
        row.wanted_folds = tuple(sorted(wanted))
    return sorted(rows, key=lambda row: (not row.human, row.method, row.label))


def _configuration(cell: StoredCell) -> tuple[Any, ...]:
    spec = cell.spec
    if cell.method == HUMAN:  # nothing is trained: the same rows under any preset
        return (spec["method"].get("version"), spec.get("eval"))
    return (spec["method"].get("version"), spec["method"].get("options"), spec.get("train"), spec.get("eval"))


def _flat(cell: StoredCell) -> dict[str, Any]:
    """The configuration as dotted keys, the form in which a user sets them."""
    spec = cell.spec
    flat: dict[str, Any] = {"method.version": spec["method"].get("version")}
    for section, values in (
        ("method", spec["method"].get("options")),
        ("train", spec.get("train")),
        ("eval", spec.get("eval")),
    ):
        for name, value in (values or {}).items():
            if (section, name) == ("train", "stages"):
                for stage in value:
                    flat.update({f"train.stage.{stage['name']}.{k}": v for k, v in stage.items() if k != "name"})
            else:
                flat[f"{section}.{name}"] = value
    return flat


def _overrides(cell: StoredCell) -> list[str]:
    """What the user set by hand, as dotted keys; the data set's options stand in the title of the table."""

    def flat(prefix: str, value: Any) -> list[str]:
        if isinstance(value, dict):
            return [item for key, inner in value.items() for item in flat(f"{prefix}.{key}", inner)]
        return [f"{prefix}={value}"]

    given = cell.spec.get("overrides", {})
    return [item for section in sorted(given) if section != "dataset" for item in flat(section, given[section])]


def _labels(configs: dict[str, StoredCell]) -> dict[str, str]:
    """For each configuration the options that differ between the configurations of its method, or were set by hand.

    No two configurations of a method get the same label.
    """
    labels: dict[str, str] = {}
    for method in dict.fromkeys(cell.method for cell in configs.values()):
        cells = {key: cell for key, cell in configs.items() if cell.method == method}
        if method == HUMAN:  # nothing that is set changes the readers
            said = dict.fromkeys(cells, "")
        elif len(cells) == 1:  # nothing to tell apart from, but what was set by hand is still said
            said = {key: ", ".join(_overrides(cell)) for key, cell in cells.items()}
        else:
            said = _differences({key: {n: _json(v) for n, v in _flat(cell).items()} for key, cell in cells.items()})
        for key, cell in cells.items():
            own = "" if method == HUMAN else str(cell.spec["method"].get("label") or "")  # said in any case
            labels[key] = ", ".join(filter(None, [own, said[key]]))
    return labels


def _differences(flats: dict[str, dict[str, str]]) -> dict[str, str]:
    """What tells each of several configurations from the others: ``a=1, b=2``."""
    names = sorted({name for flat in flats.values() for name in flat})
    differing = [n for n in names if len({flat.get(n) for flat in flats.values()}) > 1]
    # A stage's budget repeats the general one unless it was set apart.
    general = {n.rpartition(".")[2] for n in differing if n.startswith("train.") and not n.startswith("train.stage.")}
    first = [n for n in differing if not (n.startswith("train.stage.") and n.rpartition(".")[2] in general)]
    shown = _telling(flats, [*first, *differing], first[:_MOST_DIFFERENCES])
    texts = {n: _texts(n, flats) for n in differing}
    labels = {}
    for key, chosen in shown.items():
        more = len(set(first) - set(chosen))
        labels[key] = ", ".join(f"{n}={texts[n][key]}" for n in chosen) + (f" and {more} more" if more else "")
    return labels


def _telling(flats: dict[str, dict[str, str]], names: list[str], shown: list[str]) -> dict[str, list[str]]:
    """The options to show of each configuration: those in `shown`, and more of `names` where these are alike."""
    alike: dict[tuple[str | None, ...], dict[str, dict[str, str]]] = defaultdict(dict)
    for key, flat in flats.items():
        alike[tuple(flat.get(n) for n in shown)][key] = flat
    found: dict[str, list[str]] = {}
    for part in alike.values():
        next_one = next((n for n in names if len({flat.get(n) for flat in part.values()}) > 1), None)
        found |= dict.fromkeys(part, shown) if next_one is None else _telling(part, names, [*shown, next_one])
    return found


def _texts(name: str, flats: dict[str, dict[str, str]]) -> dict[str, str]:
    """An option's values as a label says them; in quotes only where ``1`` and ``"1"`` would look alike."""
    exact = {key: flat.get(name, "none") for key, flat in flats.items()}
    plain = {key: value.strip('"') for key, value in exact.items()}
    return plain if len(set(plain.values())) == len(set(exact.values())) else exact


def _listed(what: str, numbers: Sequence[int]) -> str:
    return f"{what}{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
