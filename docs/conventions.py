"""The worked example of docs/conventions.md: a case under every variant, explained from the fields of each variant."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from generate import several_classes, table, worked_case
from multirater.metrics import list_variants, score_case
from multirater.metrics.convention import CANONICAL, Convention
from multirater.metrics.variants import conventions_of, variant_summary

SHOWN = (
    "ged", "diversity_samples", "hm_iou", "dice_max_rater_to_sample", "dice_max_sample_to_rater", "dice_match",
    "dice_soft", "dice_rater", "ncc", "ci", "ece.full",
)  # fmt: skip
SEVERAL = ("ged", "hm_iou", "dice_match", "dice_mean", "dice_soft")
SHORT = {"dice_max_rater_to_sample": "dice_max r→s", "dice_max_sample_to_rater": "dice_max s→r",
         "diversity_samples": "diversity"}  # fmt: skip
_SAME = 5e-5  # what four digits do not show

FAMILY = {
    "ged": "energy distance and diversity", "hm": "matched sets", "dice": "Dice family", "map": "mean map",
    "rater": "per rater", "uncertainty": "NCC", "insight": "collective insight", "calibration": "calibration",
    "surface": "surfaces", "volume": "volume and consensus", "agreement": "agreement",
}  # fmt: skip

# What a field's value means, in words; a value that is not listed is printed as it is.
MEANING: dict[tuple[str, Any], str] = {
    ("distance", "dice"): "the distance is 1 − Dice, which is smaller than 1 − IoU between 0 and 1",
    ("empty_similarity", 0.0): "two empty masks count as a complete disagreement: agreeing on nothing costs as much as "
    "a miss, and an empty mask is not at distance 0 from itself",
    ("empty_similarity", "nan"): "a pair of empty masks has no value, and one such pair among the samples, or of a "
    "sample and a rater, makes the whole number nan",
    ("diagonal", "exclude"): "a mask is not compared with itself: the self terms grow by S/(S−1) and R/(R−1), so that "
    "the value can be negative",
    ("classes", "skip"): "a class absent from both maps is left out of the pair's mean, so that the denominator "
    "depends on what a method predicts",
    ("classes", "micro"): "classes are added up before the ratio: large classes dominate",
    ("pairs", "pooled"): "one ratio of counts summed over all pairs instead of the mean of the pairs' ratios: large "
    "masks dominate, and it is no expectation of a distance",
    ("sample_cap", 20): "only the first 20 samples are used, whatever was drawn",
    ("binarise", "sigmoid_left"): "the left mask of a pair goes through a second sigmoid, so that every probability "
    "above 0 is foreground there: a sample has a distance to itself, and the distance is not symmetric",
    ("missing_sample_policy", "error"): "with fewer samples than raters there is no value",
    ("rater_nan", "omit"): "among the raters a nan is left out",
    ("match_nan", 0.0): "a matrix with nan makes the assignment fail, which counts as 0 (S a multiple of R without "
    "weights; else there is no value)",
    ("empty_reference", 1.0): "an empty rater gives 1 whatever was predicted: false positives on it are free",
    ("each", "matched"): "`dice_each` shows values after the best assignment, in which swapped raters cannot be seen",
    ("each", "identity"): "`dice_each` pairs map r with rater r",
    ("binning", "mose"): "a pixel of probability 0 falls in no bin but counts in the denominator",
    ("binning", "metrics_reloaded"): "pixels of probability 0 are left out of bins and denominator",
    ("binning", "values"): "bins are closed below, [l, u)",
    ("binning", "torchmetrics"): "bins are closed below, [l, u), in float32, and probability 1 has a bin of its own",
    ("confidence", "top_evaluated"): "the confidence is that of the top label, and pixels whose top label is not "
    "evaluated fall in no bin",
    ("confidence", "top_rebuilt"): "the confidence is that of the top label, background included",
    ("region", "full"): "over all pixels, whose easy background makes the error small",
    ("ncc", "plain"): "plain division: a constant map gives nan, or noise",
    ("ncc", "variance"): "the correlation is that of variance maps, times (N − 1)/N",
    ("ci", "printed"): "the printed formula, which is no mean (equal parts x give x²), with pixel-wise variances",
    ("crps", "truncated"): "the score's integral stops three standard deviations from the mean",
    ("consensus", "lines"): "consensus Dice of the rows of a volume",
    ("surface", "monai"): "float32, and nan or infinity where a mask is empty, which a mean then drops or keeps",
    ("surface", "medpy"): "one percentile of both directions' distances together; an empty mask is an error",
    ("surface", "deepmind"): "border elements are weighted by their length or area",
    ("dtype", "float32"): "float32 digits",
    ("dtype", "float32_sum"): "float32 digits, added one by one",
    ("dtype", "given"): "the mean map keeps the precision of the probabilities",
}  # fmt: skip
WRITTEN: dict[str, str] = {  # for values that are numbers
    "bins": "{} bins", "thresholds": "thresholds {}", "entropy_epsilon": "{} is added to the map inside the entropy",
    "sample_cap": "only the first {} samples are used",
}  # fmt: skip

INTRO = """# One case under every convention

<!-- made by docs/generate.py and docs/conventions.py; edit those -->

Papers report "GED" or "Dice" and mean different numbers. Here one small case is scored under every named variant;
nothing but the convention changes between rows. `multirater score FILE.npz --variant all` prints the same for your
predictions.

The case: 4 raters on 32 × 32 pixels, three discs and one rater who **saw nothing**, and 24 samples, discs too, of which
every sixth is **empty** (nowhere above ½, though not zero). Most conventions differ in what they make of empty masks.

![The case, and how far the conventions lie apart](conventions.png)

<sub>Left: three raters (the fourth is empty) and six of the 24 probability maps with their masks (p > ½); the sixth has
none. Right: each metric under all variants; diamonds are canonical, the numbers the smallest and largest value.</sub>
"""


def page() -> str:
    binary, several = _binary(), _several()
    parts = [INTRO, "## Binary masks\n", _values(binary, SHOWN), _spread(binary), "## Why they differ\n"]
    parts += [_explained(variant, binary, several) for variant in list_variants() if variant != "canonical"]
    parts += ["## Several classes\n", _SEVERAL, _values(several, SEVERAL), _IDENTITY.format(**_identity()), _AGAIN]
    return "\n".join(parts)


_SEVERAL = """Class maps of three raters and four samples with the list 1, 2, 3; class 3 is three pixels wide in
one rater and one sample and absent elsewhere. Canonically a class that both maps lack is an agreement.
"""
_IDENTITY = """## What D-Persona's rule does, exactly

On binary masks `ged[dpersona]` = `ged` − (f_S − f_R)², with f_S and f_R the shares of empty samples and raters: here
{ged:.4f} − ({f_s:.4f} − {f_r:.4f})² = {want:.4f}. The rule cannot see empty masks: it lowers the value most where a
method draws nothing and the raters do, or the reverse. `empty_gap` stands beside GED for that reason.

## What S does

A sampler that draws uniformly from the raters themselves has `ged` = v_R / S in expectation: here {v_r:.4f} at S = 1,
{v_r16:.4f} at S = 16. `ged.debiased` is {debiased:.4f} on this case and does not depend on S in expectation.
"""
_AGAIN = """## Again

```
.venv/bin/python docs/generate.py
```

writes this page, its figure and [metrics.md](metrics.md). The case is made by `worked_case` in `docs/generate.py`.
"""


def _binary() -> dict[str, dict[str, Any]]:
    raters, probs = worked_case()
    return {v: score_case(raters, probs=probs, variant=v, reasons=True) for v in list_variants()}


def _several() -> dict[str, dict[str, Any]]:
    raters, samples = several_classes()
    return {v: score_case(raters, samples, classes=[1, 2, 3], variant=v, reasons=True) for v in list_variants()}


def _values(scores: dict[str, dict[str, Any]], shown: tuple[str, ...]) -> str:
    """One row per variant that changes something; changed values in bold."""
    canonical = scores["canonical"]
    rows, same = [], []
    for variant, values in scores.items():
        differing = [name for name in shown if _differs(values[name], canonical[name])]
        if variant != "canonical" and not differing:
            same.append(f"`{variant}`")
            continue
        cells = [f"**{_digits(values[n])}**" if n in differing else _digits(values[n]) for n in shown]
        rows.append([f"`{variant}`", *cells])
    text = table(["Variant", *(f"`{SHORT.get(name, name)}`" for name in shown)], rows)
    return text + (f"\nSame as canonical in these columns: {', '.join(same)}.\n" if same else "")


def _differs(a: float, b: float) -> bool:
    return math.isnan(a) != math.isnan(b) or abs(a - b) > _SAME


def _digits(value: float) -> str:
    return "nan" if math.isnan(value) else f"{value:.4f}"


def _spread(scores: dict[str, dict[str, Any]]) -> str:
    lines = []
    for name in SHOWN:
        known = {v: s[name] for v, s in scores.items() if not math.isnan(s[name])}
        rounded = {v: round(value, 4) for v, value in known.items()}  # of equal ones the first, canonical before all
        low, high = min(rounded, key=rounded.__getitem__), max(rounded, key=rounded.__getitem__)
        if known[high] - known[low] > _SAME:
            low_text, high_text = (f"{known[v]:.4f} (`{v}`)" for v in (low, high))
            lines.append(f"* `{name}`: from {low_text} to {high_text}")
    return "The same masks give\n\n" + "\n".join(lines) + "\n"


def _explained(variant: str, binary: dict[str, dict[str, Any]], several: dict[str, dict[str, Any]]) -> str:
    lines = [f"### `{variant}`\n", f"{variant_summary(variant)}.\n"]
    found: dict[str, list[str]] = {}
    for classes, families in (("", conventions_of(variant)), (", several classes", conventions_of(variant, True))):
        for family, convention in families.items():
            text = _words(convention)
            if text and not (classes and convention == conventions_of(variant)[family]):
                found.setdefault(text, []).append(FAMILY.get(family, family) + classes)
    lines += [f"* {', '.join(families)}: {text}." for text, families in found.items()]
    lines += [] if found else ["* No difference from canonical in the metrics of this suite."]
    reasons = sorted({f"`{name}` is nan: {binary[variant]['reasons'][name]}" for name in SHOWN
                      if math.isnan(binary[variant][name])})  # fmt: skip
    reasons += sorted({f"`{name}` of several classes is nan: {several[variant]['reasons'][name]}" for name in SEVERAL
                       if math.isnan(several[variant][name])})  # fmt: skip
    return "\n".join([*lines, *(f"* {reason}." for reason in reasons), ""])


def _words(convention: Convention) -> str:
    if convention == CANONICAL:
        return ""
    fields = convention.differences()
    smooth = {k: fields.pop(k) for k in ("smooth_num", "smooth_den") if k in fields}
    if convention.pairs == "pooled":
        fields.pop("empty_similarity", None)  # matters only where every mask of both sets is empty
    out = []
    for name, value in fields.items():
        key = "nan" if isinstance(value, float) and math.isnan(value) else value
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else key
        out.append(MEANING.get((name, key)) or WRITTEN.get(name, f"`{name}` = {{}}").format(shown))
    if len(smooth) == 2:
        score = f": two empty masks still score {convention.smooth_num / convention.smooth_den:g}"
        absent = convention.classes == "skip" and math.isnan(convention.empty_similarity)  # never reaches the ratio
        out.append(f"{convention.smooth_num:g} is added to numerator and denominator{'' if absent else score}")
    elif "smooth_den" in smooth:
        out.append(f"{convention.smooth_den:g} is added to the denominator alone: 0/0 becomes 0")
    elif smooth:
        out.append(f"{convention.smooth_num:g} is added to the numerator")
    return "; ".join(out)


def _identity() -> dict[str, float]:
    raters, probs = worked_case()
    names = ["ged", "empty_share_samples", "empty_share_raters", "diversity_raters", "ged.debiased"]
    ged, f_s, f_r, v_r, debiased = score_case(raters, probs=probs, metrics=names).values()
    return {"ged": ged, "f_s": f_s, "f_r": f_r, "want": ged - (f_s - f_r) ** 2, "v_r": v_r, "v_r16": v_r / 16,
            "debiased": debiased}  # fmt: skip


# -- figure ------------------------------------------------------------------------------------------


def draw(path: Path) -> None:
    """The masks, and the values of each metric under all variants."""
    import matplotlib.pyplot as plt
    from multirater.benchmark.figures.style import BLACK, BLUE, VERMILLION, paper_style

    raters, probs = worked_case()
    scores = _binary()
    with paper_style():
        figure = plt.figure(figsize=(7.2, 3.3), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.35))
        axes = left.subplots(3, 3)
        for r in range(3):
            axes[0, r].imshow(raters[r], cmap="Greys", vmin=0, vmax=1.6)
            axes[0, r].set_title(f"rater {r + 1}")
        for i in range(6):
            panel = axes[1 + i // 3, i % 3]
            panel.imshow(probs[i], cmap="Greys", vmin=0, vmax=1)
            if (probs[i] > 0.5).any():
                panel.contour(probs[i] > 0.5, levels=[0.5], colors=VERMILLION, linewidths=1)
            panel.set_title(f"sample {i + 1}" + ("" if (probs[i] > 0.5).any() else " (∅)"))
        for panel in axes.ravel():
            panel.set(xticks=[], yticks=[])
            panel.grid(visible=False)
            panel.spines[:].set_visible(True)
        chart = right.subplots()
        for k, name in enumerate(SHOWN):
            values = np.array([s[name] for v, s in scores.items() if v != "canonical"])
            known = np.append(values[~np.isnan(values)], scores["canonical"][name])
            chart.plot([known.min(), known.max()], [k, k], color="#BBBBBB", linewidth=1, zorder=1)
            chart.plot(known, np.full(len(known), k), "o", color=BLUE, markersize=4, alpha=0.6, zorder=2)
            chart.plot(scores["canonical"][name], k, "D", color=BLACK, markersize=4.5, zorder=3)
            same = known.max() - known.min() <= _SAME
            chart.annotate(f"{known.min():.3f}" if same else f"{known.min():.3f} – {known.max():.3f}", (1.02, k),
                           xycoords=("axes fraction", "data"), va="center")  # fmt: skip
        chart.set_yticks(range(len(SHOWN)), [SHORT.get(name, name) for name in SHOWN])
        chart.invert_yaxis()
        chart.set_xlim(-0.2, 1.02)
        chart.set_xlabel("value of the same masks under each variant")
        figure.savefig(path, metadata={"Software": None})
        plt.close(figure)
