"""Contract tests: does a method keep the promises of `multirater.methods.base`?

Anyone runs them on a package of their own (``multirater check-method NAME``, or `check_method` from Python), on made
data and at smoke sizes. One file per subject: `construction`, `training`, `prediction`, `answers` (what the predictions
say) and `support` (what data it takes); `runner` puts them in order.
"""

from __future__ import annotations

from .check import Check
from .runner import check_method, contract_names

__all__ = ["Check", "check_method", "contract_names"]
