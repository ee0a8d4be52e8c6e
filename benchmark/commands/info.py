"""``multirater info NAME``: the card of a method, data set, metric, preset or executor."""

from __future__ import annotations

import json
from typing import Any

import click

from ..cards import card
from ..catalogue import find
from .options import json_option


@click.command("info")
@click.argument("name")
@json_option("Print as JSON: a list of cards (names may exist in two kinds).")
def command(name: str, as_json: bool) -> int:
    """Paper, options with types and defaults, deviations from the authors' code, licence and how to get data."""
    cards = [{**card(kind, registered), **_here(kind, registered)} for kind, registered in find(name)]
    if as_json:
        click.echo(json.dumps(cards, indent=1, ensure_ascii=False, default=str))
        return 0
    for one in cards:
        _print(one)
    return 0


def _here(kind: str, name: str) -> dict[str, Any]:
    """What this machine knows of an entry beyond its card."""
    if kind != "datasets":
        return {}
    from ..agreement import known_agreements

    return {"prepared": known_agreements(name)}


def _print(one: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(Text(f"{one['name']}", style="bold"), Text(f"({one['kind']})"))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for key, value in one.items():
        if key not in ("name", "kind", "options", "deviations", "text", "prepared") and value not in ("", None, [], ()):
            facts.add_row(key.replace("_", " "), Text(_shown(value)))
    console.print(facts)
    for record in one.get("prepared", []):
        console.print(_prepared(record))
    if one.get("options"):
        options = Table(title="options", title_justify="left", box=None, pad_edge=False)
        for column in ("option", "type", "default", "meaning"):
            options.add_column(column, overflow="fold", no_wrap=column == "option")
        for option in one["options"]:
            options.add_row(*(Text(option[c]) for c in ("option", "type", "default", "meaning")))
        console.print(options)
    if one.get("deviations"):
        console.print(Text("deviations from the authors' code", style="italic"))
        for deviation in one["deviations"]:
            console.print(Text(f"• {deviation['subject']}"))
            for key in ("authors", "ours", "effect", "option"):
                if deviation[key]:
                    label = "restore with" if key == "option" else key
                    console.print(Text(f"    {label}: {deviation[key]}"))
    if one.get("text"):
        console.print(Text(one["text"]))
    console.print()


def _prepared(record: dict[str, Any]) -> Any:
    """How far the raters agree in what has been prepared on this machine."""
    from rich.table import Table
    from rich.text import Text

    from .prepare import agreement_lines

    options = ", ".join(f"{k}={v}" for k, v in record["options"].items() if v is not None)
    table = Table.grid(padding=(0, 2))
    table.title, table.title_justify = Text(f"prepared here: {options or 'defaults'}"), "left"
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    lines = {
        "cases": str(record["n_cases"]),
        "raters": f"{len(record['rater_ids'])} ({', '.join(record['rater_ids'])}), identity {record['identity']}",
        **agreement_lines(record),
        "fingerprint": record["fingerprint"],
    }
    for key, value in lines.items():
        table.add_row(key, Text(value))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
