"""A published folder is a results folder: what it shows can be made again from what it holds."""

import re
import shutil
from pathlib import Path

import pytest
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
    assert compact_table(sheets) == (folder / "table.md").read_text()
    assert seeds_table(sheets) == (folder / "seeds.md").read_text()


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


def rows_of(text: str) -> list[list[str]]:
    """Fields of the lines of Markdown tables, heads and rules left out."""
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [line for line in lines if line[0] not in ("Method", "---")]


def test_compact_table_marks_fallbacks_and_leaves_nothing_undefined_as_a_number(fabricate):
    f = fabricate()
    f.cell("human", {"oracle": {"ged": [0.003, 0.005]}})
    consensus = {"ged": [0.3, 0.3], "dice_rater": [0.8, 0.9]}
    f.cell("m", {"consensus": consensus}, n_samples=1, fallback={"consensus": ["dice_rater"]})
    human, own = rows_of(compact_table(sheets_of(f.results)))
    assert human[:5] == ["human", "draws from the readers", "50", "0.004", "n/a"]
    assert own == ["`m`", "**consensus**", "1", "0.300", *["n/a"] * 4, "0.850†", "n/a"]


def test_each_configuration_and_table_has_rows_of_its_own(fabricate):
    f = fabricate()
    same = {"name": "a|b_c"}
    f.cell("net", {"diverse": {"ged": [0.1, 0.3]}}, options={"width": 8, **same})
    f.cell("net", {"diverse": {"ged": [0.5, 0.5]}}, options={"width": 16, **same})
    f.cell("net", {"diverse": {"ged": [0.6, 0.8]}}, options={"width": 16, **same}, seed=1)
    f.cell("one", {"diverse": {"ged": [0.9, 0.9]}}, overrides={"method": {"x": 1}})
    sheets = sheets_of(f.results)
    assert [(r[0], r[3]) for r in rows_of(compact_table(sheets))] == [
        ("`net` (method.width=16)", "0.600"),
        ("`net` (method.width=8)", "0.200"),
        ("`one`", "0.900"),
    ]
    assert [(r[0], r[2], r[3]) for r in rows_of(seeds_table(sheets))] == [
        ("`net` (method.width=16)", "0", "0.500"),
        ("`net` (method.width=16)", "1", "0.700"),
        ("`net` (method.width=8)", "0", "0.200"),
        ("`one`", "0", "0.900"),
    ]
    f.cell("net", {"diverse": {"ged": [0.4, 0.4]}}, fingerprint="bbbb", data_options={"set": "any"})
    sheets = sheets_of(f.results)
    for text in (compact_table(sheets), seeds_table(sheets)):
        titles = [line for line in text.splitlines() if line.startswith("**")]
        assert titles == [f"**{sheet.group.title}**".replace("_", r"\_") for sheet in sheets]
        assert text.count("0.400") == 1
        assert len(rows_of(text.split(titles[0])[1].split(titles[1])[0])) == 1
