"""``multirater run``: train and evaluate cells; skip what is done."""

from __future__ import annotations

from pathlib import Path

import click

from ...core.errors import UserError
from ...core.overrides import parse_sets


def numbers(text: str, option: str) -> list[int]:
    """``"0,1,2"`` as integers."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [-1]
    if min(found) < 0:
        raise UserError(f"{option} {text!r} is not a list of whole numbers; give for example {option} 0,1,2")
    return found


@click.command("run")
@click.option("--method", "-m", required=True, help="Comma list of methods, or `all`.")
@click.option("--dataset", "-d", default="lidc-contours", show_default=True)
@click.option("--preset", "-p", default="quick", show_default=True, help="smoke, quick or paper.")
@click.option("--fold", default="0", show_default=True, help="Comma list of folds, or `all` (every fold of the split).")
@click.option("--seed", default="0", show_default=True, help="Comma list of seeds.")
@click.option(
    "--set", "sets", multiple=True, metavar="A.B=C", help="Override an option under dataset, method, train, eval."
)
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--executor", default="local", show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Cells at the same time.")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads a cell (default: cores / jobs).")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--figures/--no-figures", default=True, show_default=True, help="Draw the figures at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def command(
    method: str,
    dataset: str,
    preset: str,
    fold: str,
    seed: str,
    sets: tuple[str, ...],
    results: Path,
    executor: str,
    jobs: int,
    threads: int,
    device: str,
    figures: bool,
    as_json: bool,
) -> int:
    """Train and evaluate cells, print the table, update leaderboard and figures. What is done is skipped."""
    folds = None if fold == "all" else numbers(fold, "--fold")
    seeds = numbers(seed, "--seed")
    overrides = parse_sets(sets)
    from ..report import finish
    from ..runner import run

    report = run(
        [m.strip() for m in method.split(",") if m.strip()],
        dataset,
        preset,
        folds,
        seeds,
        overrides,
        results,
        executor,
        jobs,
        threads,
        device,
    )
    return finish(report, figures=figures, as_json=as_json)
