"""``multirater prepare``: build or verify a data set, cache its arrays, and say what it is."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import click

from ...core.overrides import parse_sets
from .options import dataset_options, json_option

_MOST_PAIRED = 8  # raters whose pairs are listed


@click.command("prepare")
@dataset_options
@json_option("Print the facts as JSON.")
def command(dataset: str, root: str | None, sets: tuple[str, ...], as_json: bool) -> int:
    """Check DATASET, cache its arrays, and print cases, patients, raters, splits and how far the raters agree."""
    facts = prepare(opened(dataset, root, sets), quiet=as_json)
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        _print(facts)
    return 0


def opened(dataset: str, root: str | None, sets: tuple[str, ...], command: str = "prepare") -> Any:
    """The data set of a command line.

    Raises:
        UserError: unknown name, section, option or value.
    """
    from ...core.errors import unknown
    from ...datasets import DATASETS, open_dataset

    DATASETS.entry(dataset)
    # The other sections are named so that method.x is refused here as what it is, not as an option `method`.
    options = parse_sets(sets, default="dataset")
    for section in options:
        if section != "dataset":
            raise unknown(f"section in --set of {command}:", section, ["dataset"])
    given = {**options.get("dataset", {}), **({"root": root} if root is not None else {})}
    return open_dataset(dataset, **given)


@contextlib.contextmanager
def progress_bar(name: str, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr, if that is a terminal; called with done, total and what is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task(name, total=None)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{name}: {what}")

        yield show


def prepare(data: Any, quiet: bool = False) -> dict[str, Any]:
    """Prepare with a progress bar on stderr, then the facts of the data set."""
    from ..agreement import stored_agreement

    with progress_bar(f"preparing {data.name}", quiet) as show:
        cache = data.prepare(show)
        described = data.describe()
        found = stored_agreement(data, lambda done: show(done, len(data), "agreement of the raters"))
        written = data.write_splits()
    records, store = data.records, data.store
    return {
        "dataset": data.name,
        "notice": data.full_notice,
        "cache": str(cache),
        "cases": len(records),
        "patients": len({r.patient_id for r in records}),
        "raters": described.raters,
        "rater_ids": list(described.rater_ids),
        "identity": described.identity,
        "missing_masks": int((~store.rater_valid).sum()),
        "classes": described.classes,
        "class_names": list(store.meta.get("class_names", [])),
        "channels": described.channels,
        "size": list(described.size),
        "left_out": [],
        "masks_without_image": [],
        **data.leftovers(),
        "inter_rater_dice": found["pairwise_dice"],
        "agreement": found,
        "fingerprint": data.fingerprint,
        "splits": splits(data),
        "split_files": [str(path) for path in written],
    }


def splits(data: Any) -> list[dict[str, Any]]:
    """Sizes and hash of every fold of the chosen split."""
    patients = [r.patient_id for r in data.records]
    found = []
    for fold in range(data.folds):
        split = data.split(fold)
        row: dict[str, Any] = {"split": split.name, "fold": fold, "hash": split.hash}
        row |= {"shared_patients": len(split.shared), "selected_patients": len(split.selected)}
        row |= {part: len(indices) for part, indices in split.parts.items()}
        row |= {f"{part}_patients": len({patients[i] for i in indices}) for part, indices in split.parts.items()}
        found.append(row)
    return found


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ...datasets.splits import PARTS

    console = Console()
    if facts["notice"]:
        console.print(Text(facts["notice"], style="bold yellow"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    shown = {
        "data set": facts["dataset"],
        "cache": facts["cache"],
        "cases": f"{facts['cases']} of {facts['patients']} patients",
        "raters": f"{facts['raters']} ({', '.join(facts['rater_ids'])}), identity {facts['identity']}",
        "missing masks": facts["missing_masks"] or "none",
        "channels × size": " × ".join(map(str, [facts["channels"], *facts["size"]])),
        "foreground classes": _classes(facts["classes"], facts["class_names"]),
        **agreement_lines(facts["agreement"]),
        "fingerprint": facts["fingerprint"],
    }
    if facts["left_out"]:
        shown["left out"] = f"{len(facts['left_out'])} cases without a mask: {', '.join(facts['left_out'][:5])}" + (
            ", …" if len(facts["left_out"]) > 5 else ""
        )
    if facts["masks_without_image"]:
        orphans = facts["masks_without_image"]
        shown["not used"] = f"{len(orphans)} mask{'s' * (len(orphans) > 1)} without an image, for example {orphans[0]}"
    for key, value in shown.items():
        grid.add_row(key, Text(str(value)))
    console.print(grid)
    table = Table(title="cases (patients)", title_justify="left", box=None, pad_edge=False)
    for column in ("split", "fold", "train", "validation", "test", "hash"):
        table.add_column(column)
    for row in facts["splits"]:
        sizes = [f"{row[p]} ({row[f'{p}_patients']})" for p in PARTS]
        table.add_row(row["split"], str(row["fold"]), *sizes, row["hash"])
    console.print(table)
    lacking = sorted({p for row in facts["splits"] for p in PARTS if not row[p]})
    shared = max(row["shared_patients"] for row in facts["splits"])
    if shared:
        console.print(
            f"{shared} training patient{'s are' if shared > 1 else ' is'} in another part too: scores under this split "
            f"are too high",
            style="yellow",
        )
    if lacking:
        names = {"train": "training", "val": "validation", "test": "test"}
        console.print(
            f"some folds have no {' or '.join(names[p] for p in lacking)} case: the split needs more patients",
            style="yellow",
        )


def agreement_lines(found: dict[str, Any]) -> dict[str, str]:
    """Inter-rater Dice, Fleiss' kappa, votes and Dice of the pairs as lines for a reader."""
    if found["pairwise_dice"] is None:
        return {"inter-rater Dice": "n/a (one rater)"}
    lines = {"inter-rater Dice": f"{found['pairwise_dice']:.3f}"}
    kappas = [found["fleiss_kappa"], found["fleiss_kappa.full"]]
    if None not in kappas:
        lines["Fleiss' kappa"] = f"{kappas[0]:.3f} in the box around the raters, {kappas[1]:.3f} over all pixels"
    for mark, where in (("", "box"), (".full", "all pixels")):
        shares = found["vote_histogram" + mark]
        if None not in shares:
            lines[f"votes, {where}"] = ", ".join(f"{k}: {share:.2%}" for k, share in enumerate(shares))
    ids, square = found["rater_ids"], found["pair_dice"]
    if found["identity"] != "none" and 2 < len(ids) <= _MOST_PAIRED:
        pairs = [(a, b) for a in range(len(ids)) for b in range(a + 1, len(ids)) if square[a][b] is not None]
        lines["Dice of pairs"] = ", ".join(f"{ids[a]}-{ids[b]} {square[a][b]:.3f}" for a, b in pairs)
    return lines


def _classes(count: int, names: list[str]) -> str:
    numbered = [str(k + 1) for k in range(count)]
    return f"{count} ({', '.join(names)})" if names and names != numbered else str(count)
