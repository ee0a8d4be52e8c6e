"""Does one rater decide the order? The ranking again with every rater left out once (metrics.md 13.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UserError
from .ranking import ranks_of
from .stability import kendall_tau
from .table import CaseTable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RaterOrders:
    """Rankings with one rater left out.

    Attributes:
        methods: k names.
        reference: k ranks with all raters.
        ranks: rater to the k ranks without that rater.
        tau: rater to Kendall's τ_b with the reference; NaN where all methods are tied.
    """

    methods: tuple[str, ...]
    reference: NDArray[np.float64]
    ranks: dict[str, NDArray[np.float64]]
    tau: dict[str, float]

    @property
    def smallest(self) -> tuple[str, float]:
        """The rater whose absence changes the order most, and that τ_b; ("", NaN) if there is none."""
        defined = {rater: tau for rater, tau in self.tau.items() if not np.isnan(tau)}
        if not defined:
            return "", float("nan")
        rater = min(defined, key=lambda r: (defined[r], r))
        return rater, defined[rater]

    def frame(self) -> pd.DataFrame:
        """Methods by ranks: column ``all`` and one per rater left out."""
        import pandas as pd

        columns = {"all": self.reference.astype(int), **{r: found.astype(int) for r, found in self.ranks.items()}}
        return pd.DataFrame(columns, index=pd.Index(self.methods, name="method"))


def leave_one_rater_out(full: CaseTable, without: Mapping[str, CaseTable], scheme: str = "mean") -> RaterOrders:
    """Rank with all raters and with every one left out.

    Args:
        full: the metric with all raters.
        without: rater to the same metric with this rater removed, the same methods in the same order.
        scheme: of `ranking.SCHEMES`.

    Raises:
        UserError: tables of other methods.
    """
    for rater, table in without.items():
        if table.methods != full.methods:
            raise UserError(
                f"the table without rater {rater} holds {', '.join(table.methods)} and the full one "
                f"{', '.join(full.methods)}; both need the same methods in the same order"
            )
    reference = ranks_of(full, scheme)
    ranks = {rater: ranks_of(table, scheme) for rater, table in without.items()}
    tau = {rater: float(kendall_tau(found[None], reference)[0]) for rater, found in ranks.items()}
    return RaterOrders(full.methods, reference, ranks, tau)


def mean_without(full: CaseTable, by_rater: Mapping[str, NDArray[np.float64]]) -> dict[str, CaseTable]:
    """Tables of a metric that is a mean over the raters of a case, each with one rater removed.

    Args:
        full: the metric with all raters.
        by_rater: rater to k×n values for this rater alone, NaN where the rater did not see the case.
    """
    names = list(by_rater)
    stack = np.stack([by_rater[name] for name in names]) if names else np.zeros((0, *full.values.shape))
    seen = ~np.isnan(stack)
    total, count = np.where(seen, stack, 0.0).sum(0), seen.sum(0)
    tables = {}
    for i, name in enumerate(names):
        left = count - seen[i]
        value = np.where(left > 0, (total - np.where(seen[i], stack[i], 0.0)) / np.maximum(left, 1), np.nan)
        tables[name] = full.replaced(value)
    return tables
