"""Tables as Markdown, LaTeX (booktabs) or HTML text."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from .layout import Entry, Table

_TEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
_TEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\to$"}
_TEX |= {"†": r"$\dagger$", "‡": r"$\ddagger$", "§": r"\S", "±": r"$\pm$", "−": "$-$", "·": r"$\cdot$", "≥": r"$\ge$"}
_TEX |= {">": "$>$", "<": "$<$", "…": r"\dots{}", "×": r"$\times$"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)


def _pipe(text: str) -> str:
    """Markdown of one field: a pipe would end it, and marks of emphasis inside names would vanish."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")


def markdown(table: Table) -> str:
    from tabulate import tabulate

    def field(entry: Entry, kind: str) -> str:
        text = _pipe(entry.text)
        if entry.bold:
            return f"**{text}**"
        return f"*{text}*" if kind == "human" and text else text

    rows = [[field(e, kind) for e in entries] for kind, entries in table.lines]
    align = ["left" if i < 3 else "right" for i in range(len(table.heads))]
    return tabulate(rows, [_pipe(h) for h in table.heads], "pipe", disable_numparse=True, colalign=align)


def latex(table: Table) -> str:
    def line(entries: Sequence[str]) -> str:
        return " & ".join(entries) + r" \\"

    rows = []
    for i, (kind, entries) in enumerate(table.lines):
        if i and kind == "method" and table.lines[i - 1][0] != "method":
            rows.append(r"\midrule")
        rows.append(line([rf"\textbf{{{_tex(e.text)}}}" if e.bold else _tex(e.text) for e in entries]))
    columns = "l" * min(3, len(table.heads)) + "r" * max(0, len(table.heads) - 3)
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line([_tex(h) for h in table.heads]), r"\midrule"]
    return "\n".join([*body, *rows, r"\bottomrule", r"\end{tabular}"])


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
                "\n".join([r"\begin{itemize}", *(rf"\item {_tex(n)}" for n in notes), r"\end{itemize}"])
                if notes
                else ""
            )

        start, end = f"% {title}; needs the packages booktabs and graphicx", ""
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
            return "\n".join(f"* {_pipe(n)}" for n in notes)

        start, end, heading, sub, clean = f"# {title}", "", "## %s", "### %s", _pipe
    parts = [start]
    for name, notes, tables in sections:
        parts += [heading % clean(name), bullets(notes)]
        for table in tables:
            parts += [sub % clean(table.title), render(table), bullets(table.notes)]
    return "\n\n".join(p for p in [*parts, end] if p) + "\n"
