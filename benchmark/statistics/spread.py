"""How much the mean of a method moves between seeds and between folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import UserError
from .ranking import ranks_of
from .stability import kendall_tau
from .table import CaseTable

if TYPE_CHECKING:
    import pandas as pd

SPREAD_COLUMNS = (
    "method",
    "value",
    "n_seeds",
    "sd_seeds",
    "seed_low",
    "seed_high",
    "n_folds",
    "sd_folds",
    "fold_low",
    "fold_high",
)
_NEEDED = ("method", "seed", "fold", "case_id", "value")


def spread(frame: pd.DataFrame) -> pd.DataFrame:
    """Standard deviations (n−1) and extremes of the means of single seeds and of single folds.

    The value of a method is the mean over cases of their mean over seeds; that of a seed the mean over its cases of all
    folds; that of a fold the mean over its cases, averaged over seeds. Papers that print "±" over folds mean the last,
    often with n in place of n−1.

    Args:
        frame: columns ``method, seed, fold, case_id, value``; NaN is left out.

    Returns:
        One line per method, `SPREAD_COLUMNS`; a standard deviation of one number is NaN.

    Raises:
        UserError: a column is missing.
    """
    import pandas as pd

    data = _checked(frame)
    lines = []
    for method, part in data.groupby("method", sort=True):
        by_case = part.groupby(["fold", "case_id"], sort=True)["value"].mean()
        seeds = part.groupby("seed", sort=True)["value"].mean()
        folds = by_case.groupby("fold", sort=True).mean()
        cases = part.groupby("case_id", sort=True)["value"].mean()
        lines.append(
            {
                "method": method,
                "value": cases.mean(),
                "n_seeds": len(seeds),
                "sd_seeds": seeds.std(ddof=1),
                "seed_low": seeds.min(),
                "seed_high": seeds.max(),
                "n_folds": len(folds),
                "sd_folds": folds.std(ddof=1),
                "fold_low": folds.min(),
                "fold_high": folds.max(),
            }
        )
    return pd.DataFrame(lines, columns=list(SPREAD_COLUMNS))


def order_within(frame: pd.DataFrame, by: str, metric: str = "", direction: str = "") -> pd.DataFrame:
    """Does another seed, or another fold, give another order?

    Args:
        frame: columns ``method, seed, fold, case_id, patient_id, value``.
        by: ``seed`` or ``fold``.
        metric: id, for the direction; or
        direction: itself.

    Returns:
        One line per seed or fold: its name, ``tau`` (Kendall's τ_b of its order by the mean with that of all data, over
        the methods that have it) and ``n_methods``.

    Raises:
        UserError: another `by`, or a column is missing.
    """
    import pandas as pd

    if by not in ("seed", "fold"):
        raise UserError(f"order within {by!r}: choose seed or fold")
    data = _checked(frame)
    if "patient_id" not in data:
        raise UserError("the frame lacks patient_id; it needs the patients of the cases")
    keys = ["method", "case_id", "patient_id"]
    whole = CaseTable.from_frame(data.groupby(keys, sort=True, as_index=False)["value"].mean(), metric, direction)
    lines = []
    for value, part in data.groupby(by, sort=True):
        table = CaseTable.from_frame(part.groupby(keys, sort=True, as_index=False)["value"].mean(), metric, direction)
        reference = ranks_of(whole.select(table.methods))
        tau = float(kendall_tau(ranks_of(table)[None], reference)[0]) if table.k > 1 else np.nan
        lines.append({by: value, "tau": tau, "n_methods": table.k})
    return pd.DataFrame(lines, columns=[by, "tau", "n_methods"])


def _checked(frame: pd.DataFrame) -> pd.DataFrame:
    lacking = [name for name in _NEEDED if name not in frame]
    if lacking:
        raise UserError(f"the frame lacks {', '.join(lacking)}; it needs the columns {', '.join(_NEEDED)}")
    return frame[frame["value"].notna()]
