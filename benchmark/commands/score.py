"""``multirater score``: metrics of predictions in an ``.npz`` file, without the rest of the suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..score import Row, ScoreFile, Scores


@click.command("score")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--variant", default="canonical", metavar="V|all", help="Convention of a released code, or all side by side."
)
@click.option("--metrics", metavar="A,B", help="Metric ids; default: all that the arrays allow.")
@click.option("--spatial-dims", type=click.IntRange(2, 3), default=2, show_default=True, help="3 for volumes.")
@click.option("--json", "as_json", is_flag=True, help="Print per-case and mean values as JSON; undefined is null.")
def command(file: Path, variant: str, metrics: str | None, spatial_dims: int, as_json: bool) -> int:
    """Score the predictions in FILE.npz.

    \b
    Arrays (a case axis N in front of all of them is optional):
      raters        R x H x W        booleans, or integers for a class map
      samples       S x H x W        masks of the samples, or
      probs         S x H x W        their probabilities (S x C x H x W, background first)
      rater_probs   R x H x W        optional: the output meant for each rater
      mean_prob     H x W            optional: the mean map, if it is not the mean of the samples
      rater_valid R, sample_weights S, rater_weights R, valid H x W, classes, case_ids, spacing: optional

    \b
    Example:
      np.savez("mine.npz", raters=masks, probs=probabilities)
      multirater score mine.npz --metrics ged,dice_match,dice_soft
    """
    from ...metrics.registry import info_of
    from ...metrics.variants import list_variants, variant_summary
    from ..score import as_json as to_json
    from ..score import read_score_file, same_as_canonical, score_file

    every = variant == "all"
    if not every:
        variant_summary(variant)  # an unknown name ends here
    wanted = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    for name in wanted or ():
        info_of(name)
    data = read_score_file(file, spatial_dims)
    if data.ignored:
        click.echo(f"not used: {', '.join(data.ignored)}", err=True)

    same: list[str] = []
    variants = [variant]
    if every:
        canonical = score_file(data, ["canonical"], wanted, strict=False)
        shown = wanted or list(canonical["canonical"].cases[0])
        same = [v for v in list_variants() if same_as_canonical(v, shown, data.several)]
        variants = [v for v in list_variants() if v not in same and v != "canonical"]
        scores = canonical | score_file(data, variants, wanted, strict=False)
    else:
        scores = score_file(data, variants, wanted, strict=wanted is not None)

    if as_json:
        click.echo(json.dumps(to_json(file, data, scores, same, every), indent=1, allow_nan=False, ensure_ascii=False))
        return 0
    _print(file, data, scores, same, wanted)
    return 0


def _print(file: Path, data: ScoreFile, scores: dict[str, Scores], same: list[str], wanted: list[str] | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..score import in_order, summarise

    found = {variant: summarise(scored, data.classes) for variant, scored in scores.items()}
    names = [name for rows in found.values() for name in rows]
    if len(scores) > 1 and not wanted:
        names = [name for name in names if not name.startswith("human.")]  # a long table; --metrics names them
    order = list(dict.fromkeys([*wanted, *names])) if wanted else in_order(names)
    side_by_side = len(scores) > 1

    count = len(data.case_ids)
    title = f"{file.name}: {count} case{'s' if count > 1 else ''}"
    if not side_by_side:
        title += f", variant {next(iter(scores))}"
    table = Table(
        title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False, show_edge=False
    )
    table.add_column("metric", no_wrap=True)
    if side_by_side:
        for variant in scores:
            table.add_column(variant, justify="right", no_wrap=True)
    else:
        for column in ("mean", "n", "undefined"):
            table.add_column(column, justify="right", no_wrap=True)
    for name in order:
        lines = next((rows[name] for rows in found.values() if name in rows), [])
        for i, line in enumerate(lines):
            per_variant = [rows[name][i] if name in rows else None for rows in found.values()]
            if side_by_side:
                table.add_row(Text(line.name), *(_cell(row) for row in per_variant))
            else:
                table.add_row(Text(line.name), _number(line.mean), str(line.n - line.undefined), str(line.undefined))
    console = Console(width=None if _is_terminal() else 250, highlight=False)
    console.print(table)
    if side_by_side:
        console.print("(k): undefined in k cases, which are left out of that mean.")
    if same:
        console.print(f"Same as canonical here: {', '.join(same)}.")
    for explanation in _explanations(scores, set(order), count):
        console.print(explanation, soft_wrap=True, markup=False)


def _is_terminal() -> bool:
    import sys

    return sys.stdout.isatty()


def _number(value: float) -> str:
    return "nan" if value != value else f"{value:.4f}"


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    return _number(row.mean) + (f" ({row.undefined})" if row.undefined else "")


def _explanations(scores: dict[str, Scores], shown: set[str], count: int) -> list[str]:
    """Why values are undefined (or which mask was used), each reason once, with the variants it holds for."""
    times: dict[tuple[str, str, str], int] = {}
    for variant, scored in scores.items():
        for reasons in scored.reasons:
            for name, reason in reasons.items():
                if name in shown:
                    times[variant, name, reason] = times.get((variant, name, reason), 0) + 1
    grouped: dict[tuple[str, int], dict[str, list[str]]] = {}
    for (variant, name, reason), n in times.items():
        grouped.setdefault((reason, n), {}).setdefault(variant, []).append(name)
    lines = []
    for (reason, n), per_variant in grouped.items():
        names = dict.fromkeys(name for found in per_variant.values() for name in found)
        where = "" if len(per_variant) == len(scores) else f" [{', '.join(per_variant)}]"
        lines.append(f"{', '.join(names)}{where}: {reason} ({n} of {count} cases)")
    return lines
