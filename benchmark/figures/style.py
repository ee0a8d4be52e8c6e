"""One look for all figures, colours that survive colour blindness and grey print, and files that stay the same."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.files import write_bytes, write_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

# Okabe and Ito (2008): distinguishable with every common form of colour blindness.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILLION, YELLOW, BLACK = "#56B4E9", "#D55E00", "#F0E442", "#000000"
GREY = "#777777"
SERIES = (BLUE, VERMILLION, GREEN, PINK, ORANGE, SKY, "#5D4037", "#8C8C00")
# On grey images the light half of the palette is legible, the dark half is not.
RATERS = (SKY, ORANGE, GREEN, PINK, YELLOW, VERMILLION, "#FFFFFF", BLUE)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DPI = 200
# Inches. A figure is printed at the width it is drawn for, so that its letters keep their size; the widths are those of
# IEEE's two-column pages, and within a millimetre or two those of most journals.
ONE_COLUMN, TWO_COLUMN = 3.5, 7.16
CAPTION_SIZE = 6.5

_RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same letters on every machine
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 9,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#333333",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.direction": "out",
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # letters stay letters: editable, searchable, accepted by journals
    "ps.fonttype": 42,
    "svg.hashsalt": "multirater",
    "savefig.dpi": DPI,
    "figure.dpi": DPI,
    "image.interpolation": "nearest",
}


@contextlib.contextmanager
def paper_style() -> Iterator[None]:
    """Matplotlib without a display, in the suite's style; nothing stays changed afterwards."""
    import matplotlib as mpl
    import seaborn as sns

    mpl.use("Agg", force=False)
    with mpl.rc_context(), sns.axes_style("ticks"):
        for key, value in _RC.items():
            mpl.rcParams[key] = value  # type: ignore[index]
        yield


def series_colour(i: int) -> str:
    return SERIES[i % len(SERIES)]


def look(i: int) -> dict[str, Any]:
    """Colour and marker of the i-th of many series: 64 pairs before one comes back."""
    return {"color": series_colour(i), "marker": MARKERS[(i + i // len(SERIES)) % len(MARKERS)]}


def rater_colour(i: int) -> str:
    return RATERS[i % len(RATERS)]


def caption(figure: Figure, *parts: str, notice: str = "") -> None:
    """Lines below the axes: what was drawn, of how much, and a notice of the data; wrapped to the figure's width.

    Args:
        figure: with the constrained layout, which keeps room for them.
        parts: sentences without a full stop, joined by semicolons; empty ones are skipped.
        notice: what must be said of the data (``image: simulated``), on a line of its own.
    """
    inches = figure.get_figwidth() * 0.984
    lines = _wrapped("; ".join(filter(None, parts)), inches) + _wrapped(notice, inches)
    figure.supxlabel("\n".join(lines), x=0.008, ha="left", fontsize=CAPTION_SIZE, color="#444444", linespacing=1.25)


def _wrapped(text: str, inches: float) -> list[str]:
    """Lines of a caption that fit, by the widths of the words in its letters."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, CAPTION_SIZE) <= inches:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def text_width(text: str, size: float) -> float:
    """Width in inches of a text in letters of a size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0]) / 72


def counted(n_cases: int, n_patients: int) -> str:
    """``247 cases of 156 patients``, in the singular where there is one."""
    return f"{n_cases} case{'s' * (n_cases != 1)} of {n_patients} patient{'s' * (n_patients != 1)}"


def short(name: str, width: int = 30) -> str:
    """A row's name in at most `width` letters, cut in the middle: options that were set by hand can be long.

    Configurations of one method begin alike and differ at the end; the CSV beside the figure holds the whole name.
    """
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[-tail:]}"


def _frame(figure: Figure) -> Bbox:
    """The figure's own box, so that its width is the one of the column; more only where something sticks out."""
    from matplotlib.transforms import Bbox

    own, tight = figure.bbox_inches, figure.get_tightbbox()
    slack, pad = 0.01, 0.04
    low = [min(o, t - pad) if t < o - slack else o for o, t in zip(own.min, tight.min, strict=True)]
    high = [max(o, t + pad) if t > o + slack else o for o, t in zip(own.max, tight.max, strict=True)]
    return Bbox([low, high])


def save(figure: Figure, table: pd.DataFrame, folder: Path, stem: str) -> list[Path]:
    """PNG, PDF and the CSV of what is drawn; without dates inside, so that equal figures are equal files."""
    import matplotlib.pyplot as plt

    # Placed and measured once: a tight bounding box asked of every file would lay the figure out again for each.
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # even one that does nothing makes `savefig` draw twice
    box = _frame(figure)
    written = []
    for form, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "ModDate": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=DPI, metadata=metadata, bbox_inches=box)
        path = folder / f"{stem}.{form}"
        write_bytes(path, buffer.getvalue())
        written.append(path)
    plt.close(figure)
    path = folder / f"{stem}.csv"
    write_text(path, table.to_csv(index=False, lineterminator="\n"))
    return [*written, path]
