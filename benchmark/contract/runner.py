"""Runs the contract tests of one method, in order."""

from __future__ import annotations

import importlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...core.errors import UserError, unknown
from ...core.registry import Entry
from ...methods import METHODS
from ...methods.base import Method
from ..devices import pick_device
from .check import CONTRACTS, Check, Contract, Fault, Skip, sentence
from .subject import Subject, configuration, keeping_random_states

for _module in ("construction", "training", "prediction", "answers", "support"):  # the order of the checks
    importlib.import_module(f".{_module}", __package__)


def contract_names() -> list[str]:
    """Names of all checks, in their order."""
    return list(CONTRACTS)


def check_method(
    method: str | type[Method],
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    device: str = "auto",
    size: int = 64,
    only: Sequence[str] | None = None,
    tick: Callable[[str], None] = lambda name: None,
) -> list[Check]:
    """Check a method against the contract: made data, the options of its smoke preset, seconds a check.

    Nothing is raised for a fault of the method; it is in the checks. Global random generators are left as they were.

    Args:
        method: a registry name, or a class that need not be registered.
        overrides: sections ``method`` and ``train`` as in `run`, such as ``{"method": {"width": 8}}``.
        device: ``auto``, ``cpu`` or ``cuda``.
        size: side of the made images; 64 suits most networks.
        only: names of checks; those they need run as well.
        tick: called with the name of each check before it runs.

    Raises:
        UserError: unknown method, option or check, or no such device.
    """
    cls, name, entry = _find(method)
    wanted = _with_needs(only)
    device = pick_device(device)
    try:
        configuration(cls, name, {})
    except Exception as error:  # without options nothing can be built; as they are the method's own, it is a fault
        first = CONTRACTS["options"]
        faulty = Check(first.name, first.about, "fail", sentence(error), traceback=traceback.format_exc())
        needs = "needs the check 'options'"
        return [faulty, *(Check(c.name, c.about, "skip", needs) for c in wanted if c is not first)]
    subject = Subject(cls, name, entry, overrides or {}, device, size)
    found: dict[str, Check] = {}
    with keeping_random_states():
        for contract in wanted:
            tick(contract.name)
            broken = next((need for need in contract.needs if not _holds(need, found, subject)), None)
            if broken:
                found[contract.name] = Check(contract.name, contract.about, "skip", f"needs the check {broken!r}")
            else:
                found[contract.name] = _run(contract, subject)
    return list(found.values())


def _find(method: str | type[Method]) -> tuple[type[Method], str, Entry | None]:
    if isinstance(method, str):
        return METHODS.get(method), METHODS.entry(method).name, METHODS.entry(method)
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise UserError(f"{method!r} is no method; give a registry name or a subclass of multirater.methods.Method")
    target = f"{method.__module__}:{method.__qualname__}"
    entry = next((e for e in METHODS.entries() if e.target is method or e.target == target), None)
    return method, entry.name if entry else method.__name__, entry


def _with_needs(only: Sequence[str] | None) -> list[Contract]:
    if only is None:
        return list(CONTRACTS.values())
    wanted: set[str] = set()
    pending = list(only)
    while pending:
        name = pending.pop()
        if name not in CONTRACTS:
            raise unknown("check", name, CONTRACTS)
        wanted.add(name)
        pending += CONTRACTS[name].needs
    return [contract for name, contract in CONTRACTS.items() if name in wanted]


def _holds(need: str, found: Mapping[str, Check], subject: Subject) -> bool:
    """Whether what a later check builds on is there; a blemish of the stages does not stop what can still run."""
    if need == "trains":
        return subject.training is not None
    return found[need].outcome == "pass"


def _run(contract: Contract, subject: Subject) -> Check:
    started = time.perf_counter()
    outcome, trace = "pass", ""
    try:
        message = contract.function(subject)
    except Skip as skip:
        outcome, message = "skip", str(skip)
    except Fault as fault:
        outcome, message = "fail", str(fault)
        trace = traceback.format_exc() if fault.__cause__ is not None else ""
    except Exception as error:  # the code of a third party may raise anything
        outcome, message, trace = "fail", sentence(error), traceback.format_exc()
    seconds = round(time.perf_counter() - started, 3)
    return Check(contract.name, contract.about, outcome, message, seconds, trace)  # type: ignore[arg-type]
