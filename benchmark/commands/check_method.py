"""``multirater check-method NAME``: the contract tests, on any registered method."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import click

from .options import json_option, list_option, names

if TYPE_CHECKING:
    from ..contract import Check

_STYLES = {"pass": "green", "fail": "bold red", "skip": "dim"}


@click.command("check-method")
@click.argument("name")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="METHOD.B=C",
    help="Override an option under method (or train, as train.lr).",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@list_option("--only", metavar="A,B", help="Comma list of checks; those they need run as well.")
@click.option("--size", type=click.IntRange(32), default=64, show_default=True, help="Side of the made images.")
@click.option("--traceback", "traces", is_flag=True, help="Print the traceback of every check that an error ended.")
@json_option("Print as JSON: the method, counts and a list of checks.")
def command(
    name: str, sets: tuple[str, ...], device: str, only: str | None, size: int, traces: bool, as_json: bool
) -> int:
    """Check a method against the contract of docs/adding-a-method.md: what it claims, it does.

    Runs on made data with the options of the method's smoke preset, seconds a check; third-party methods are found by
    their entry point. Exit code 0: no fault, 1: a fault, 2: wrong name or usage.
    """
    from rich.console import Console

    from ...core.overrides import parse_sets
    from ..contract import check_method

    overrides = parse_sets(sets, ("method", "train"), default="method")
    wanted = names(only) or None
    with Console(stderr=True).status("checking") as status, redirect_stdout(sys.stderr):  # stdout is the answer
        checks = check_method(
            name,
            overrides,
            device=device,
            size=size,
            only=wanted,
            tick=lambda check: status.update(f"checking {check}"),
        )
    counts = {outcome: sum(check.outcome == outcome for check in checks) for outcome in _STYLES}
    if as_json:
        document = {"method": name, "counts": counts, "checks": [check.as_dict() for check in checks]}
        click.echo(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        _print(name, checks, counts)
    if traces:
        for check in checks:
            if check.traceback:
                click.echo(f"\n-- {check.name}\n{check.traceback}", err=True)
    return 1 if counts["fail"] else 0


def _print(name: str, checks: list[Check], counts: dict[str, int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{name}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in ("check", "", "found"):
        table.add_column(column, no_wrap=column != "found", overflow="fold")
    for check in checks:
        style = _STYLES[check.outcome]
        table.add_row(
            Text(check.name), Text(check.outcome, style=style), Text(check.message, style=style * (style != "green"))
        )
    console = Console()
    console.print(table)
    seconds = sum(check.seconds for check in checks)
    console.print(f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped in {seconds:.0f} s")
