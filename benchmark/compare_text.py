"""A comparison in words, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .compare import Comparison
from .layout import ARROWS, count, fixed
from .ranking_layout import p_text
from .statistics.differences import ALPHA

if TYPE_CHECKING:
    from rich.console import Console


def sentences(found: Comparison) -> list[str]:
    """What the numbers say, one line each."""
    pair, (a, b) = found.pair, found.names
    means = found.found.means["value"]
    notice = found.sheet.group.notice
    at_s = f", S = {found.found.n_samples}" if found.found.n_samples else ""
    lines = [f"{found.sheet.group.title}" + (f" ({notice})" if notice else "")]
    lines.append(
        f"{found.metric}{ARROWS[found.found.direction]}{at_s}: {a} {fixed(means.iloc[0], 4)}, "
        f"{b} {fixed(means.iloc[1], 4)} "
        f"({count(int(pair['n_cases']), 'case')}, {count(int(pair['n_patients']), 'patient')})"
    )
    lines.append(f"  {_difference(found)}")
    lines.append(
        f"  Wilcoxon signed-rank test of patients' means: p {_equals(pair['p'])} for this pair alone"
        + (
            f", {_equals(found.p_table)} adjusted for the table's {count(found.n_table, 'pair')} (Holm)"
            if not math.isnan(found.p_table)
            else ", not adjusted: the pair is none of the table's"
        )
    )
    lines.append(f"  {verdict(found)}")
    lines.append(
        f"  effect sizes: {a} is better for {100 * pair['win_rate']:.0f} % of the patients (ties half); rank-biserial "
        f"{pair['rank_biserial']:+.2f}; median difference (Hodges–Lehmann) {fixed(pair['hodges_lehmann'], 4)}"
    )
    lines.append(f"  {_turning(found)}")
    if found.fallback:
        lines.append(f"  common mask, not one per reader: {', '.join(found.fallback)}")
    return lines


def _difference(found: Comparison) -> str:
    pair = found.pair
    what = "difference of the distances from 0" if found.found.direction == "target 0" else "difference"
    text = f"{what} {fixed(pair['difference'], 4)}"
    if math.isnan(pair["ci_low"]):
        return f"{text}; {pair['note']}"
    ends = f"[{fixed(pair['ci_low'], 4)}, {fixed(pair['ci_high'], 4)}]"
    return f"{text}, 95 % interval {ends} (bootstrap over patients, p {_equals(pair['p_bootstrap'])})"


def verdict(found: Comparison) -> str:
    """Whether there is a difference, by the adjusted test where there is one."""
    pair = found.pair
    p = pair["p"] if math.isnan(found.p_table) else found.p_table
    if math.isnan(p) or p > ALPHA:
        return "no significant difference is shown"
    by_rank = found.names[0] if pair["rank_biserial"] > 0 else found.names[1]
    if pair["better"] and pair["better"] != by_rank:
        return f"{by_rank} is significantly better for most patients, but {pair['better']} has the better mean"
    return f"{by_rank} is significantly better"


def _turning(found: Comparison) -> str:
    turning, n = found.turning, found.found.table.n
    if turning is None:
        return "the means are equal"
    better = found.pair["better"] or "the better mean"
    return f"the lead of {better} is gone without its {count(turning, 'most favourable case')} of {n}"


def _equals(p: float) -> str:
    return p_text(p) if p < 0.001 or math.isnan(p) else f"= {p_text(p)}"


def print_comparisons(found: Sequence[Comparison], reasons: Sequence[str], console: Console) -> None:
    """Sentences and the deciding cases of every comparison; then what could not be compared."""
    from rich.table import Table
    from rich.text import Text

    for one in found:
        head, *rest = sentences(one)
        console.print(Text(head, style="bold"))
        for line in rest:
            console.print(Text(line), soft_wrap=True)
        table = Table(box=None, padding=(0, 1), pad_edge=False)
        for i, name in enumerate(("case", "patient", *one.names, "difference", "speaks for")):
            table.add_column(Text(name), justify="right" if 2 <= i <= 4 else "left", no_wrap=i in (0, 1))
        for line in one.deciding().to_dict("records"):
            numbers = (fixed(line[key], 4) for key in ("a", "b", "difference"))
            table.add_row(*map(Text, (line["case_id"], line["patient_id"], *numbers, line["favours"])))
        if table.row_count:
            console.print(Text("  cases that decide it:"))
            console.print(table)
        console.print()
    for reason in reasons:
        console.print(Text(f"not compared: {reason}", style="dim"), soft_wrap=True)
