"""``multirater cite``: entries that BibTeX reads, for everything that is registered and for what a table used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner
from multirater.benchmark import cite
from multirater.benchmark.cite import as_bibtex, bibliography, cite_names, cite_results
from multirater.benchmark.commands.cite import command
from multirater.core.errors import UserError
from multirater.datasets.registry import DATASETS
from multirater.methods.registry import METHODS
from multirater.metrics.registry import METRICS

Make = Callable[..., Any]
NEEDED = {
    "article": {"title", "author", "journal", "year"},
    "inproceedings": {"title", "author", "booktitle", "year"},
    "book": {"title", "author", "publisher", "year"},
    "misc": {"title"},
}


def fields(entry: str) -> tuple[str, dict[str, str]]:
    kind = re.match(r"@(\w+)\{", entry)
    assert kind
    return kind[1], dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, re.M))


def test_every_entry_has_its_fields_and_balanced_braces() -> None:
    entries = bibliography()
    assert len(entries) > 30
    for key, entry in entries.items():
        kind, found = fields(entry)
        assert NEEDED[kind] <= set(found), key
        assert entry.count("{") == entry.count("}"), key
        assert entry.isascii(), key  # classic BibTeX
        if kind != "book" and "eprint" in found:
            assert re.fullmatch(r"\d{4}\.\d{4,5}", found["eprint"]), key


def test_every_name_points_to_an_entry_and_every_entry_is_used() -> None:
    tables = [cite.METHODS, cite.DATASETS, cite.METRICS]
    used = {key for table in tables for keys in table.values() for key in keys} | set(cite.INTERVALS) | set(cite.RANKS)
    assert used == set(bibliography())
    assert set(cite.METHODS) <= set(METHODS.names())
    assert set(cite.DATASETS) <= set(DATASETS.names())
    roots = {name.split(".")[0] for name in METRICS.names()}
    assert {name.split(".")[0] for name in cite.METRICS} <= roots


def test_every_method_and_data_set_can_be_cited() -> None:
    theirs = [name for name in DATASETS.names() if DATASETS.get(name).citation]
    assert len(theirs) > 5
    for name in [*METHODS.names(), *theirs]:
        found = cite_names([name])
        assert any(name in one.used_for for one in found), name


def test_what_a_table_used(fabricate: Make) -> None:
    f = fabricate()
    for method, value in (("dpersona", 0.1), ("unet_soft", 0.2)):
        f.cell(
            method,
            {"diverse": {"ged": [value + i / 1000 for i in range(20)], "ncc": [0.5] * 20}},
            dataset="lidc-contours",
        )
    f.attempt(f.cell("tab", None, dataset="lidc-contours"), "error", "boom")
    found = {one.key: one.used_for for one in cite_results(f.results)}
    assert {"multirater", "wu2024dpersona", "ronneberger2015unet", "armato2011lung", "szekely2013energy"} <= set(found)
    assert "baumgartner2019phiseg" in found  # NCC
    assert "liao2023transformer" not in found  # nothing finished
    assert set(cite.RANKS) <= set(found)
    assert "dpersona" in found["wu2024dpersona"]
    text = as_bibtex(cite_results(f.results))
    keys = re.findall(r"^@\w+\{([^,]+),", text, re.M)
    assert len(keys) == len(set(keys)) == len(found)


def test_one_method_needs_no_rank_statistics(fabricate: Make) -> None:
    f = fabricate()
    f.cell("dpersona", {"diverse": {"ged": [0.1, 0.2]}})
    keys = {one.key for one in cite_results(f.results)}
    assert not keys & {*cite.RANKS, *cite.INTERVALS}


def test_command(fabricate: Make) -> None:
    runner = CliRunner()
    printed = runner.invoke(command, ["riga", "ged", "hd95.each"]).output
    assert "@misc{multirater-dataset-riga," in printed
    assert "% ged" in printed
    records = json.loads(runner.invoke(command, ["dpersona", "--json"]).output)
    assert [r["key"] for r in records] == ["multirater", "wu2024dpersona"]
    for names, said in ((["dpersna"], "did you mean 'dpersona'"), (["smoke"], "is one of the presets")):
        with pytest.raises(UserError, match=said):
            runner.invoke(command, names, catch_exceptions=False)
    f = fabricate()
    f.attempt(f.cell("tab", None), "error", "boom")
    with pytest.raises(UserError, match="nothing to cite yet"):
        cite_results(f.results)
