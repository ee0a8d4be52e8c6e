"""Latent codes in two dimensions: those behind the samples as a cloud, those behind the readers' maps in colour.

The projection is the principal components of the readers' codes where there are two or more that differ (they are what
the figure is about), else of the samples' codes. Codes were stored with the predictions; no network is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...core.errors import UserError
from ..cell import Cell
from ..groups import Row
from ..sheet import Sheet
from .per_rater import reader_name
from .reliability import READER_COLOURS
from .source import LeftOut, patients_of
from .style import GREY, ONE_COLUMN, caption
from .style import counted as said_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CLOUD = 2000  # codes of samples drawn; more would only blacken
_CASES = 400  # cases whose readers' codes are drawn


def draw(sheet: Sheet, row: Row) -> tuple[Figure, pd.DataFrame]:
    """The codes of one row, of its first fold and seed: codes of two trainings share no space.

    Raises:
        LeftOut: no finished cell, or predictions without codes.
    """
    import matplotlib.pyplot as plt

    if not row.cells:
        raise LeftOut("no finished cell")
    cell = row.first
    case_ids, samples, raters = _codes(Cell(cell.folder), cell.name)
    project = _projection(samples, raters)
    n_patients = len(set(patients_of(cell).values()))

    figure, ax = plt.subplots(figsize=(ONE_COLUMN, ONE_COLUMN * 0.95), layout="constrained")
    parts = []
    if samples is not None:
        cases, draws = np.unravel_index(_spread(samples.shape[0] * samples.shape[1], _CLOUD), samples.shape[:2])
        flat = project(samples[cases, draws])
        ax.scatter(flat[:, 0], flat[:, 1], s=3, color="#BBBBBB", linewidths=0, zorder=1, label="samples")
        ids = [case_ids[i] for i in cases]
        parts.append(
            pd.DataFrame({"kind": "sample", "of": draws + 1, "case_id": ids, "x": flat[:, 0], "y": flat[:, 1]})
        )
    names = sheet.group.rater_ids
    fixed = raters is not None and bool((raters == raters[:1]).all())
    if raters is not None:
        cases = np.array([0]) if fixed else _spread(len(raters), _CASES)
        for r, name in enumerate(names):
            flat = project(raters[cases, r])
            look: dict[str, Any] = {"s": 60, "linewidths": 0.8} if fixed else {"s": 8, "linewidths": 0.25}
            colour, marker = READER_COLOURS[r % len(READER_COLOURS)], "osD^vPX*"[r % 8]
            ax.scatter(
                flat[:, 0],
                flat[:, 1],
                color=colour,
                marker=marker,
                edgecolors="white",
                zorder=3,
                label=reader_name(name),
                **look,
            )
            ids = ["" if fixed else case_ids[i] for i in cases]  # a fixed code is that of every case
            parts.append(pd.DataFrame({"kind": "reader", "of": name, "case_id": ids, "x": flat[:, 0], "y": flat[:, 1]}))
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel(f"first component ({100 * project.share[0]:.0f} % of the variance)")
    ax.set_ylabel(f"second component ({100 * project.share[1]:.0f} %)")
    ax.axhline(0, color="#E6E6E6", linewidth=0.5, zorder=0)
    figure.legend(
        loc="outside upper left", ncols=3, handletextpad=0.1, columnspacing=0.9, markerscale=1.3, borderaxespad=0.2
    )
    dimension = len(project.centre)
    of = "the readers' codes" if project.of_raters else "the samples' codes"
    said = f"{said_of(len(case_ids), n_patients)}"
    if raters is not None:
        said += ", one code per reader for all cases" if fixed else ", one point per case and reader"
    caption(
        figure,
        f"{row.name} on {sheet.group.title}, fold {cell.spec['fold']}, seed {cell.spec['seed']}",
        f"principal components of {of} ({dimension} dimensions)",
        said,
        "" if samples is None else f"grey: {min(_CLOUD, samples.shape[0] * samples.shape[1])} of the samples' codes",
        notice=sheet.group.notice,
    )
    ax.tick_params(colors=GREY)
    return figure, pd.concat(parts, ignore_index=True)


def _codes(cell: Cell, name: str) -> tuple[list[str], NDArray[np.float64] | None, NDArray[np.float64] | None]:
    from ..predictions import read_predictions

    path = cell.predictions("test")
    if not path.is_file():
        raise LeftOut(f"{name} stores no predictions")
    try:
        stored = read_predictions(path)
    except UserError as error:
        raise LeftOut(str(error)) from error
    if stored.sample_codes is None and stored.rater_codes is None:
        raise LeftOut("the predictions hold no latent codes: the method has none, or an earlier version made them")
    found = [None if c is None else c.astype(np.float64) for c in (stored.sample_codes, stored.rater_codes)]
    if any(c is not None and not np.isfinite(c).all() for c in found):
        raise LeftOut("some latent codes are not finite")
    return stored.case_ids, found[0], found[1]


@dataclass(frozen=True)
class _Projection:
    """Centre D, two axes D×2, the shares of the variance that they hold, and of whose codes."""

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    share: tuple[float, float]
    of_raters: bool

    def __call__(self, codes: NDArray[np.float64]) -> NDArray[np.float64]:
        return (codes - self.centre) @ self.axes


def _projection(samples: NDArray[np.float64] | None, raters: NDArray[np.float64] | None) -> _Projection:
    for source, of_raters in ((raters, True), (samples, False)):
        if source is None:
            continue
        points = source.reshape(-1, source.shape[-1])
        centre = points.mean(0)
        _, spread, axes = np.linalg.svd(points - centre, full_matrices=False)
        total = float((spread**2).sum())
        if total <= 1e-18 or len(spread) < 2:
            continue
        two = axes[:2]
        # The sign of an axis is arbitrary; the largest weight is made positive, so that pictures can be repeated.
        two = two * np.sign(two[np.arange(2), np.abs(two).argmax(1)])[:, None]
        return _Projection(centre, two.T, (float(spread[0] ** 2 / total), float(spread[1] ** 2 / total)), of_raters)
    raise LeftOut("all latent codes are the same, or have a single dimension")


def _spread(total: int, most: int) -> NDArray[np.intp]:
    """At most `most` positions, evenly over the whole: the same ones at every drawing."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(np.intp))
