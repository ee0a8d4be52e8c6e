"""The contact sheet of `multirater data show`: images with all raters' outlines, and how many raters agree."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError, unknown
from ..core.files import write_bytes
from ..datasets.base import Dataset
from .class_layout import ClassLayout

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL, _GAP, _LEFT, _TOP, _BOTTOM = 1.75, 0.06, 0.08, 0.62, 0.5  # inches
_MARGIN, _LEAST = 8, 32  # pixels around the masks of a cropped panel, and its least side
_PAIRED = 400  # cases whose agreement is looked at to choose some


@dataclass(frozen=True)
class Tile:
    """One case as it is drawn: one slice of a volume.

    Attributes:
        image: H×W or H×W×3 in [0, 1].
        planes: R×K×H×W bool of the raters who saw it.
        raters: their slots.
        dice: mean over pairs of raters and classes in this image; nan with one rater.
    """

    case_id: str
    image: NDArray[np.float32]
    planes: NDArray[np.bool_]
    raters: list[int]
    dice: float


def draw_sheet(
    data: Dataset, path: Path, count: int = 8, chosen: Sequence[str] = (), crop: bool = False
) -> list[dict[str, Any]]:
    """Write the sheet as a PNG.

    Without `chosen` the cases stand evenly from the one on which the raters agree least to the one on which they agree
    most, so that the sheet is no choice by eye. Of a volume the slice with the most disputed pixels is drawn.

    Returns:
        Case id, raters and Dice of every case drawn, in order.

    Raises:
        UserError: a chosen case does not exist, or the file cannot be written.
    """
    import matplotlib.pyplot as plt

    from .figures.style import GREY, paper_style

    if path.suffix.lower() != ".png":
        raise UserError(f"{path} is not named .png; the sheet is written as PNG, so end the name of --out with .png")
    tiles = [_tile(data, row) for row in _rows(data, count, chosen)]
    if crop:
        tiles = [_cropped(tile) for tile in tiles]
    described = data.describe()
    names = list(data.store.meta.get("class_names") or [])
    maps = described.classes
    per_line = max(1, min(len(tiles), 8 // (1 + maps)))
    lines = -(-len(tiles) // per_line)
    heights = [
        max(t.image.shape[0] / t.image.shape[1] for t in tiles[k * per_line : (k + 1) * per_line]) for k in range(lines)
    ]
    step = (_PANEL + _GAP) * (1 + maps) + 2 * _GAP
    width = max(_LEFT + per_line * step, 4.2)
    height = _TOP + sum(h * _PANEL + 0.24 for h in heights) + _BOTTOM
    with paper_style():
        figure = plt.figure(figsize=(width, height))
        top = height - _TOP
        for line in range(lines):
            tall = heights[line] * _PANEL
            for place, tile in enumerate(tiles[line * per_line : (line + 1) * per_line]):
                x = _LEFT + place * step
                axes: list[Axes] = []
                for column in range(1 + maps):
                    low = top - tall
                    box = ((x + column * (_PANEL + _GAP)) / width, low / height, _PANEL / width, tall / height)
                    axes.append(figure.add_axes(box))
                    axes[-1].set_axis_off()
                    axes[-1].set_anchor("N")
                _outlines(axes[0], tile)
                for k in range(maps):
                    _agreement(axes[1 + k], tile, k)
                dice = "" if np.isnan(tile.dice) else f"  Dice {tile.dice:.2f}"
                axes[0].set_title(f"{_short(tile.case_id)}{dice}", fontsize=6.5, pad=2, loc="left")
                for k in range(maps if maps > 1 else 0):
                    axes[1 + k].set_title(_short(names[k] if names else f"class {k + 1}", 16), fontsize=6.5, pad=2)
            top -= tall + 0.24
        identity = f"identity {described.identity}"
        figure.text(_LEFT / width, 1 - 0.16 / height, f"{data.name} · {identity}", fontsize=9, va="center")
        sub = "image with every rater's outline; share of the raters who mark a pixel"
        figure.text(_LEFT / width, 1 - 0.33 / height, sub, fontsize=6.5, va="center", color=GREY)
        _legend(figure, described.rater_ids, width, height)
        _bar(figure, width, height)
        if data.full_notice:
            figure.text(
                _LEFT / width, 0.04 / height, _short(data.full_notice, int(width * 18)), fontsize=5.5, color=GREY
            )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        plt.close(figure)
    write_bytes(path, buffer.getvalue())
    return [
        {
            "case_id": tile.case_id,
            "raters": [described.rater_ids[r] for r in tile.raters],
            "dice": None if np.isnan(tile.dice) else tile.dice,
        }
        for tile in tiles
    ]


def _rows(data: Dataset, count: int, chosen: Sequence[str]) -> list[int]:
    cases = data.volumes(range(len(data)))
    if chosen:
        place = {record.case_id: i for i, record in enumerate(data.records)}
        place |= {case.case_id: _disputed(data, case.rows) for case in cases}
        for name in chosen:
            if name not in place:
                raise unknown(f"case of {data.name}", name, place)
        return [place[name] for name in chosen]
    step = max(1, len(cases) // _PAIRED)
    rows = [_disputed(data, case.rows) for case in cases[::step]]
    dice = np.array([_dice(*_planes(data, row)) for row in rows])
    order = np.argsort(np.where(np.isnan(dice), 2.0, dice), kind="stable")
    picked = np.unique(np.round(np.linspace(0, len(order) - 1, min(count, len(order)))).astype(int))
    return [rows[order[i]] for i in picked]


def _disputed(data: Dataset, rows: NDArray[np.intp]) -> int:
    """The row with the most pixels that some, but not all raters mark; the middle one if there is none."""
    if len(rows) == 1:
        return int(rows[0])
    masks, valid = data.masks(rows)
    marked = (masks > 0) & valid.reshape(*valid.shape, *[1] * (masks.ndim - 2))
    votes, seen = marked.sum(1), valid.sum(1).reshape(-1, *[1] * (masks.ndim - 2))
    disputed = ((votes > 0) & (votes < seen)).reshape(len(rows), -1).sum(1)
    return int(rows[disputed.argmax() if disputed.any() else len(rows) // 2])


def _planes(data: Dataset, row: int) -> tuple[NDArray[np.bool_], list[int]]:
    masks, valid = data.masks([row])
    present = np.flatnonzero(valid[0])
    return ClassLayout.of(data.describe()).planes(masks[0])[present], present.tolist()


def _dice(planes: NDArray[np.bool_], raters: list[int]) -> float:
    if len(raters) < 2:
        return float("nan")
    flat = planes.reshape(*planes.shape[:2], -1).transpose(1, 0, 2).astype(np.float32)
    inter = flat @ flat.transpose(0, 2, 1)
    sizes = np.diagonal(inter, axis1=1, axis2=2)
    total = sizes[:, :, None] + sizes[:, None]
    dice = np.where(total > 0, 2 * inter / np.maximum(total, 1), 1.0)
    upper = np.triu_indices(len(raters), 1)
    return float(dice[:, upper[0], upper[1]].mean())


def _tile(data: Dataset, row: int) -> Tile:
    planes, raters = _planes(data, row)
    image = data.arrays([row])[0][0]
    shown = image[:3] if len(image) == 3 else image[:1]
    low, high = (float(v) for v in np.percentile(shown, [0.5, 99.5]))
    scaled = np.clip((shown - low) / (high - low), 0, 1) if high > low else np.zeros_like(shown)
    flat = np.moveaxis(scaled, 0, 2) if len(scaled) == 3 else scaled[0]
    return Tile(data.records[row].case_id, flat.astype(np.float32), planes, raters, _dice(planes, raters))


def _cropped(tile: Tile) -> Tile:
    union = tile.planes.reshape(-1, *tile.planes.shape[2:]).max(0, initial=False)
    if not union.any():
        return tile
    cut = []
    spans = [np.flatnonzero(union.sum(1 - axis)) for axis in (0, 1)]
    side = max(_LEAST, *(int(s[-1] - s[0]) + 1 + 2 * _MARGIN for s in spans))
    for span, length in zip(spans, union.shape, strict=True):
        size = min(side, length)
        start = int(np.clip((span[0] + span[-1] + 1) // 2 - size // 2, 0, length - size))
        cut.append(slice(start, start + size))
    return Tile(tile.case_id, tile.image[cut[0], cut[1]], tile.planes[..., cut[0], cut[1]], tile.raters, tile.dice)


def _outlines(ax: Axes, tile: Tile) -> None:
    from .figures.style import rater_colour

    ax.imshow(tile.image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for rater, planes in zip(tile.raters, tile.planes, strict=True):
        for k, mask in enumerate(planes):
            if mask.any() and not mask.all():
                style = "solid" if k == 0 else "dashed"
                ax.contour(
                    np.pad(mask, 1).astype(np.float32)[1:-1, 1:-1],
                    levels=[0.5], colors=[rater_colour(rater)], linewidths=0.7, linestyles=style,
                )  # fmt: skip


def _agreement(ax: Axes, tile: Tile, k: int) -> None:
    if not tile.raters:
        ax.text(0.5, 0.5, "no rater", ha="center", va="center", transform=ax.transAxes, fontsize=6)
        return
    share = tile.planes[:, k].mean(0)
    ax.imshow(share, cmap="magma", vmin=0, vmax=1, interpolation="nearest")


def _legend(figure: Any, names: Sequence[str], width: float, height: float) -> None:
    """Names of the raters in the colours of their outlines, below the panels."""
    from .figures.style import rater_colour

    x, y = _LEFT, 0.3
    for r, name in enumerate(names):
        text = _short(name, 18)
        extent = 0.24 + 0.062 * len(text)
        if x + extent > width - 1.3:
            break
        figure.add_artist(_patch(x / width, (y - 0.045) / height, 0.13 / width, 0.09 / height, rater_colour(r)))
        figure.text((x + 0.17) / width, y / height, text, fontsize=6.5, va="center")
        x += extent


def _patch(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=colour, edgecolor="#444444", linewidth=0.4)


def _bar(figure: Any, width: float, height: float) -> None:
    ax = figure.add_axes(((width - 1.12) / width, 0.3 / height, 0.9 / width, 0.09 / height))
    ax.imshow(np.linspace(0, 1, 64)[None], cmap="magma", aspect="auto", extent=(0, 1, 0, 1))
    ax.set_yticks([])
    ax.set_xticks([0, 0.5, 1], ["none", "half", "all"], fontsize=5.5)
    ax.tick_params(length=1.5, pad=1)
    ax.grid(False)


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else "…" + text[len(text) - most + 1 :]
