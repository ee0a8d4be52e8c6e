"""One mask made of all raters' masks (specification section 7)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import unknown
from .mean_map import passes_of_votes, votes
from .overlap import Mask
from .staple import one_class, staple_case

CONSENSUS = ("majority", "union", "intersection", "staple")


def consensus_mask(
    raters: Any,
    how: str = "majority",
    *,
    rater_valid: Any = None,
    valid: Any = None,
    spacing: Any = None,
    label: int | None = None,
) -> Mask:
    """The consensus of the raters of one case.

    Args:
        raters: R×spatial, binary masks or class maps.
        how: ``majority`` (more than half of the raters, so of 4 raters 2 are not enough), ``union``, ``intersection``,
            or ``staple`` (1[W > 0.5] of `multirater.metrics.staple_case` over the box around the raters).
        rater_valid, valid, spacing: as in `multirater.metrics.score_case`. Missing raters have no vote; the spacing
            sets the size of STAPLE's box.
        label: the class that counts, against the rest; needed for class maps with several labels.

    Returns:
        Spatial bool; False where `valid` is False.

    Raises:
        UserError: unknown `how`, bad arrays, no rater or no pixel, or several labels and none chosen.

    Example:
        >>> import numpy as np
        >>> a = np.zeros((4, 4), bool); a[:, :2] = True
        >>> raters = np.stack([a, a.T])
        >>> [int(consensus_mask(raters, how).sum()) for how in ("majority", "union", "intersection")]
        [4, 12, 4]
    """
    if how not in CONSENSUS:
        raise unknown("consensus", str(how), CONSENSUS)
    if how == "staple":
        return staple_case(raters, rater_valid=rater_valid, valid=valid, spacing=spacing, label=label).mask
    view = one_class(raters, rater_valid=rater_valid, valid=valid, spacing=spacing, label=label)
    if how == "majority":
        out = passes_of_votes(view.R, (0.5,))[0][votes(view.raters)]
    else:
        combine = np.logical_or if how == "union" else np.logical_and
        out = combine.reduce(view.raters, axis=0)
    placed: Mask = view.placed(out)
    return placed
