"""Numbers that others published, for tables in their layout: quoted with source and variant, never ranked.

None of them was read in the paper itself; see `SECONDARY`. What the sources do not give is None and shown as such.
"""

from __future__ import annotations

from dataclasses import dataclass

SECONDARY = "secondary source, unverified against the paper"
_NOTES = "rows of arXiv 2403.13417 (CVPR 2024) as repeated in public notes on arXiv 2605.08210"
_README = "row of arXiv 2403.13417 as repeated in the README of the method ProPer"
_AMBISSL = "AmbiSSL, CVPR 2025, Table 1, fully labelled upper bound, read in a text copy"
# The released evaluation pairs raters by matching whatever its name says; the paper's rows hint at pairing by index.
_VARIANT = "variant unknown (released code: `dpersona`; pairing of the per-rater Dice unclear)"


@dataclass(frozen=True)
class Quotation:
    """One row of a published table; Dice in percent.

    Attributes:
        data: ``LIDC`` or ``NPC``, as the paper names them.
        method: as the paper names it.
        personalised: whether it stands in the table of personalised outputs.
        n_samples: S, if the source gives it.
        ged, dice_soft, dice_max, dice_match, mean: the numbers; None where the source lacks them.
        source: where the number was read.
        variant: convention of the metrics.
    """

    data: str
    method: str
    personalised: bool
    n_samples: int | None
    ged: float | None
    dice_soft: float | None
    dice_max: float | None
    dice_match: float | None
    mean: float | None = None
    source: str = _NOTES
    variant: str = _VARIANT


QUOTATIONS = (
    Quotation("LIDC", "Prob. U-Net", False, 50, 0.2168, 88.80, 88.87, 88.81),
    Quotation("LIDC", "D-Persona (I)", False, 50, 0.1358, 90.45, 91.37, 91.33),
    Quotation("LIDC", "AmbiSSL", False, None, 0.1461, 90.24, 90.75, 90.51, source=_AMBISSL),
    Quotation("LIDC", "Pionono", True, None, 0.1502, None, 90.10, 88.97, 88.84),
    Quotation("LIDC", "D-Persona (II)", True, None, 0.1444, 90.31, 90.38, 89.17, 89.17, source=f"{_NOTES}; {_README}"),
    Quotation("NPC", "Prob. U-Net", False, 50, 0.3528, 81.19, 84.19, 80.13),
    Quotation("NPC", "D-Persona (I)", False, 50, 0.1978, 84.01, 82.79, 81.69),
    Quotation("NPC", "D-Persona (II)", True, None, 0.2970, None, 81.60, 80.50, 80.40),
)
# Our data sets to the one of the paper, and what keeps the numbers apart.
DATA = {
    "lidc-contours": (
        "LIDC",
        "CT images at 128 x 128, 4 folds whose split may have mixed patients; here: simulated images",
    ),
    "lidc": ("LIDC", "the paper's folds may have been cut by slice, which mixes patients"),
    "npc": ("NPC", "the paper's test labels were never released"),
}


def quotations(dataset: str, personalised: bool) -> tuple[list[Quotation], str]:
    """The published rows that belong beside a table of ours, and why they are no comparison; none for other data."""
    data, caveat = DATA.get(dataset, ("", ""))
    return [q for q in QUOTATIONS if q.data == data and q.personalised == personalised], caveat
