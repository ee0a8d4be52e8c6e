"""Examples: image, every reader, mean, entropy and error of a case, and below them the maps per reader and samples.

The cases are not picked by eye. They are the scored cases at fixed percentiles of the readers' diversity, which depends
on the data alone, so every method of a table is shown on the same cases; samples are the first of the stored set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..collect import StoredCell
from ..groups import Group, Row
from ..sheet import Sheet
from .distances import dice
from .source import LeftOut, Scored, diversity_of, scored
from .style import BLACK, GREY, TWO_COLUMN, YELLOW, caption, rater_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import QuadContourSet
    from matplotlib.figure import Figure

PERCENTILES = (10, 30, 50, 70, 90)
SAMPLES_SHOWN = 5  # beside the outputs for the readers; more where there are none
READERS_SHOWN = 8
_MAPS = {"mean": ("viridis", ""), "entropy": ("magma", "bits"), "error": ("cividis", "")}  # colours and unit
_GAP, _WIDE = 0.03, 0.1  # inches between panels, and between blocks of them
_MARGIN = 6  # pixels around everything that is drawn
_LEAST = 32  # pixels of a crop


@dataclass(frozen=True)
class Block:
    """Neighbouring panels under one heading."""

    heading: str
    columns: tuple[str, ...]
    kind: str


def chosen_cases(diversity: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Cases at `PERCENTILES` of the readers' diversity: (percentile, position), without repetition.

    Args:
        diversity: N values in the order of the case ids, which decides between equal ones; NaN is never chosen.
    """
    order = np.argsort(diversity, kind="stable")
    order = order[~np.isnan(diversity[order])]
    chosen: dict[int, int] = {}
    for percentile in PERCENTILES:
        if len(order):
            chosen.setdefault(int(order[int(percentile / 100 * (len(order) - 1) + 0.5)]), percentile)
    return [(percentile, position) for position, percentile in chosen.items()]


def crop_box(masks: Sequence[NDArray[np.bool_]], shape: tuple[int, int]) -> tuple[slice, slice]:
    """The square around everything that is drawn, so that no prediction is cut away; at least 32 pixels."""
    union = np.zeros(shape, dtype=bool)
    for mask in masks:
        union |= mask.reshape(-1, *shape).any(0)
    if not union.any():
        return slice(0, shape[0]), slice(0, shape[1])
    spans = [np.flatnonzero(union.any(1 - axis)) for axis in (0, 1)]
    side = max(_LEAST, *(int(s[-1] - s[0]) + 1 + 2 * _MARGIN for s in spans))
    box = []
    for span, length in zip(spans, shape, strict=True):
        size = min(side, length)
        start = int(np.clip((span[0] + span[-1] + 1) // 2 - size // 2, 0, length - size))
        box.append(slice(start, start + size))
    return box[0], box[1]


def draw(sheet: Sheet, row: Row, k: int = 0) -> tuple[Figure, pd.DataFrame]:
    """The grid of one row and its k-th class (from 0), from its first fold and seed.

    Raises:
        LeftOut: no finished cell, no stored predictions, or data that cannot be opened.
    """
    group = sheet.group
    if not row.cells:
        raise LeftOut("no finished cell")
    cell = row.first
    found = scored(cell, k)
    diversity = diversity_of(found)
    cases = chosen_cases(diversity)
    if not cases:
        raise LeftOut("no scored case has a reader")
    lines = _lines(group, found)
    figure, axes = _grid(lines, len(cases))
    records = []
    for y, (percentile, i) in enumerate(cases):
        records.append(_case(axes[y], lines, found, i, percentile, float(diversity[i])))
    _headings(figure, axes[0], lines)
    _colour_bars(figure, axes[-1], lines)
    _caption(figure, group, row, cell, found)
    table = pd.DataFrame(records)
    return figure, table.assign(cell=cell.name)


def _lines(group: Group, found: Scored) -> list[list[Block]]:
    """One or two lines of panels a case: data and summary above, what the method answers below."""
    stored = found.stored
    names = group.rater_ids[:READERS_SHOWN]
    many = len(group.rater_ids)
    readers = f"Readers (first {READERS_SHOWN} of {many})" if many > READERS_SHOWN else "Readers"
    above = [Block("", ("image",), "image"), Block(readers, names, "reader")]
    above.append(Block("Summary", ("mean", "entropy", "error"), "summary"))
    below: list[Block] = []
    if stored.raters is not None:
        below.append(Block("Output for each reader (Dice)", names, "personal"))
    if stored.samples is not None:
        count = stored.samples.shape[1]
        shown = min(SAMPLES_SHOWN + (0 if below else len(names)), count)
        heading = f"First {shown} of {count} samples" if shown < count else "Samples"
        below.append(Block(heading, tuple(str(s + 1) for s in range(shown)), "sample"))
    return [above, below] if below else [above]


def _grid(lines: list[list[Block]], cases: int) -> tuple[Figure, list[list[list[Axes]]]]:
    """Square panels on the width of a page: axes[case][line][panel].

    The lines begin below each other: outputs for the readers stand below the readers where there are any.
    """
    import matplotlib.pyplot as plt

    label = 0.62  # inches of the cases' names
    below = lines[1] if len(lines) > 1 else []
    # The second line begins below the readers, not below the image.
    counts = [sum(len(b.columns) for b in lines[0]), 1 + sum(len(b.columns) for b in below)]
    blocks = [len(lines[0]), 1 + len(below)]
    rooms = [TWO_COLUMN - label - 0.04 - _GAP * (c - 1) - _WIDE * (b - 1) for c, b in zip(counts, blocks, strict=True)]
    side = min(min(room / c for room, c in zip(rooms, counts, strict=True)), 0.85)
    top, bottom, between = 0.42, 0.84, 0.1
    heading = 0.3 if below else 0.0  # of the second line, above the first case only
    height = top + cases * len(lines) * (side + _GAP) + (cases - 1) * between + heading + bottom
    figure = plt.figure(figsize=(TWO_COLUMN, height))
    axes: list[list[list[Axes]]] = []
    y = height - top
    for case in range(cases):
        of_case = []
        for number, line in enumerate(lines):
            y -= side + _GAP + (heading if number and not case else 0)
            x = label + (side + _GAP + _WIDE if number else 0)
            panels = []
            for block in line:
                for _ in block.columns:
                    ax = figure.add_axes((x / TWO_COLUMN, y / height, side / TWO_COLUMN, side / height))
                    ax.set_axis_off()
                    panels.append(ax)
                    x += side + _GAP
                x += _WIDE
            of_case.append(panels)
        y -= between
        axes.append(of_case)
    return figure, axes


def _case(
    axes: list[list[Axes]], lines: list[list[Block]], found: Scored, i: int, percentile: int, diversity: float
) -> dict[str, Any]:
    stored = found.stored
    masks, valid, mean = found.masks[i], found.valid[i], stored.mean[i]
    drawn: list[NDArray[np.bool_]] = [masks[valid], (mean > 0.5)[None]]
    if stored.samples is not None:
        shown = sum(len(block.columns) for line in lines for block in line if block.kind == "sample")
        drawn.append(stored.samples[i, :shown])
    if stored.raters is not None:
        drawn.append(stored.raters[i] > 0.5)
    shape = (int(mean.shape[0]), int(mean.shape[1]))
    box = crop_box([m.astype(bool) for m in drawn], shape)
    image = picture(found.image(i))[box]
    error = np.abs(mean.astype(np.float64) - masks[valid].mean(0))
    maps = {"mean": mean, "entropy": _entropy(mean), "error": error}
    record: dict[str, Any] = {
        "case_id": found.case_ids[i],
        "patient_id": found.patient_ids[i],
        "percentile": percentile,
        "diversity_raters": diversity,
        "crop": f"{box[0].start}:{box[0].stop},{box[1].start}:{box[1].stop}",
        "mean_area": float(mean.sum()),
        "entropy_mean_bits": float(_entropy(mean).mean()),
        "error_mean": float(error.mean()),
    }
    for line, panels in zip(lines, axes, strict=True):
        names = [(block, k, name) for block in line for k, name in enumerate(block.columns)]
        for ax, (block, k, name) in zip(panels, names, strict=True):
            if block.kind == "summary":
                ax.imshow(maps[name][box], cmap=_MAPS[name][0], vmin=0, vmax=1)
                continue
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)
            if block.kind == "reader":
                _reader(ax, masks[k], bool(valid[k]), box, rater_colour(k))
                record[f"area_reader_{name}"] = int(masks[k].sum()) if valid[k] else None
            elif block.kind == "sample":
                assert stored.samples is not None
                _outline(ax, stored.samples[i, k].astype(np.float32)[box], YELLOW)
                record[f"area_sample_{name}"] = int(stored.samples[i, k].sum())
            elif block.kind == "personal":
                assert stored.raters is not None
                _outline(ax, stored.raters[i, k][box], rater_colour(k))
                if valid[k]:
                    score = dice(stored.raters[i, k] > 0.5, masks[k])
                    _say(ax, f"{score:.2f}".removeprefix("0"), "white", corner=True)
                    record[f"dice_reader_{name}"] = score
    label = f"{_short(found.case_ids[i])}\n{percentile} %\n$v_R$ {diversity:.2f}"
    first = axes[0][0]
    first.text(-0.06, 1.0, label, transform=first.transAxes, ha="right", va="top", fontsize=6, linespacing=1.15)
    return record


def _short(name: str) -> str:
    """A long case id in lines of about 12 letters, cut where its parts end."""
    lines, line = [], ""
    for part in name.replace("_", "_\0").replace("-", "-\0").replace("/", "/\0").split("\0"):
        if line and len(line) + len(part) > 12:
            lines.append(line)
            line = ""
        line += part
    return "\n".join([*lines, line])


def picture(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """H×W grey or H×W×3 colour in [0, 1]; the darkest and brightest half per cent are clipped."""
    shown = image[:3].transpose(1, 2, 0) if len(image) == 3 else image[0]
    low, high = np.percentile(shown, [0.5, 99.5])
    return np.clip((shown.astype(np.float64) - low) / max(float(high - low), 1e-12), 0, 1)


def _entropy(mean: NDArray[np.float32]) -> NDArray[np.float64]:
    """Entropy of the mean map in bits, 0 to 1."""
    p = np.clip(mean.astype(np.float64), 1e-12, 1 - 1e-12)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def _reader(ax: Axes, mask: NDArray[np.bool_], valid: bool, box: tuple[slice, slice], colour: str) -> None:
    if valid:
        _outline(ax, mask.astype(np.float32)[box], colour)
    else:
        _say(ax, "not seen", colour)


def _outline(ax: Axes, values: NDArray[np.float32], colour: str) -> None:
    """The 0.5 contour over a faint fill; a dark line below it keeps it visible on bright tissue."""
    from matplotlib.patheffects import withStroke

    if not (values > 0.5).any():
        _say(ax, "empty", colour)
        return
    ax.contourf(*_framed(values), levels=[0.5, 2.0], colors=[colour], alpha=0.16)
    line = contour(ax, values, colour, 0.9)
    line.set_path_effects([withStroke(linewidth=1.7, foreground=BLACK, alpha=0.55)])


def contour(ax: Axes, values: NDArray[np.float32], colour: str, width: float) -> QuadContourSet:
    """The 0.5 contour of a panel's H×W values."""
    line = ax.contour(*_framed(values), levels=[0.5], colors=[colour], linewidths=width)
    ax.set_xlim(-0.5, values.shape[1] - 0.5)
    ax.set_ylim(values.shape[0] - 0.5, -0.5)
    return line


def _framed(values: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Columns, lines and values with a frame of background, which closes outlines at the border of the crop."""
    return np.arange(-1, values.shape[1] + 1), np.arange(-1, values.shape[0] + 1), np.pad(values, 1)


def _say(ax: Axes, text: str, colour: str, corner: bool = False) -> None:
    """Words in the middle or the lower right corner of a panel, legible on any tissue."""
    from matplotlib.patheffects import withStroke

    x, y, ha, va = (0.97, 0.03, "right", "bottom") if corner else (0.5, 0.5, "center", "center")
    halo = [withStroke(linewidth=1.3, foreground="black")]
    ax.text(x, y, text, transform=ax.transAxes, ha=ha, va=va, fontsize=6, color=colour, path_effects=halo)


def _headings(figure: Figure, axes: list[list[Axes]], lines: list[list[Block]]) -> None:
    """Column names, and over each block its heading with a rule from end to end."""
    from matplotlib.lines import Line2D

    height = figure.get_figheight()
    for line, panels in zip(lines, axes, strict=True):
        column = 0
        for block in line:
            first, last = panels[column], panels[column + len(block.columns) - 1]
            for k, name in enumerate(block.columns):
                panels[column + k].set_title(name, loc="center", pad=2, fontsize=6.5)
            if block.heading:
                left, right = first.get_position().x0, last.get_position().x1
                y = first.get_position().y1 + 0.14 / height
                rule = Line2D([left, right], [y, y], color=GREY, linewidth=0.6, transform=figure.transFigure)
                figure.add_artist(rule)
                middle = (left + right) / 2
                figure.text(middle, y + 0.02 / height, block.heading, ha="center", va="bottom", fontsize=7)
            column += len(block.columns)


def _colour_bars(figure: Figure, axes: list[list[Axes]], lines: list[list[Block]]) -> None:
    """Below the grid, at its right end, in the order of the maps."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height = figure.get_figheight()
    names = [name for block in lines[0] for name in block.columns]
    low = min(ax.get_position().y0 for line in axes for ax in line)
    for name, (colours, label) in _MAPS.items():
        box = axes[0][names.index(name)].get_position()
        place = figure.add_axes((box.x0, low - 0.13 / height, box.width, 0.055 / height))
        bar = figure.colorbar(ScalarMappable(Normalize(0, 1), colours), cax=place, orientation="horizontal")
        bar.set_ticks([0, 1])
        first, last = place.get_xticklabels()
        first.set_horizontalalignment("left")  # neighbouring bars would otherwise read "10"
        last.set_horizontalalignment("right")
        bar.outline.set_linewidth(0.4)
        place.tick_params(labelsize=6, length=1.5, pad=1)
        place.set_xlabel(f"{name} [{label}]" if label else name, fontsize=6, labelpad=1)


def _caption(figure: Figure, group: Group, row: Row, cell: StoredCell, found: Scored) -> None:
    rule = ", ".join(map(str, PERCENTILES))
    of_class = f", class {group.class_names[found.k]}" if group.class_names else ""
    caption(
        figure,
        f"{row.name} on {group.title}{of_class}, fold {cell.spec['fold']}, seed {cell.spec['seed']}",
        f"cases at the {rule} % points of the readers' diversity v_R over {len(found.case_ids)} scored cases",
        "error: |mean − vote share of the readers|",
        notice=group.notice,
    )
