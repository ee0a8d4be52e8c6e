"""Writes docs/metrics.md, docs/conventions.md and its figure, and docs/datasets.md, from the registries.

    .venv/bin/python docs/generate.py

Tests compare the pages with what this script makes; run it after a change of a metric, a variant or a data set.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from multirater.metrics import info_of, list_metrics, list_variants
from multirater.metrics.inputs import read_case
from multirater.metrics.registry import EMPTY_DISTANCE, EMPTY_MAPS, EMPTY_SIMILARITY, METRICS
from multirater.metrics.score import evaluate, missing_input
from multirater.metrics.variants import conventions_of, variant_summary
from numpy.typing import NDArray

DOCS = Path(__file__).resolve().parent
FIGURE = "conventions.png"
SEED = 20240229
_DIGITS = 1e-5  # a variant that changes less than this changes digits, not results

SECTIONS = {
    "2": "Samples against raters", "3": "Mean map against vote share", "4": "Maps meant for one rater",
    "5": "Calibration", "6": "Surfaces", "7": "Agreement of the raters", "8": "Human baselines",
    "9": "Other reported numbers", "10": "Legacy lists",
}  # fmt: skip

HEAD = ["Id", "Value", "Range", "Better", "Worst", "S", "Empty masks", "Needs", "From", "Changed by"]
EMPTY = {EMPTY_DISTANCE: "d(∅,∅) = 0", EMPTY_SIMILARITY: "sim(∅,∅) = 1", EMPTY_MAPS: "map(∅,∅) = 1"}

PREFACE = """# Metrics

<!-- made by docs/generate.py; edit that, or the tables in metrics/catalogue/ -->

Every metric with its canonical convention. `multirater list metrics` prints the ids, `multirater info ged` one card;
[conventions.md](conventions.md) shows on one case how far the published conventions lie apart.

Symbols: y_r mask of rater r of R; s_i sample i of S; d = 1 − IoU; c, v_S, v_R mean distance between samples and raters,
within the samples, within the raters; D[r, i] = Dice(y_r, s_i); p̄ mean of the samples' probabilities (of the masks
where there are none); q share of the raters' votes; m_r or p_r the mask or map meant for rater r.

* **Better**: ↑ higher, ↓ lower, 0 = zero is the target, – = neither. **Worst**: what replaces a value that the
  predictions leave undefined in a mean over cases; where the data leave it undefined, the case is left out. Both are
  counted.
* **S**: the expected value changes with the number of samples: compare at equal S only.
* **Empty masks**: d(∅,∅) = 0: two empty masks have distance 0, an empty and another mask 1. sim(∅,∅) = 1: similarity
  1, and 0 with any other mask. map(∅,∅) = 1: 1 where both thresholded maps are empty, 0 where one is.
* **Needs**: inputs beside the raters; a slash separates alternatives. **From**: *counts* can be computed from stored
  components (`multirater score --components`), *pixels* cannot.
* **Changed by**: the [variants](conventions.md) that give another value on at least one of fifteen small cases; in
  parentheses those that change it by less than 1e-5 (precision and tiny smoothing).
* *box*: over the box around the raters' masks grown by 16 pixels (10 mm where the spacing is known), which is the same
  for every method; `.full` is the same over all pixels. Lists over rater slots have `nan` where a rater is missing.

## Your predictions

```
multirater score mine.npz --variant all
multirater score study --raters 'gt/{case}_r{rater}.png' --samples 'pred/{case}_s{sample}.png' --csv values.csv
```

`multirater score --help` lists the arrays of `mine.npz`. In a folder, patterns say which file is what, as for the
[folder data set](folder.md): `--samples` (masks) or `--probs` (8-bit: 255 is 1; 16-bit: 65535; floats as they are),
`--rater-probs` with `{rater}`, `--mean-prob`. A rater without a file did not see the case, a mask without foreground is
an answer, and a case without its predictions is an error. The spacing comes from NIfTI headers, files of one case must
lie on one grid, and only one case is in memory at a time. `--csv` writes every value, `--summary-csv` the means, and
`--components` the counts behind them: a small file that can be scored again under another variant without any mask.
From Python: `score_case`, `score_cases`, `multirater.metrics.components`.

Values pooled over all cases (`dice_rater.pooled`, `micro_miou.pooled`, `cohens_kappa.pooled`, `ece.pooled` and others)
have no value per case; the command prints them apart.
"""


# -- cases -------------------------------------------------------------------------------------------


def disc(radius: float, row: float = 16.0, column: float = 16.0, size: int = 32) -> NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size]
    return np.asarray((y - row) ** 2 + (x - column) ** 2 < radius**2)


def worked_case() -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Raters 4×32×32, one of whom saw nothing, and probabilities 24×32×32 of samples, each sixth of them empty."""
    raters = np.stack([disc(5), disc(7, 16, 17), disc(9, 15, 16), np.zeros((32, 32), bool)])
    rng = np.random.default_rng(SEED)
    probs = np.zeros((24, 32, 32))
    for i in range(24):
        radius, row, column = rng.uniform(4, 10), *rng.normal(16, 1.2, 2)
        core, rim = disc(radius, row, column), disc(radius + 2.5, row, column)
        probs[i] = np.where(core, rng.uniform(0.7, 0.98), np.where(rim, 0.2, 0.0))
        if i % 6 == 5:
            probs[i] = np.where(rim, 0.3, 0.0)  # nowhere above 1/2: an empty mask
    return raters, probs


def several_classes() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Class maps of three raters and four samples with the classes 1, 2, 3; class 3 is in one map of each set."""
    raters = np.stack([disc(9) * 1 + disc(5), disc(8) * 1 + disc(6, 16, 18), disc(10) * 1])
    samples = np.stack([disc(9) * 1 + disc(4), disc(7) * 1, disc(10, 17, 17) * 1 + disc(6), np.zeros((32, 32), int)])
    for maps, which in ((raters, 0), (samples, 2)):
        maps[which][disc(2, 5, 5)] = 3
    return raters, samples


def small_cases() -> list[dict[str, Any]]:
    """Fifteen cases in which empties, absent classes, many samples, missing raters and personalised maps occur."""
    raters, probs = worked_case()
    labels, samples = several_classes()
    rng = np.random.default_rng(SEED)
    out: list[dict[str, Any]] = [
        {"raters": raters, "probs": probs, "rater_probs": probs[:4], "mean_prob": probs.mean(0)},
        {"raters": labels, "samples": samples, "classes": [1, 2, 3]},
        {"raters": labels, "probs": np.eye(4)[samples].transpose(0, 3, 1, 2), "classes": [1, 2, 3]},
        {"raters": raters[:3], "samples": probs[:2] > 0.5},
        {"raters": raters[3:], "probs": probs[5:7]},
        {"raters": raters[:3], "probs": np.full((2, 32, 32), 0.4), "rater_probs": np.zeros((3, 32, 32))},
        {"raters": raters.reshape(4, 4, 16, 16), "probs": probs[:3].reshape(3, 4, 16, 16), "spacing": (2.0, 1.0, 1.0)},
    ]
    for _ in range(8):
        y = rng.random((int(rng.integers(2, 5)), 12, 12)) < rng.uniform(0.1, 0.7)
        p = rng.random((int(rng.integers(2, 6)), 12, 12)) ** rng.uniform(0.5, 3)
        p[rng.random(p.shape) < 0.2] = 0
        y[0] &= rng.random() < 0.7
        p[0] *= rng.random() < 0.7
        out.append(
            {"raters": y, "probs": p, "rater_probs": rng.permutation(y + 0.0) * 0.8 + 0.1, "spacing": (1.0, 0.5)}
        )
    for case in out:
        if "probs" in case and "classes" not in case:
            p = case["probs"]
            case["mean_log"] = np.stack([np.log(1 - p + 1e-8).mean(0), np.log(p + 1e-8).mean(0)])
            case["mean_prob"] = p.mean(0)
            case["uncertainty"] = p.var(0)
    return out


# -- metrics.md ---------------------------------------------------------------------------------------


def changes() -> dict[str, dict[str, float]]:
    """Metric to the variants that change it and by how much at most; nan against a number counts as infinite."""
    found: dict[str, dict[str, float]] = {name: {} for name in list_metrics()}
    for case in small_cases():
        view = read_case(**case)
        several = len(view.classes) > 1
        canonical = conventions_of(None, several)
        names = [name for name in list_metrics() if missing_input(name, view.given) is None]
        plain = evaluate(view, names)
        for variant in list_variants()[1:]:
            one = view.again()
            one.conventions = conventions_of(variant, several)
            families = {family for family, convention in one.conventions.items() if convention != canonical[family]}
            families |= {"rater"} if "map" in families else set()  # the common mask is cut out of the mean map
            for name, value in evaluate(one, [n for n in names if info_of(n)["family"] in families]).items():
                difference = _difference(plain[name], value)
                if difference > 0:
                    found[name][variant] = max(found[name].get(variant, 0.0), difference)
    return found


def _difference(a: Any, b: Any) -> float:
    x, y = np.atleast_1d(np.array(a, dtype=float)), np.atleast_1d(np.array(b, dtype=float))
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    apart = np.abs(np.where(same, 0.0, x) - np.where(same, 0.0, y))
    return float(np.where(np.isnan(apart), math.inf, apart).max(initial=0.0))


def metrics_page() -> str:
    changed = changes()
    names = [name for name in list_metrics() if not info_of(name)["base"]]
    full = {info_of(name)["base"] for name in list_metrics()} - {""}
    parts = [PREFACE]
    heads = sorted({_head(name) for name in names}, key=int)
    for head in heads:
        parts.append(f"## {SECTIONS.get(head, f'Section {head}')}\n")
        rows = [_row(name, changed, name in full) for name in sorted(names, key=_order) if _head(name) == head]
        parts.append(table(HEAD, rows))
    parts.append(_variants_list())
    return "\n".join(parts)


def _head(name: str) -> str:
    return str(info_of(name)["section"]).partition(".")[0]


def _order(name: str) -> tuple[list[int], str]:
    return [int(part) for part in str(info_of(name)["section"]).split(".") if part.isdigit()], name


def _row(name: str, changed: Mapping[str, Mapping[str, float]], has_full: bool) -> list[str]:
    info = info_of(name)
    formula = _first_paragraph(METRICS.get(name)).rstrip(".")
    for words in (", over the box around the raters", " over the box around the raters"):
        formula = formula.replace(words, "")
    lists = {"rater": ["a list over rater slots"], "class": ["a list over classes"], "votes": ["a list over votes"]}
    notes = [info["unit"]] if info["unit"] and info["unit"] not in formula else []
    notes += lists.get(info["values"], [])
    notes += ["box"] if has_full else []
    value = f"{formula} ({', '.join(notes)})" if notes else formula
    low, high = map(_number, info["range"])
    better = {"higher": "↑", "lower": "↓", "target 0": "0", "none": "–"}[info["direction"]]
    worst = "–" if info["worst"] is None else _number(info["worst"])
    needs = "; ".join(" / ".join(f"`{n}`" for n in group.split("|")) for group in info["needs"]) or "–"
    large = [f"`{v}`" for v, difference in changed[name].items() if difference > _DIGITS]
    small = [f"`{v}`" for v, difference in changed[name].items() if difference <= _DIGITS]
    by = ", ".join([*large, *([f"({', '.join(small)})"] if small else [])])
    return [f"`{name}`" + (", `.full`" if has_full else ""), value, f"{low} to {high}", better, worst,
            "yes" if info["depends_on_samples"] else "", EMPTY.get(info["empty"], info["empty"]) or "–", needs,
            "pixels" if info["pixels"] else "counts", by or "–"]  # fmt: skip


def _first_paragraph(function: Callable[..., Any]) -> str:
    """What the docstring says first, without its references to the specification."""
    text = " ".join((function.__doc__ or "").strip().split("\n\n")[0].split())
    return re.sub(r" \(\d+\.\d+\)| of \d+\.\d+(?=\))", "", text)


def _number(value: float) -> str:
    return "∞" if value == math.inf else f"{value:.4g}"


def _variants_list() -> str:
    rows = [[f"`{name}`", variant_summary(name)] for name in list_variants()]
    return "## Variants\n\nWritten `metric[variant]`; `--variant NAME` or `score_case(..., variant=NAME)`.\n\n" + table(
        ["Variant", "Reproduces"], rows
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), "|" + " --- |" * len(head), *map(line, rows), ""])


def main() -> None:
    import conventions  # beside this file
    import dataset_pages

    (DOCS / "metrics.md").write_text(metrics_page(), encoding="utf-8")
    (DOCS / "conventions.md").write_text(conventions.page(), encoding="utf-8")
    conventions.draw(DOCS / FIGURE)
    (DOCS / "datasets.md").write_text(dataset_pages.page(), encoding="utf-8")


if __name__ == "__main__":
    main()
