"""Statistics of a (method × case) table with patients as clusters: pure functions, nothing is read or drawn here.

A `CaseTable` holds the values and knows which way is better; every function takes one and gives plain frames or arrays.
Formulas: metrics.md, section 13.
"""

from __future__ import annotations

from .differences import means, pairwise
from .friedman import Friedman, friedman, groups_by_distance, groups_by_tests, nemenyi_distance
from .holm import holm
from .ranking import SCHEMES, consensus, loss_of, one_sided, ranking_table, ranks_of
from .raters import RaterOrders, leave_one_rater_out
from .signed_rank import SignedRank, signed_rank
from .spread import order_within, spread
from .stability import Stability, kendall_tau, rank_stability
from .table import CaseTable

__all__ = [
    "CaseTable",
    "means",
    "pairwise",
    "signed_rank",
    "SignedRank",
    "holm",
    "SCHEMES",
    "loss_of",
    "one_sided",
    "ranks_of",
    "ranking_table",
    "consensus",
    "kendall_tau",
    "rank_stability",
    "Stability",
    "leave_one_rater_out",
    "RaterOrders",
    "friedman",
    "Friedman",
    "nemenyi_distance",
    "groups_by_tests",
    "groups_by_distance",
    "spread",
    "order_within",
]
