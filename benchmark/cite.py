"""BibTeX of what a table used: the suite, its methods, data, metrics, and the statistics behind marks and intervals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.errors import UserError
from .cell import HUMAN, State

SUITE = "multirater"
METHODS = {
    "dpersona": ("wu2024dpersona",),
    "prob_unet": ("kohl2018probabilistic",),
    "phiseg": ("baumgartner2019phiseg",),
    "mrnet": ("ji2021learning",),
    "pionono": ("schmidt2023probabilistic",),
    "tab": ("liao2023transformer",),
    "cm_global": ("tanno2019learning", "zhang2020disentangling"),
    "cm_pixel": ("zhang2020disentangling",),
    "ensemble": ("ronneberger2015unet", "lakshminarayanan2017simple"),
    "mc_dropout": ("ronneberger2015unet", "gal2016dropout"),
    "unet_staple": ("ronneberger2015unet", "warfield2004simultaneous"),
    **dict.fromkeys(
        "unet_per_rater unet_majority unet_soft unet_multihead unet_multidecoder unet_label_sampling".split(),
        ("ronneberger2015unet",),
    ),
}
DATASETS = {
    "lidc-contours": ("armato2011lung", "armato2015data"),
    "lidc": ("armato2011lung", "armato2015data"),
    "npc": ("wu2024dpersona",),
    "qubiq": ("li2024qubiq",),
}
# By the start of the metric's id up to a dot; the longest that fits counts.
METRICS = {
    **dict.fromkeys(
        ("ged", "cross", "diversity_samples", "diversity_gap"), ("szekely2013energy", "kohl2018probabilistic")
    ),
    **dict.fromkeys(("hm_iou", "hm_dice"), ("kuhn1955hungarian", "kohl2019hierarchical")),
    **dict.fromkeys(("dice_match", "dice_max_rater_to_sample", "dice_max_sample_to_rater"), ("wu2024dpersona",)),
    "dice_soft": ("ji2021learning",),
    "dice_rater": ("dice1945measures",),
    "ncc": ("baumgartner2019phiseg",),
    "qubiq": ("li2024qubiq",),
    **dict.fromkeys(("ci", "combined_sensitivity", "diversity_agreement"), ("rahman2023ambiguous",)),
    **dict.fromkeys(("ece", "ace", "mce"), ("guo2017calibration",)),
    "brier": ("brier1950verification",),
    **dict.fromkeys(("hd95", "hd"), ("huttenlocher1993comparing",)),
    "nsd": ("nikolov2018deep",),
    "krippendorff": ("krippendorff2004content",),
    "fleiss_kappa": ("fleiss1971measuring",),
    "cohen_kappa": ("cohen1960coefficient",),
    "staple": ("warfield2004simultaneous",),
}
INTERVALS = ("efron1993introduction",)
RANKS = (
    "wilcoxon1945individual",
    "holm1979simple",
    "friedman1937use",
    "demsar2006statistical",
    "wiesenfarth2021methods",
)


@dataclass(frozen=True)
class Citation:
    """One entry and what it is cited for."""

    key: str
    bibtex: str
    used_for: tuple[str, ...]


@cache
def bibliography() -> dict[str, str]:
    """Entries of ``references.bib`` by key."""
    text = (Path(__file__).parent / "references.bib").read_text(encoding="utf-8")
    return {entry[1]: entry[0] for entry in re.finditer(r"^@\w+\{(\w+),.*?^\}", text, re.S | re.M)}


def cite_names(names: Iterable[str]) -> list[Citation]:
    """What to cite for methods, data sets and metrics by name.

    Raises:
        UserError: an unknown name.
    """
    from .catalogue import find

    used: list[tuple[str, str]] = []
    for name in names:
        for kind, registered in find(name):
            if kind in ("methods", "datasets", "metrics"):
                used.append((kind, registered))
            else:
                raise UserError(f"{name!r} is one of the {kind}; cite takes methods, data sets and metrics")
    return _citations(used)


def cite_results(results: Path) -> list[Citation]:
    """What to cite for the tables of a results folder: its finished methods, their data, the metrics shown.

    Raises:
        UserError: not a results folder, or nothing finished in it.
    """
    from .bootstrap import MIN_CLUSTERS
    from .leaderboard import sheets_of, tables_of
    from .ranked import TRACKS, rankings

    used: list[tuple[str, str]] = []
    ranks = intervals = False
    for sheet in sheets_of(Path(results)):
        cells = [c for row in sheet.group.rows for c in row.cells if c.state == State.DONE]
        used += [("methods", c.method) for c in cells if c.method != HUMAN]
        used += [("datasets", c.dataset) for c in cells]
        shown = {m for track in TRACKS.values() for m in (*track.primary, *track.secondary)}
        used += [("metrics", m.partition("[")[0]) for m in sorted(sheet.metrics & shown)]
        ranks |= any(len(found.names) > 1 for found in rankings(sheet).values())
        intervals |= any(table.lines for table in tables_of(sheet)) and sheet.most("n_patients") >= MIN_CLUSTERS
    if not any(kind == "methods" for kind, _ in used):
        raise UserError(f"no method has a finished cell in {results}: nothing to cite yet; see `multirater status`")
    statistics = [*(INTERVALS if intervals else ()), *(RANKS if ranks else ())]
    return _citations(used, statistics)


def _citations(used: Sequence[tuple[str, str]], statistics: Sequence[str] = ()) -> list[Citation]:
    """Entries in the order of their first use, each once, with everything that they are cited for."""
    reasons: dict[str, list[str]] = {SUITE: ["the suite"]}
    made: dict[str, str] = {SUITE: _suite()}
    for kind, name in dict.fromkeys(used):
        keys = _keys(kind, name)
        if not keys and kind != "metrics":
            key, text = _from_card(kind, name)
            if not text:
                continue
            made[key] = text
            keys = (key,)
        for key in keys:
            reasons.setdefault(key, []).append(name)
    for key in statistics:
        reasons.setdefault(key, []).append("statistics of the tables")
    texts = {**bibliography(), **made}
    return [Citation(key, texts[key], tuple(dict.fromkeys(why))) for key, why in reasons.items()]


def _keys(kind: str, name: str) -> tuple[str, ...]:
    if kind == "metrics":
        parts = name.partition("@")[0].split(".")
        found = [METRICS[key] for n in range(len(parts), 0, -1) if (key := ".".join(parts[:n])) in METRICS]
        return found[0] if found else ()
    return {"methods": METHODS, "datasets": DATASETS}[kind].get(name, ())


def _from_card(kind: str, name: str) -> tuple[str, str]:
    """An entry from what a card says of its source: of data sets, and of packages that are not the suite's own."""
    from .cards import card

    try:
        facts = card(kind, name)
    except UserError:
        return "", ""  # stored results may know a package that is not installed here
    said = str(facts.get("citation") or facts.get("paper") or "")
    if not said or said.startswith("baseline "):
        return "", ""
    key = "multirater-" + re.sub(r"\W+", "-", f"{kind[:-1]}-{name}")
    title = str(facts.get("title") or facts.get("summary") or name)
    return key, f"@misc{{{key},\n  title = {{{_escaped(title)}}},\n  note = {{{_escaped(said)}}}\n}}"


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text)


def _suite() -> str:
    title = "{multirater}: A Benchmark Suite for Multi-rater Medical Image Segmentation"
    author = "{The multirater developers}"
    return f"@misc{{{SUITE},\n  title = {{{title}}},\n  author = {{{author}}},\n  version = {{{__version__}}}\n}}"


def as_bibtex(found: Sequence[Citation]) -> str:
    """One BibTeX file; above each entry what it is cited for."""
    return "\n\n".join(f"% {', '.join(one.used_for)}\n{one.bibtex}" for one in found) + "\n"


def as_records(found: Sequence[Citation]) -> list[dict[str, Any]]:
    return [{"key": one.key, "used_for": list(one.used_for), "bibtex": one.bibtex} for one in found]
