"""A published folder is a results folder: what it shows can be made again from what it holds."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from multirater.benchmark.collect import load_results
from multirater.benchmark.leaderboard import render, sheets_of
from multirater.benchmark.publish import publish
from multirater.benchmark.summary import compact_table, seeds_table
from multirater.core.errors import UserError

ROOT = Path(__file__).parents[2]
PUBLISHED = sorted(p.parent for p in (ROOT / "results" / "published").glob("*/index.json"))


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda p: p.name)
def test_tables_follow_from_the_records(folder, tmp_path):
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    sheets = sheets_of(copy)
    assert render(sheets, "csv") == (folder / "leaderboard.csv").read_text()
    assert render(sheets, "md") == (folder / "leaderboard.md").read_text()
    assert compact_table(folder / "leaderboard.csv") == (folder / "table.md").read_text()
    assert seeds_table(load_results(copy)) == (folder / "seeds.md").read_text()


def test_the_readme_shows_the_published_table():
    readme = (ROOT / "README.md").read_text()
    rows = (ROOT / "results" / "published" / "quick-all" / "table.md").read_text().splitlines()
    shown = [line for line in readme.splitlines() if re.match(r"\| (human|`)", line) and "[" in line]
    assert len(shown) >= 10
    assert [row for row in shown if row not in rows] == []


def test_every_picture_and_file_the_readme_names_is_there():
    readme = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_publishing_never_touches_what_it_reads(tmp_path):
    source = tmp_path / "r"
    source.mkdir()
    (source / "index.json").write_text('{"schema": {"name": "multirater-results", "version": 1}}')
    for target in (source, source / "inside", source.parent):
        with pytest.raises(UserError, match="neither may lie in the other"):
            publish(source, target)
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no publication"):
        publish(source, other)
    with pytest.raises(UserError, match="no finished result"):
        publish(source, tmp_path / "new")
    assert (other / "precious.txt").exists()


def test_compact_table_marks_fallbacks_and_leaves_nothing_undefined_as_a_number(tmp_path):
    rows = [
        ("human", "oracle", "ged", 50, 0.004, 0.003, 0.005, ""),
        ("m", "consensus", "ged", 1, 0.3, "", "", ""),
        ("m", "consensus", "dice_rater", 1, 0.85, 0.8, 0.9, "common mask"),
    ]
    frame = pd.DataFrame(rows, columns="method output metric n_samples value ci_low ci_high fallback".split())
    frame["variant"] = "canonical"
    frame.to_csv(tmp_path / "leaderboard.csv", index=False)
    lines = compact_table(tmp_path / "leaderboard.csv").splitlines()
    assert lines[2].startswith("| human | draws from the readers | 50 | 0.004 [0.003, 0.005] | n/a")
    assert lines[3] == "| `m` | **consensus** | 1 | 0.300 | n/a | n/a | n/a | n/a | 0.850 [0.800, 0.900]† | n/a |"
