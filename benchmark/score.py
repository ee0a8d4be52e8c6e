"""Scores of predictions in an ``.npz`` file, made by anybody: reading, means over cases, tables."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from ..metrics.case import CaseView
from ..metrics.registry import METRICS, info_of
from ..metrics.score import case_views, check_metrics, pooled_dice_rater, score_view
from ..metrics.variants import conventions_of

# Axes of each array beside the leading case axis, as (fixed axes, spatial axes or not, optional channel axis or not).
_AXES: dict[str, tuple[int, bool, bool]] = {
    "raters": (1, True, False),
    "samples": (1, True, False),
    "probs": (1, True, True),
    "rater_probs": (1, True, True),
    "mean_prob": (0, True, True),
    "valid": (0, True, False),
    "rater_valid": (1, False, False),
    "sample_weights": (1, False, False),
    "rater_weights": (1, False, False),
    "spacing": (1, False, False),
    "case_ids": (0, False, False),
}
_SHARED = ("valid", "rater_valid", "sample_weights", "rater_weights", "spacing")  # may be given once for all cases
_PREDICTIONS = ("samples", "probs", "rater_probs", "mean_prob")
ARRAYS = (*_AXES, "classes")


@dataclass
class ScoreFile:
    """Arrays of a file, all with a leading case axis (or one row for all cases)."""

    raters: NDArray
    inputs: dict[str, NDArray]
    case_ids: list[str]
    classes: list[int] | None = None
    ignored: list[str] = field(default_factory=list)

    @property
    def given(self) -> frozenset[str]:
        return frozenset(name for name in _PREDICTIONS if name in self.inputs)

    @property
    def several(self) -> bool:
        """More than one class is evaluated."""
        return len(next(iter(self.views())).classes) > 1

    def views(self) -> Iterator[CaseView]:
        """The cases, checked, one at a time."""
        return case_views(self.raters, self.inputs, classes=self.classes)


def read_npz(path: Path) -> dict[str, NDArray]:
    """All arrays of an ``.npz`` file; nothing is unpickled.

    Raises:
        UserError: missing, damaged, not an archive, or holding Python objects.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise UserError(
                f"{path} holds a single array; save the arrays together with np.savez(file, raters=..., ...)"
            )
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; give an .npz file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; give an .npz file") from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: permission denied; choose a file you may read") from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory, or is damaged; split it by cases") from error
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise UserError(f"{path} holds Python objects, which are not read; save plain arrays of numbers") from error
        raise UserError(f"{path} is damaged or no .npz file ({error}); write it again with np.savez") from error


def read_score_file(path: Path, spatial_dims: int = 2) -> ScoreFile:
    """Arrays of a score file with their axes checked.

    Raises:
        UserError: a missing array or a wrong number of axes, in one sentence.
    """
    arrays = read_npz(path)
    if "raters" not in arrays:
        raise UserError(f"{path} has no array 'raters' (it has {_list(arrays)}); add the raters' masks, raters x H x W")
    if not any(name in arrays for name in _PREDICTIONS):
        raise UserError(f"{path} has no 'samples' or 'probs' (it has {_list(arrays)}); add the samples to score")
    axes = arrays["raters"].ndim
    if axes not in (spatial_dims + 1, spatial_dims + 2):
        other = ""
        if axes in (4, 5) and spatial_dims == 2:
            other = ", or --spatial-dims 3 for volumes"
        raise UserError(
            f"raters has {axes} axes; with {spatial_dims} spatial dimensions give raters x {_space(spatial_dims)}, "
            f"with a case axis in front if there are several{other}"
        )
    several = axes == spatial_dims + 2
    cases = len(arrays["raters"]) if several else 1
    if not cases:
        raise UserError(f"{path} holds no case; give at least one")
    inputs = {
        name: _with_case_axis(name, array, several, cases, spatial_dims)
        for name, array in arrays.items()
        if name in _AXES
    }
    names = inputs.pop("case_ids", None)
    return ScoreFile(
        raters=inputs.pop("raters"),
        inputs=inputs,
        case_ids=[str(i) for i in range(cases)] if names is None else [str(name) for name in names],
        classes=_classes(arrays.get("classes")),
        ignored=sorted(set(arrays) - set(ARRAYS)),
    )


def _list(arrays: Mapping[str, Any]) -> str:
    return ", ".join(sorted(arrays)) or "nothing"


def _space(spatial_dims: int) -> str:
    return "H x W" if spatial_dims == 2 else "D x H x W"


def _with_case_axis(name: str, array: NDArray, several: bool, cases: int, spatial_dims: int) -> NDArray:
    fixed, spatial, channel = _AXES[name]
    base = fixed + (spatial_dims if spatial else 0)
    allowed = {base, base + 1} if channel else {base}
    if several:
        with_cases = {n + 1 for n in allowed}
        once = name in _SHARED and array.ndim in allowed
        if array.ndim not in with_cases and not once:
            raise UserError(_axes_message(name, array, sorted(with_cases), "a case axis first, as raters has"))
        if not once and len(array) != cases:
            raise UserError(f"{name} has {len(array)} cases, raters has {cases}; give the same cases in both")
        return array
    if name == "case_ids" and array.shape == (1,):
        return array
    if array.ndim not in allowed:
        raise UserError(_axes_message(name, array, sorted(allowed), "no case axis, as raters has none"))
    return array[None]


def _axes_message(name: str, array: NDArray, allowed: Sequence[int], why: str) -> str:
    return f"{name} has shape {array.shape}; give {' or '.join(map(str, allowed))} axes ({why})"


def _classes(array: NDArray | None) -> list[int] | None:
    if array is None:
        return None
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UserError(
            f"classes has shape {array.shape} and type {array.dtype}; give a list of labels such as [1, 2, 3]"
        )
    return [int(c) for c in array]


# -- scores ----------------------------------------------------------------------------------------


@dataclass
class Scores:
    """Values of one variant: a dict per case, and the pooled values a variant may have."""

    cases: list[dict[str, Any]]
    reasons: list[dict[str, str]]
    pooled: list[float] | None = None


def score_file(
    data: ScoreFile, variants: Sequence[str], metrics: Sequence[str] | None, strict: bool
) -> dict[str, Scores]:
    """Scores of each variant; masks are read and checked once per variant and case.

    Args:
        strict: raise where a variant makes too few samples an error.

    Raises:
        UserError: unknown metric or variant, missing arrays, or bad values in a case, which is named.
    """
    if metrics is not None:
        check_metrics(metrics, data.given)
    out = {}
    for variant in variants:
        scored = Scores([], [])
        for view, name in zip(data.views(), data.case_ids, strict=True):
            try:
                values = score_view(view, data.given, metrics, variant, True, strict)
            except UserError as error:
                raise UserError(f"case {name}: {error}") from error
            scored.reasons.append(values.pop("reasons"))
            scored.cases.append(values)
        if variant == "pionono" and (metrics is None or any(m.startswith("dice_rater") for m in metrics)):
            scored.pooled = pooled_dice_rater(data.views(), variant)
        out[variant] = scored
    return out


def same_as_canonical(variant: str, metrics: Iterable[str], several: bool) -> bool:
    """Whether a variant changes none of the metrics."""
    canonical, other = conventions_of(None, several), conventions_of(variant, several)
    families = {info_of(name)["family"] for name in metrics} - {""}
    return variant != "canonical" and all(canonical[f] == other[f] for f in families)


@dataclass(frozen=True)
class Row:
    """A line of the table: mean over the cases where the value is defined."""

    name: str
    mean: float
    n: int
    undefined: int


def summarise(scores: Scores, classes: Sequence[int] | None = None) -> dict[str, list[Row]]:
    """Rows of each metric: one, or one for each rater (``dice_rater[1]``) or class of a list."""
    found: dict[str, list[Row]] = {}
    for name in scores.cases[0]:
        values = np.array([case[name] for case in scores.cases], dtype=np.float64)
        if values.ndim == 1:
            found[name] = [_row(name, values)]
        else:
            labels = _labels(name, values.shape[1], classes)
            found[name] = [_row(label, column) for label, column in zip(labels, values.T, strict=True)]
    if scores.pooled:
        known = np.array(scores.pooled)
        rows = [_pooled_row("dice_rater.pooled", _mean(known), len(scores.cases))]
        rows += [
            _pooled_row(f"dice_rater.pooled[{r}]", float(v), len(scores.cases)) for r, v in enumerate(known, start=1)
        ]
        found["dice_rater.pooled"] = rows
    return found


def _labels(name: str, count: int, classes: Sequence[int] | None) -> list[str]:
    if info_of(name)["values"] == "class":
        numbers = classes or range(1, count + 1)
        return [f"{name.removesuffix('.per_class')}[class {c}]" for c in numbers]
    if info_of(name)["values"] == "votes":
        return [f"{name}[{k} votes]" for k in range(count)]
    return [f"{name.removesuffix('.each')}[{r}]" for r in range(1, count + 1)]


def _row(name: str, values: NDArray[np.float64]) -> Row:
    return Row(name, _mean(values), len(values), int(np.isnan(values).sum()))


def _pooled_row(name: str, value: float, cases: int) -> Row:
    return Row(name, value, cases, cases if math.isnan(value) else 0)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def in_order(names: Iterable[str]) -> list[str]:
    """Metrics by section of the specification, then as registered."""
    rank = {name: i for i, name in enumerate(METRICS.names())}

    def key(name: str) -> tuple[list[int], int]:
        known = name if name in rank else "dice_rater.each"  # the pooled rows
        section = str(info_of(known)["section"])
        return [int(part) for part in section.split(".") if part.isdigit()], rank[known]

    return sorted(dict.fromkeys(names), key=key)


def as_json(
    path: Path, data: ScoreFile, scores: Mapping[str, Scores], same: Sequence[str], every: bool
) -> dict[str, Any]:
    """Per-case and mean values; nan becomes null."""

    def one(scored: Scores) -> dict[str, Any]:
        rows = summarise(scored, data.classes)
        lists = {name for name, value in scored.cases[0].items() if isinstance(value, list)}

        def each(number: Callable[[Row], Any]) -> dict[str, Any]:
            return {
                name: [number(row) for row in rows[name]] if name in lists else number(rows[name][0])
                for name in scored.cases[0]
            }

        out = {
            "mean": each(lambda row: _plain(row.mean)),
            "n": each(lambda row: row.n - row.undefined),
            "undefined": each(lambda row: row.undefined),
            "cases": [
                {"case_id": case_id, **{k: _plain(v) for k, v in case.items()}, "reasons": reasons}
                for case_id, case, reasons in zip(data.case_ids, scored.cases, scored.reasons, strict=True)
            ],
        }
        if scored.pooled:
            whole = rows["dice_rater.pooled"][0].mean
            out["pooled"] = {"dice_rater": _plain(whole), "dice_rater.each": _plain(scored.pooled)}
        return out

    head = {"file": str(path), "n_cases": len(data.case_ids)}
    if not every:
        ((variant, scored),) = scores.items()
        return {**head, "variant": variant, **one(scored)}
    return {
        **head,
        "variants": {variant: one(scored) for variant, scored in scores.items()},
        "same_as_canonical": list(same),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
