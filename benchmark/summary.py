"""Compact tables of published results: the one that the README shows, and each seed on its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from .layout import COMMON_MASK

TRIVIAL = {
    "levels": "levels of its mean map",
    "own_threshold": "own threshold a reader",
    "area_ranks": "samples by area",
    "common_threshold": "one threshold",
}
HUMAN = {
    "human": "one reader against the rest",
    "oracle": "draws from the readers",
    "oracle_majority": "the true majority",
    "oracle_levels": "the true vote levels",
}


def _number(row: pd.DataFrame, metric: str, interval: bool = False) -> str:
    found = row[row.metric == metric]
    if found.empty or pd.isna(found.value.iloc[0]):
        return "n/a"
    text = f"{found.value.iloc[0]:.3f}"
    if interval and pd.notna(found.ci_low.iloc[0]):
        text += f" [{found.ci_low.iloc[0]:.3f}, {found.ci_high.iloc[0]:.3f}]"
    return text + (COMMON_MASK if found.fallback.iloc[0] else "")


def compact_table(leaderboard: Path) -> str:
    """A Markdown table, one row per method and output, of the canonical values.

    Args:
        leaderboard: ``leaderboard.csv`` of one data set, set, identity and preset.
    """
    frame = pd.read_csv(leaderboard, keep_default_na=False, na_values={"value": [""], "ci_low": [""], "ci_high": [""]})
    frame = frame[frame.variant == "canonical"]
    raters = [m for m in dict.fromkeys(frame.metric) if m.startswith("dice_rater[") and "{" not in m]
    columns: dict[str, Callable[[pd.DataFrame], str]] = {
        "S": lambda row: str(int(row[row.metric == "ged"].n_samples.iloc[0])),
        "GED ↓": lambda row: _number(row, "ged", interval=True),
        "Diversity": lambda row: _number(row, "diversity_samples"),
        "Dice soft ↑": lambda row: _number(row, "dice_soft"),
        "Dice max ↑": lambda row: _number(row, "dice_max_rater_to_sample"),
        "Dice match ↑": lambda row: _number(row, "dice_match"),
        **{f"Dice {m[11:-1]} ↑": (lambda row, m=m: _number(row, m)) for m in sorted(raters)},  # type: ignore[misc]
        "Dice mean ↑": lambda row: _number(row, "dice_rater", interval=True),
        "Gap ↑": lambda row: _number(row, "dice_rater.gap"),
    }
    lines = [["Method", "Output", *columns]]
    rank = {name: i for i, name in enumerate([*HUMAN, "diverse", "personalised", "consensus", *TRIVIAL])}
    keys = sorted(set(zip(frame.method, frame.output, strict=True)), key=lambda k: (k[0] != "human", k[0], rank[k[1]]))
    for method, output in keys:
        row = frame[(frame.method == method) & (frame.output == output)]
        shown = HUMAN.get(output) or (f"*{TRIVIAL[output]}*" if output in TRIVIAL else f"**{output}**")
        lines.append([method if method == "human" else f"`{method}`", shown, *(make(row) for make in columns.values())])
    lines.insert(1, ["---"] * 2 + ["---:"] * len(columns))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def seeds_table(values: pd.DataFrame) -> str:
    """Each seed as it came out: one row per method, output and seed.

    Args:
        values: case values as `load_results` gives them.
    """
    metrics = ["ged", "diversity_samples", "dice_soft", "dice_match", "dice_rater", "dice_rater.gap"]
    own = values[(values.method != "human") & values.metric.isin(metrics) & ~values.output.isin(TRIVIAL)]
    mean = own.groupby(["method", "output", "seed", "metric"], observed=True).value.mean().unstack("metric")
    lines = [["Method", "Output", "Seed", *metrics], ["---"] * 3 + ["---:"] * len(metrics)]
    for (method, output, seed), row in mean.iterrows():
        cells = ["n/a" if pd.isna(row.get(m)) else f"{row[m]:.3f}" for m in metrics]
        lines.append([f"`{method}`", str(output), str(seed), *cells])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"
