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

# Okabe and Ito (2008): distinguishable with every common form of colour blindness.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILLION, YELLOW, BLACK = "#56B4E9", "#D55E00", "#F0E442", "#000000"
GREY = "#777777"
SERIES = (BLUE, VERMILLION, GREEN, PINK, ORANGE, SKY, BLACK, YELLOW)
# On grey images the light half of the palette is legible, the dark half is not.
RATERS = (SKY, ORANGE, GREEN, PINK, YELLOW, VERMILLION, "#FFFFFF", BLUE)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DPI = 200

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


def rater_colour(i: int) -> str:
    return RATERS[i % len(RATERS)]


def save(figure: Figure, table: pd.DataFrame, folder: Path, stem: str) -> list[Path]:
    """PNG, PDF and the CSV of what is drawn; without dates inside, so that equal figures are equal files."""
    import matplotlib.pyplot as plt

    # Placed and measured once: a tight bounding box asked of every file would lay the figure out again for each.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    box = figure.get_tightbbox().padded(0.04)
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
