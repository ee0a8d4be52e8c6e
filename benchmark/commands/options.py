"""Options that several commands share: which cells, and how they are run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ...core.errors import UserError
from ...core.overrides import parse_sets

OVERWRITE = ("missing", "failed", "outdated", "all", "never")


def names(text: str | None) -> list[str]:
    """``"a, b"`` as its parts; what is empty does not count."""
    return [name for part in (text or "").split(",") if (name := part.strip())]


def numbers(text: str, option: str) -> list[int]:
    """``"0,1,2"`` as integers."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [-1]
    if min(found) < 0:
        raise UserError(f"{option} {text!r} is not a list of whole numbers; give for example {option} 0,1,2")
    return found


def list_option(*declarations: str, default: str | None = None, **others: Any) -> Callable[[Any], Any]:
    """An option that takes a comma list; given several times, its lists add up to one."""
    start: dict[str, Any] = {} if default is None else {"default": [default]}
    return click.option(*declarations, multiple=True, callback=_added, **start, **others)


def _added(context: click.Context, option: click.Parameter, lists: tuple[Any, ...]) -> Any:
    """All lists as one: texts as a text, lists that a type has read as a list; None if there are none."""
    if not lists:
        return None
    return ",".join(lists) if isinstance(lists[0], str) else [item for one in lists for item in one]


def _several(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


results_option = click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True)


def json_option(help: str = "Print as JSON.") -> Callable[[Any], Any]:
    """``--json``, which every command has that prints a table."""
    return click.option("--json", "as_json", is_flag=True, help=help)


dataset_options = _several(
    click.argument("dataset"),
    click.option("--root", metavar="PATH", help="Folder of your files (the same as --set dataset.root=PATH)."),
    click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="A=B",
        help="Option of the data set; the prefix dataset. may be left out.",
    ),
)

_cell_options = _several(
    list_option("--method", "-m", required=True, help="Comma list of methods, or `all`."),
    click.option("--dataset", "-d", default="lidc-contours", show_default=True),
    click.option("--preset", "-p", default="quick", show_default=True, help="smoke, quick or paper."),
    list_option(
        "--fold", default="0", show_default=True, help="Comma list of folds, or `all` (every fold of the split)."
    ),
    list_option("--seed", default="0", show_default=True, help="Comma list of seeds."),
    click.option(
        "--set", "sets", multiple=True, metavar="A.B=C", help="Override an option under dataset, method, train, eval."
    ),
    results_option,
)

engine_options = _several(
    click.option("--executor", default="local", show_default=True, help="See `multirater list executors`."),
    click.option("--jobs", type=click.IntRange(1), help="Cells at the same time (default: 1, or one a GPU slot)."),
    click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads a cell (default: cores / jobs)."),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    list_option("--gpus", metavar="0,1", help="local: the GPUs that may be used, one cell each."),
    click.option("--per-gpu", type=click.IntRange(1), default=1, show_default=True, help="local: cells a GPU."),
    click.option("--time", "minutes", type=click.IntRange(1), help="Time limit of a job in minutes."),
    click.option("--memory", "memory_gb", type=click.FloatRange(0.1), help="Memory of a job in GB."),
    click.option(
        "--slurm", "scheduler", multiple=True, metavar="KEY=VALUE", help="Option of sbatch, such as partition=gpu."
    ),
    click.option("--script-form", "form", type=click.Choice(["list", "sbatch"]), default="list", show_default=True),
    click.option("--output", type=click.Path(path_type=Path), help="script: write to this file."),
    click.option("--retries", type=click.IntRange(0), default=0, help="More attempts for a method that raised."),
    click.option("--fail-fast", is_flag=True, help="Start no new cell after a failure."),
    click.option(
        "--stall", type=click.FloatRange(1), help="Seconds without a sign of life that end a cell (default: 3600)."
    ),
)


overwrite_option = click.option(
    "--overwrite",
    type=click.Choice(OVERWRITE),
    default="missing",
    show_default=True,
    help="Which cells to run: without result; also failed; also of other code; all afresh; only untried.",
)


def _request(method: str, dataset: str, preset: str, fold: str, seed: str, sets: tuple[str, ...]) -> dict[str, Any]:
    """The first arguments of `run` and `plan`."""
    return {
        "methods": names(method),
        "dataset": dataset,
        "preset": preset,
        "folds": None if fold == "all" else numbers(fold, "--fold"),
        "seeds": numbers(seed, "--seed"),
        "overrides": parse_sets(sets),
    }


def settings(
    executor: str,
    jobs: int | None,
    threads: int,
    device: str,
    gpus: str | None,
    per_gpu: int,
    minutes: int | None,
    memory_gb: float | None,
    scheduler: tuple[str, ...],
    form: str,
    output: Path | None,
    overwrite: str,
    retries: int,
    fail_fast: bool,
    stall: float | None,
) -> dict[str, Any]:
    """The fields of `Settings`."""
    from ..policy import Overwrite

    pairs = [text.partition("=") for text in scheduler]
    for (key, equals, _), text in zip(pairs, scheduler, strict=True):
        if not key or not equals:
            raise UserError(f"--slurm {text!r} is not KEY=VALUE; give for example --slurm partition=gpu")
    found = {
        "executor": executor,
        "jobs": jobs,
        "threads": threads,
        "device": device,
        "gpus": tuple(str(n) for n in numbers(gpus, "--gpus")) if gpus else (),
        "per_gpu": per_gpu,
        "minutes": minutes,
        "memory_gb": memory_gb,
        "options": {key: value for key, _, value in pairs},
        "form": form,
        "output": output,
        "overwrite": Overwrite(overwrite),
        "retries": retries,
        "fail_fast": fail_fast,
    }
    return found if stall is None else {**found, "stall": stall}


def cell_options(command: Callable[..., int]) -> Any:
    """Which cells: the command gets ``asked``, the first arguments of `run` and `plan`, and ``results``."""

    @functools.wraps(command)
    def called(
        method: str, dataset: str, preset: str, fold: str, seed: str, sets: tuple[str, ...], **others: Any
    ) -> int:
        return command(asked=_request(method, dataset, preset, fold, seed, sets), **others)

    return _cell_options(called)
