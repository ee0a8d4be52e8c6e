"""LaTeX and HTML that hold whatever a name holds: checked as LaTeX reads it, and compiled where pdflatex is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multirater.benchmark.layout import Entry, Table
from multirater.benchmark.leaderboard import render, sheets_of
from multirater.benchmark.markup import _tex, html_table, latex, markdown

Make = Callable[..., Any]
HOSTILE = r"50% & $x_1$ #{a} \b ~^ <i> |¦ β Ω ≈ [k] é ñ 中 “q” n-2 -0.5"
N = 30


@pytest.fixture(scope="module")
def text(fabricate_at: Make, tmp_path_factory: pytest.TempPathFactory) -> str:
    f = fabricate_at(tmp_path_factory.mktemp("hostile"))
    rng = np.random.default_rng(0)
    for i, name in enumerate((HOSTILE, "[plain]")):
        values = {"ged": list(rng.normal(0.2 + i / 10, 0.01, N)), "dice_soft": list(rng.normal(0.8, 0.01, N))}
        each = {"r_1": [0.5 + i / 10] * N, "r&2": [0.6] * N}
        outputs = {"diverse": values, "personalised": {"dice_rater.each": each, "dice_rater": [0.55 + i / 20] * N}}
        f.cell("net", outputs, options={"name": name}, rater_ids=("r_1", "r&2"), notice=HOSTILE)
    for i in range(30):  # more lines than a page holds
        f.cell(f"m{i:02d}", {"diverse": {"ged": list(rng.normal(0.3, 0.01, N))}, "levels": {"ged": [0.4] * N}})
    return render(sheets_of(f.results), "tex")


def unescaped(line: str, what: str) -> list[str]:
    return re.findall(rf"(?<!\\)(?:\\\\)*{re.escape(what)}", line)


def test_latex_is_balanced_and_escaped(text: str) -> None:
    depth = 0
    for line in text.splitlines():
        bare = re.sub(r"\\[\\{}]", "", line) if not line.startswith("%") else ""
        depth += bare.count("{") - bare.count("}")
        assert depth >= 0, line
    assert depth == 0
    body = text[text.index(r"\begin{document}") :]
    assert not [line for line in body.splitlines() if unescaped(line, "%") and not line.endswith(r"\fitted{%")]
    assert not [line for line in body.splitlines() if unescaped(line, "#") or len(unescaped(line, "$")) % 2]
    assert not [c for c in text if ord(c) > 255]
    assert body.count(r"\begin{tabular}") == body.count(r"\end{tabular}}") > 6


def test_latex_rows_have_as_many_fields_as_columns(text: str) -> None:
    tables = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.S)
    assert len(tables) > 6
    for columns, body in tables:
        for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
            assert rule in body
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert 2 <= len(rows) <= 47
        assert {len(unescaped(row, "&")) + 1 for row in rows} == {len(columns)}
        assert not [row for row in rows if row.lstrip().startswith("[")]


def test_marks_and_arrows_become_commands() -> None:
    assert _tex("GED ↓ 0.1† ≈ -0.5 n-2 a_b 50 %") == (r"GED $\downarrow$ 0.1$\dagger$ $\approx$ $-$0.5 n-2 a\_b 50 \%")
    assert _tex("βΩΡ中") == r"$\beta$$\Omega$P[U+4E2D]"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(text: str, tmp_path: Path) -> None:
    (tmp_path / "board.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "board.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300, check=False)
    log = (tmp_path / "board.log").read_text(encoding="latin-1")
    assert done.returncode == 0, log[-2000:]
    assert (tmp_path / "board.pdf").stat().st_size > 10_000
    wide = [float(w) for w in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\) in paragraph.*tabular", log)]
    assert not wide


def table() -> Table:
    lines = [("human", [Entry(HOSTILE), Entry("1")]), ("method", [Entry("a|b_c*"), Entry("0.5", bold=True)])]
    return Table("t", ["method", "GED ↓"], lines)  # type: ignore[arg-type]


def test_markdown_keeps_its_columns() -> None:
    rows = markdown(table()).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert "**0.5**" in rows[-1]
    assert r"a\|b\_c\*" in rows[-1]


def test_html_reads_back_as_the_entries() -> None:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.fields: list[str] = []

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag in ("td", "th"):
                self.fields.append("")

        def handle_data(self, data: str) -> None:
            if data.strip():
                self.fields[-1] += data

    reader = Reader()
    reader.feed(html_table(table()))
    assert reader.fields == ["method", "GED ↓", HOSTILE, "1", "a|b_c*", "0.5"]


def test_html_is_one_file_without_network(fabricate: Make) -> None:
    f = fabricate()
    f.cell("net", {"diverse": {"ged": [0.2] * N}})
    page = render(sheets_of(f.results), "html")
    assert page.startswith("<!doctype html>")
    assert not re.findall(r"(?:src|href)\s*=", page)
    assert "http" not in page


def test_long_latex_tables_are_cut_between_methods() -> None:
    lines = [("method", [Entry(f"m{i // 4}"), Entry(str(i))]) for i in range(100)]
    parts = latex(Table("t", ["method", "x"], lines)).split(r"\begin{tabular}")[1:]  # type: ignore[arg-type]
    assert len(parts) == 3
    names = [re.findall(r"^(m\d+) &", part, re.M) for part in parts]
    assert sum(map(len, names)) == 100
    assert not set(names[0]) & set(names[1])
