"""Tables as Markdown, LaTeX (booktabs) or HTML text."""

from __future__ import annotations

import html
import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence

from .layout import Entry, Table, TableLine

_TEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
_TEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\to$"}
_TEX |= {"†": r"$\dagger$", "‡": r"$\ddagger$", "§": r"\S{}", "±": r"$\pm$", "−": "$-$", "·": r"$\cdot$", "≥": r"$\ge$"}
_TEX |= {">": "$>$", "<": "$<$", "…": r"\dots{}", "×": r"$\times$", "≈": r"$\approx$", "⇅": r"$\updownarrow$"}
_TEX |= {
    "‖": r"$\|$",
    "¶": r"\P{}",
    "–": "--",
    "—": "---",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    '"': r"\textquotedbl{}",
}
_TEX |= {
    "≤": r"$\le$",
    "≠": r"$\ne$",
    "√": r"$\surd$",
    "∞": r"$\infty$",
    "²": "$^2$",
    "³": "$^3$",
    "\u00a0": "~",
    "|": r"\textbar{}",
}
_TEX |= {"\n": " ", "\r": " ", "\t": " ", "`": r"\textasciigrave{}", "ε": r"$\varepsilon$"}
_LATIN_1_LETTER = re.compile("[À-ÖØ-öø-ÿ]")  # what the usual fonts have under T1
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")  # before a number, and not the hyphen of a name
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (\w+)$")
_TEX_GREEK = set("ALPHA BETA GAMMA DELTA EPSILON ZETA ETA THETA IOTA KAPPA LAMBDA MU NU XI PI RHO SIGMA TAU".split())
_TEX_GREEK |= {"UPSILON", "PHI", "CHI", "PSI", "OMEGA"}
# Capitals that TeX has no command for are Latin ones.
_LATIN = dict(zip("ALPHA BETA EPSILON ZETA ETA IOTA KAPPA MU NU RHO TAU CHI".split(), "ABEZHIKMNPTX", strict=True))


def _tex(text: str) -> str:
    return _MINUS.sub("$-$", "".join(_tex_character(c) for c in unicodedata.normalize("NFC", text)))


def _tex_character(c: str) -> str:
    """One character; what no usual font has is named by its code, so that the file compiles whatever a name holds."""
    if c in _TEX:
        return _TEX[c]
    if " " <= c <= "~" or _LATIN_1_LETTER.match(c):
        return c
    greek = _GREEK.match(unicodedata.name(c, ""))
    if greek:
        size, name = greek[1], "LAMBDA" if greek[2] == "LAMDA" else greek[2]
        if name == "OMICRON":
            return "o" if size == "SMALL" else "O"
        if size == "CAPITAL" and name in _LATIN:
            return _LATIN[name]
        if name in _TEX_GREEK:
            return f"$\\{name.lower() if size == 'SMALL' else name.capitalize()}$"
    return f"[U+{ord(c):04X}]"


def markdown_field(text: str) -> str:
    """Markdown of one field: a pipe would end it, and marks of emphasis inside names would vanish."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")


def markdown(table: Table) -> str:
    from tabulate import tabulate

    def field(entry: Entry, kind: str) -> str:
        text = markdown_field(entry.text)
        if entry.bold:
            return f"**{text}**"
        return f"*{text}*" if kind == "human" and text else text

    rows = [[field(e, kind) for e in entries] for kind, entries in table.lines]
    align = ["left" if i < 3 else "right" for i in range(len(table.heads))]
    return tabulate(rows, [markdown_field(h) for h in table.heads], "pipe", disable_numparse=True, colalign=align)


_LINES_A_PAGE = 45  # of a landscape page; longer tables are cut between two methods, with the heads repeated


def latex(table: Table) -> str:
    """A booktabs table as wide as the page at most; a long one in parts."""
    heads = _tex_line([_tex(h) for h in table.heads])
    columns = "l" * min(3, len(table.heads)) + "r" * max(0, len(table.heads) - 3)
    return "\n\n".join(
        "\n".join(
            [
                r"\noindent\fitted{%",
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                heads,
                r"\midrule",
                *_tex_rows(part),
                r"\bottomrule",
                r"\end{tabular}}",
            ]
        )
        for part in _pages(table.lines)
    )


_PART = {"human": 0, "method": 1, "trivial": 1, "quoted": 2}


def _tex_line(entries: Sequence[str]) -> str:
    # A bracket at the start of a line would be read as an option of the line break before it.
    return " & ".join(f"{{{e}}}" if e.startswith("[") else e for e in entries) + r" \\"


def _tex_rows(lines: Sequence[TableLine]) -> list[str]:
    names = [entries[0].text for _, entries in lines]
    blocks = any(a == b for a, b in itertools.pairwise(names))  # several lines a method: a rule between methods
    rows = []
    for i, (kind, entries) in enumerate(lines):
        if i and (_PART[kind] != _PART[lines[i - 1][0]] or (blocks and names[i] != names[i - 1])):
            rows.append(r"\midrule")
        rows.append(_tex_line([rf"\textbf{{{_tex(e.text)}}}" if e.bold else _tex(e.text) for e in entries]))
    return rows


def _pages(lines: list[TableLine]) -> list[list[TableLine]]:
    """The lines in parts that fit a page, each starting with a method's first line where that is possible."""
    parts: list[list[TableLine]] = []
    rest = lines
    while len(rest) > _LINES_A_PAGE:
        starts = [i for i in range(1, _LINES_A_PAGE + 1) if rest[i][1][0].text != rest[i - 1][1][0].text]
        cut = starts[-1] if starts else _LINES_A_PAGE
        parts.append(rest[:cut])
        rest = rest[cut:]
    return [*parts, rest]


def html_table(table: Table) -> str:
    def field(entry: Entry) -> str:
        text = html.escape(entry.text)
        return f"<td><b>{text}</b></td>" if entry.bold else f"<td>{text}</td>"

    head = "".join(f"<th>{html.escape(h)}</th>" for h in table.heads)
    rows = [f'<tr class="{kind}">' + "".join(map(field, entries)) + "</tr>" for kind, entries in table.lines]
    return "\n".join(["<table>", f"<thead><tr>{head}</tr></thead>", "<tbody>", *rows, "</tbody>", "</table>"])


_STYLE = (
    "<style>body{font:14px/1.45 system-ui,sans-serif;margin:2em;max-width:120em}"
    "table{border-collapse:collapse;margin:1em 0}"
    "th,td{padding:.2em .6em;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
    "th:nth-child(-n+3),td:nth-child(-n+3){text-align:left}thead th{border-bottom:1.5px solid}"
    "tr.human td{color:#555;font-style:italic}tr.trivial td{color:#555}li{color:#333}</style>"
)


_TEX_START = r"""%% %s: compiles as it is. A table: from \noindent to \end{tabular}}, with the two definitions.
\documentclass[a4paper,10pt]{article}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage[utf8]{inputenc}
\usepackage[landscape,margin=15mm]{geometry}
\usepackage{booktabs,graphicx,textcomp}
\newsavebox{\fittedbox}
\newcommand{\fitted}[1]{\sbox{\fittedbox}{#1}\ifdim\wd\fittedbox>\linewidth
  \resizebox{\linewidth}{!}{\usebox{\fittedbox}}\else\usebox{\fittedbox}\fi}
\setlength{\parindent}{0pt}
\begin{document}
\title{%s}\author{}\date{}\maketitle"""


def document(title: str, sections: Sequence[tuple[str, Sequence[str], Sequence[Table]]], form: str) -> str:
    """A whole document in one of the forms ``md``, ``tex``, ``html``.

    Args:
        title: its heading.
        sections: (heading, notes, tables) of each group; a table's own notes follow it.
        form: the markup.
    """
    render: Callable[[Table], str]
    clean: Callable[[str], str]
    if form == "tex":
        render = latex

        def bullets(notes: Sequence[str]) -> str:
            return (
                "\n".join(
                    [
                        r"\begin{itemize}\setlength{\itemsep}{0pt}\small",
                        *(rf"\item {_tex(n)}" for n in notes),
                        r"\end{itemize}",
                    ]
                )
                if notes
                else ""
            )

        start, end = _TEX_START % (title, _tex(title)), r"\end{document}"
        heading, sub, clean = r"\section*{%s}", r"\subsection*{%s}", _tex
    elif form == "html":
        render = html_table

        def bullets(notes: Sequence[str]) -> str:
            return "\n".join(["<ul>", *(f"<li>{html.escape(n)}</li>" for n in notes), "</ul>"]) if notes else ""

        start = f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>{_STYLE}\n'
        start += f"<h1>{html.escape(title)}</h1>"
        end, heading, sub, clean = "</html>", "<h2>%s</h2>", "<h3>%s</h3>", html.escape
    else:
        render = markdown

        def bullets(notes: Sequence[str]) -> str:
            return "\n".join(f"* {markdown_field(n)}" for n in notes)

        start, end, heading, sub, clean = f"# {title}", "", "## %s", "### %s", markdown_field
    parts = [start]
    for name, notes, tables in sections:
        parts += [heading % clean(name), bullets(notes)]
        for table in tables:
            parts += [sub % clean(table.title), render(table), bullets(table.notes)]
    return "\n\n".join(p for p in [*parts, end] if p) + "\n"
