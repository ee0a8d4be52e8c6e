"""The kinds of figures, in the order of the index: name, what it shows, whose it is, and the module that draws it.

A kind of a *table* has one figure a data set and is drawn by ``draw(sheet)``; one of a *method* has one for every row
of the table, ``draw(sheet, row)``; one of a *class* one for every row and class, ``draw(sheet, row, k)``. Each gives
the figure and a frame of what is drawn, or raises `source.LeftOut` with the reason why it does not apply.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from matplotlib.figure import Figure

Scope = Literal["table", "method", "class"]


@dataclass(frozen=True)
class Kind:
    """One kind of figure."""

    name: str
    said: str
    scope: Scope
    module: str = ""

    def drawing(self, *subject: Any) -> Callable[[], tuple[Figure, pd.DataFrame]]:
        """The drawing of one subject; the module is imported when it is called: listing needs no matplotlib."""
        return partial(_draw, self.module or self.name, subject)


def _draw(module: str, subject: tuple[Any, ...]) -> tuple[Figure, pd.DataFrame]:
    found: tuple[Figure, pd.DataFrame] = importlib.import_module(f".{module}", __package__).draw(*subject)
    return found


_ALL = (
    Kind("qualitative", "image, readers, samples, outputs per reader, mean, entropy and error of fixed cases", "class"),
    Kind("per_rater", "Dice of each reader with intervals", "table"),
    Kind("over_samples", "GED and Dice match over the number of samples, with a perfect sampler", "table"),
    Kind("confusion", "Dice of the output for one reader with every reader", "class"),
    Kind("latent", "codes of the samples and of the readers in two dimensions", "method"),
    Kind("reliability", "vote share over the mean map's probability, in the box and over the whole image", "class"),
    Kind("diversity", "diversity of the samples over that of the readers, case by case", "table"),
    Kind("cases", "distribution of the case values of every method", "table"),
    Kind("rank_stability", "ranks over bootstrap samples of the patients, and Kendall's tau", "table"),
    Kind("significance", "which differences are significant after Holm's correction", "table"),
    Kind("critical_difference", "mean ranks, with bars over what cannot be told apart", "table"),
    Kind("cost", "quality over training time, prediction time and memory", "table"),
    Kind("curves", "loss, its parts and the validation score over training", "method"),
)
KINDS = {kind.name: kind for kind in _ALL}
