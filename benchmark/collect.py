"""Stored results as tables: one walk over the cells, nothing is trained or predicted.

Finished cells become one long frame of case values; every other cell is kept in a second frame with its state and
reason, so that tables can show what is missing instead of leaving it out.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError
from ..core.files import read_json
from .cell import Cell, NewerRecord, State, all_cells, checked, open_results, read_metrics, training_of
from .states import state_of

if TYPE_CHECKING:
    import pandas as pd

METRIC_COLUMNS = (
    "case_id",
    "patient_id",
    "output",
    "rater",
    "label",
    "metric",
    "variant",
    "region",
    "n_samples",
    "value",
    "reason",
)
CELL_COLUMNS = (
    "dataset",
    "set",
    "identity",
    "split",
    "preset",
    "method",
    "options",
    "fold",
    "seed",
    "fingerprint",
    "protocol",
    "cell",
)
MISSING_COLUMNS = (*CELL_COLUMNS, "state", "why")
_TEXT = ("case_id", "patient_id", "output", "rater", "label", "metric", "variant", "region", "reason")
DIVERGED = "diverged"  # a state of tables only: a training that ended without usable weights is a result


class DamagedCell(UserError):
    """A cell whose files contradict each other; tables list it and go on without it."""


@dataclass(frozen=True)
class StoredCell:
    """One cell as found on disk.

    Attributes:
        folder: the cell's folder.
        spec: its resolved configuration.
        state: ``done``, ``diverged``, ``failed``, ``running``, ``lost``, ``trained``, ``pending`` or ``damaged``.
        why: one line for a state other than ``done``.
        train: the record of the training that was scored, empty if there is none (the human cell trains nothing).
        result: the record of the evaluation that the specification names, empty unless done.
    """

    folder: Path
    spec: dict[str, Any]
    state: str
    why: str = ""
    train: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return str(self.spec["method"]["name"])

    @property
    def dataset(self) -> str:
        return str(self.spec["dataset"]["name"])

    @property
    def name(self) -> str:
        """Path below ``cells/``, the name by which a cell is shown."""
        return Cell(self.folder).path

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        return dict(self.result.get("outputs", {}))

    @property
    def identity(self) -> dict[str, Any]:
        """The columns of `CELL_COLUMNS`."""
        data = self.spec["dataset"]
        options = data.get("options", {})
        return {
            "dataset": data["name"],
            "set": str(options.get("set") or ""),
            "identity": str(options.get("identity") or data.get("identity") or "none"),
            "split": str(options.get("split") or data.get("split") or ""),
            "preset": str(self.spec.get("preset") or ""),
            "method": self.method,
            "options": json.dumps(self.spec["method"].get("options", {}), sort_keys=True),
            "fold": int(self.spec.get("fold", 0)),
            "seed": int(self.spec.get("seed", 0)),
            "fingerprint": str(data.get("fingerprint", "")),
            "protocol": int(self.spec.get("protocol", 0)),
            "cell": self.name,
        }

    @property
    def metrics_folder(self) -> Path:
        return Cell(self.folder).eval_folder(self.spec["eval_key"])

    def metrics(self, columns: Sequence[str] = METRIC_COLUMNS) -> pd.DataFrame:
        """The case values; text columns are categorical, an undefined value is NaN with its reason beside it.

        Raises:
            DamagedCell: the file is missing, changed after its record was written, or lacks a column.
        """
        import pandas as pd

        try:
            data = read_metrics(self.metrics_folder)
        except OSError as error:
            raise DamagedCell(f"{self.name}: metrics.csv cannot be read ({error}); run evaluate again") from error
        if hashlib.sha256(data).hexdigest() != self.result.get("metrics_sha256"):
            raise DamagedCell(f"{self.name}: metrics.csv was changed after its record was written; run evaluate again")
        types: dict[str, Any] = dict.fromkeys(_TEXT, "category")
        types.update(value=np.float64, n_samples=np.float64)
        try:
            # "NA", "null" or "nan" may be the name of a case or rater: only an empty value is a missing one.
            frame = pd.read_csv(
                io.BytesIO(data),
                usecols=list(columns),
                dtype=types,
                keep_default_na=False,
                na_values={"value": [""], "n_samples": [""]},
            )
        except ValueError as error:
            raise DamagedCell(
                f"{self.name}: metrics.csv is not in the known form ({error}); run evaluate again"
            ) from error
        return frame[list(columns)]


def find_cells(results: Path, only: Iterable[str | Path | Cell] | None = None) -> list[StoredCell]:
    """Every cell of a results folder with its state, sorted by path; reads the small records, not the metrics.

    Args:
        results: a results folder.
        only: cell folders to which the search is limited, or cells with the evaluation that is looked for.

    Raises:
        UserError: not a results folder, or one that a newer version wrote.
    """
    open_results(Path(results))
    cells = (
        all_cells(Path(results))
        if only is None
        else [one if isinstance(one, Cell) else Cell(Path(one)) for one in only]
    )
    return [_stored(cell) for cell in cells]


def _stored(cell: Cell) -> StoredCell:
    try:
        spec = cell.spec
        _ = spec["eval_key"], spec["method"]["name"], spec["dataset"]["name"]
    except NewerRecord:
        raise
    except (UserError, KeyError, TypeError) as error:  # all that is known is its name: a table of its own says so
        method, dataset, name = cell.folder.parts[-3:]
        data = {"name": dataset, "options": {}, "notice": "the specification of these cells cannot be read"}
        fold, seed = (int(part[1:]) if part[1:].isdigit() else 0 for part in f"{name}--".split("-")[:2])
        spec = {"method": {"name": method, "options": {}}, "dataset": data, "fold": fold, "seed": seed}
        reason = str(error) if isinstance(error, UserError) else f"spec.json of {cell.path} lacks {error}"
        return StoredCell(cell.folder, spec, str(State.DAMAGED), reason)
    try:
        train = cell.training()
    except NewerRecord:
        raise
    except UserError as error:
        return StoredCell(cell.folder, spec, str(State.DAMAGED), str(error))
    if train.get("outcome") == DIVERGED:
        return StoredCell(cell.folder, spec, DIVERGED, "training diverged (non-finite loss)", train)
    path = cell.eval_folder(spec["eval_key"]) / "result.json"
    if path.is_file():
        # The checksum of metrics.csv is verified when it is read: hashing here would read every file twice.
        try:
            record = checked(read_json(path), "result", path)
        except NewerRecord:
            raise
        except UserError:
            reason = f"{cell.path}: result.json cannot be read; run evaluate again"
            return StoredCell(cell.folder, spec, str(State.DAMAGED), reason, train)
        if record.get("eval_key") == spec["eval_key"]:
            return StoredCell(cell.folder, spec, str(State.DONE), "", training_of(train, record), record)
        return StoredCell(cell.folder, spec, str(State.DAMAGED), "result.json belongs to another evaluation", train)
    attempt = cell.last_attempt() or {}
    outcome = str(attempt.get("outcome") or "")
    state = DIVERGED if outcome == DIVERGED else str(state_of(cell.folder, spec["eval_key"], valid=False, fault=""))
    why = str(attempt.get("message") or "").strip().splitlines()
    return StoredCell(cell.folder, spec, state, why[-1] if why else outcome, train)


def collect(results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Case values of all finished cells, and the cells without any.

    Returns:
        A frame with `CELL_COLUMNS` and `METRIC_COLUMNS`, one row per case value; and a frame with `MISSING_COLUMNS`,
        one row per cell that is failed, diverged, damaged or not finished.

    Raises:
        UserError: not a results folder, or one that a newer version wrote.
    """
    import pandas as pd
    from pandas.api.types import union_categoricals

    frames: list[pd.DataFrame] = []
    identities: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    for cell in find_cells(results):
        state, why = cell.state, cell.why
        if state == State.DONE:
            try:
                frames.append(cell.metrics())
                identities.append(cell.identity)
                continue
            except DamagedCell as error:
                state, why = str(State.DAMAGED), str(error)
        missing.append({**cell.identity, "state": state, "why": why})
    lengths = [len(frame) for frame in frames]
    # Categories are united once per column over all cells: growing one frame cell by cell would be quadratic.
    columns: dict[str, Any] = {
        name: np.repeat(np.array([row[name] for row in identities], dtype=object), lengths) for name in CELL_COLUMNS
    }
    for name in METRIC_COLUMNS:
        parts = [frame[name] for frame in frames]
        if not parts:
            columns[name] = []
        elif name in _TEXT:
            columns[name] = union_categoricals(
                [part.cat.set_categories(part.cat.categories.astype(object)) for part in parts]
            )
        else:
            columns[name] = np.concatenate([part.to_numpy() for part in parts])
    values = pd.DataFrame(columns)
    for name in CELL_COLUMNS:
        values[name] = values[name].astype("int64" if name in ("fold", "seed", "protocol") else "category")
    return values, pd.DataFrame(missing, columns=list(MISSING_COLUMNS))


def load_results(path: str | Path) -> pd.DataFrame:
    """All case values of a results folder, one row per case value.

    Args:
        path: a results folder.

    Returns:
        A frame with the columns of `CELL_COLUMNS` (which cell) and `METRIC_COLUMNS` (which value). `value` is NaN where
        a metric is undefined, with the reason in `reason`.

    Raises:
        UserError: not a results folder, or one that a newer version wrote.
    """
    return collect(Path(path))[0]
