"""The tables that say how firm an order is: ranks under all schemes, their spread, and the distance to the best."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from ..core.errors import UserError
from .columns import BY_METRIC, Column
from .layout import (
    COMMON_MASK_NOTE,
    Entry,
    Table,
    TableLine,
    count,
    fixed,
    head,
    name_of,
    number,
    output_of,
    samples_of,
)
from .ranked import TRACKS, Ranked, Track, ranked
from .sheet import Sheet
from .statistics import kendall_tau, ranks_of
from .statistics.differences import ALPHA
from .statistics.order import ranks_with_missing

MOVES = "⇅"
_HEADS = ["method", "output", "S", "value", "mean", "median", "per case", "by tests", "rank 95 %", "P(first)"]
_HEADS += ["minus best", "p", "wins"]


def ranking_tables(sheet: Sheet) -> list[Table]:
    """One table for each primary metric of each track that at least two methods can be compared by.

    Where methods with fewer samples cannot be ranked by GED, one more by ``ged.debiased``, which S does not move.
    """
    found = []
    for track in TRACKS.values():
        for metric in (*track.primary, *_at_any_s(sheet, track)):
            if not sheet.has(metric) or (track.name == "personalised" and not sheet.show_raters):
                continue
            try:
                compared = ranked(sheet, metric, track)
            except UserError:
                continue  # nobody is ranked; the table of the track shows who is there
            if len(compared.names) > 1:
                found.append(ranking_table(sheet, compared, track.name))
    return found


def _at_any_s(sheet: Sheet, track: Track) -> tuple[str, ...]:
    if track.name != "diversified":
        return ()
    try:
        left_out = ranked(sheet, "ged", track).left_out
    except UserError:
        return ()
    fewer = [line for line, why in left_out.items() if why.startswith("S = ")]
    return ("ged.debiased",) if any(sheet.score(line, "ged.debiased") for line in fewer) else ()


def ranking_table(sheet: Sheet, found: Ranked, track: str = "") -> Table:
    """Ranks, their stability and the paired comparison with the best, sorted by the canonical rank."""
    column = BY_METRIC.get(found.metric, Column(found.metric, found.metric, ""))
    ranks = found.ranks.set_index("method")
    stable = found.stability().summary().set_index("method")
    line_of = dict(zip(found.names, found.lines, strict=True))
    lines: list[TableLine] = []
    for name in found.order:
        line, rank, spread = line_of[name], ranks.loc[name], stable.loc[name]
        low, high = math.floor(spread["rank_low"]), math.ceil(spread["rank_high"])
        texts = [
            name_of(sheet, line),
            output_of(sheet, line),
            samples_of(sheet, line),
            number(sheet, line, column, interval=True),
            f"{rank['rank_mean']}{MOVES if rank['moves'] else ''}",
            *(str(rank[f"rank_{scheme}"]) for scheme in ("median", "rank", "test")),
            str(low) if low == high else f"{low}–{high}",
            f"{spread['p_first']:.2f}",
            *_against(found, name, column.digits),
        ]
        lines.append(("method", [Entry(text, i == 3 and name in found.best) for i, text in enumerate(texts)]))
    title = f"Ranks by {head(column)}" + (f" (track {track})" if track else "")
    heads = [*_HEADS]
    heads[3] = head(column)
    return Table(title, heads, lines, _notes(sheet, found))


def _against(found: Ranked, name: str, digits: int) -> list[str]:
    """Difference to the best with its interval, adjusted p, and the share of patients where it beats the best."""
    if name == found.best[0]:
        return ["best", "", ""]
    pair = found.to_best.loc[name]
    text = fixed(pair["difference"], digits)
    if not math.isnan(pair["ci_low"]):
        text += f" [{fixed(pair['ci_low'], digits)}, {fixed(pair['ci_high'], digits)}]"
    return [text, p_text(float(pair["p_holm"])), f"{100 * pair['win_rate']:.0f} %"]


def p_text(p: float) -> str:
    """A p-value as it is printed: three decimals, or less than 0.001; more where three would read 0.050."""
    if math.isnan(p):
        return "n/a"
    text = "<0.001" if p < 0.001 else f"{p:.3f}"
    return f"{p:.5f}" if text == "0.050" else text


def _notes(sheet: Sheet, found: Ranked) -> list[str]:
    table, k = found.table, len(found.names)
    notes = [
        "mean (canonical), median: rank of the mean, of the median over cases; per case: rank of the mean of the ranks "
        "in every case; by tests: rank by how many methods are significantly worse (one-sided Wilcoxon)"
        + (f"; {MOVES} the schemes disagree" if found.ranks["moves"].any() else ""),
        "rank 95 %, P(first): of the rank by the mean in 1,000 bootstrap samples of the patients",
        f"minus best: mean difference to the best with its 95 % interval; p: Wilcoxon signed-rank test of patients' "
        f"means against the best, adjusted for all {k * (k - 1) // 2} pairs (Holm); wins: share of patients where it "
        f"beats the best, ties half",
    ]
    if any(getattr(sheet.score(line, found.metric), "fallback", "") for line in found.lines):
        notes.append(COMMON_MASK_NOTE)
    if found.metric == "ged.debiased" and len({sheet.samples(line) for line in found.lines}) > 1:
        notes.append(
            "GED deb. assumes independent draws; fixed sets (one map a reader, members of an ensemble) are favoured: "
            "a set equal to the readers' masks gets -v/(R-1), v their diversity, below the 0 of a perfect sampler"
        )
    if found.direction == "target 0":
        notes.append("differences are of the distances from 0, case by case")
    stable = found.stability()
    low, middle, high = stable.tau_quartiles
    if not math.isnan(middle):
        text = (
            f"order in the bootstrap samples and this one: Kendall's τ {middle:.2f} (quartiles {low:.2f}, {high:.2f})"
        )
        notes.append(text + (f"; {stable.excluded} samples with all tied left out" if stable.excluded else ""))
    test = found.friedman
    if test.note:
        notes.append(f"Friedman: {test.note}")
    else:
        verdict = "the methods differ" if test.significant else "no difference between the methods is shown"
        notes.append(
            f"Friedman (Iman–Davenport), {test.n} patients: F = {test.statistic:.1f}, p {_is(test.p)}: {verdict}"
        )
    without = found.without_a_rater
    if without is not None and without.smallest[0]:
        rater, tau = without.smallest
        notes.append(f"order with one reader left out: Kendall's τ at least {tau:.2f} (without {rater})")
    notes += _seed_notes(sheet, found)
    least = 2.0 ** (1 - table.n_clusters)
    if least * (k * (k - 1) // 2) > ALPHA:
        notes.append(f"with {count(table.n_clusters, 'patient')} no difference among {k} methods can be significant")
    notes += _left_out(sheet, found)
    return notes


def _is(p: float) -> str:
    return p_text(p) if p < 0.001 else f"= {p:.3f}"


def _seed_notes(sheet: Sheet, found: Ranked) -> list[str]:
    """Kendall's τ of the order of every single seed, where all methods have the same ones."""
    means = [sheet.seed_means(line, found.metric) for line in found.lines]
    seeds = {sheet.row(line).seeds for line in found.lines}
    if len(seeds) > 1:
        count = sorted({len(s) for s in seeds})
        return [f"methods have {count[0]} to {count[-1]} seeds each" if len(count) > 1 else "methods have other seeds"]
    uneven = [sheet.row(line).name for line in found.lines if sheet.row(line).uneven_seeds]
    if uneven:
        return [f"seeds have results of other folds, so no order of single seeds: {', '.join(uneven)}"]
    (of_all,) = seeds
    if len(of_all) < 2 or any(m is None or np.isnan(m).any() for m in means):
        return []
    loss = found.table.loss(np.stack([m for m in means if m is not None])).T  # seeds×k
    tau = kendall_tau(ranks_with_missing(loss), ranks_of(found.table))
    shown = ", ".join("n/a" if math.isnan(t) else f"{t:.2f}" for t in tau)
    return [f"order of single seeds ({', '.join(map(str, of_all))}) against this one: Kendall's τ {shown}"]


def _left_out(sheet: Sheet, found: Ranked) -> list[str]:
    """Who is not ranked and why; other outputs of a method that is ranked are no exclusions."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for line, why in found.left_out.items():
        if not why.startswith("the method competes with"):
            reasons[why].append(sheet.row(line).name)
    return [f"not ranked: {', '.join(dict.fromkeys(names))} ({why})" for why, names in sorted(reasons.items())]
