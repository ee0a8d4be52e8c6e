"""Races of our code against a naive reference in the same run, and the table of them at the end.

Only ratios are judged: both sides run on the same machine in alternating rounds, and the least of each counts, because
on a busy machine the shortest round is the time of the code. ``--timings FILE`` writes the table as Markdown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HEAD = ("Subject", "What", "Literal", "Here", "Times faster", "Floor")


@dataclass(frozen=True)
class Row:
    """One race; `floor` is the time of one pass over the bytes that must be read, if that bounds it."""

    subject: str
    what: str
    literal: float | None
    here: float
    floor: float | None = None

    def cells(self) -> tuple[str, ...]:
        times = f"{self.literal / self.here:.1f}" if self.literal else ""
        floor = _show(self.floor) if self.floor else ""
        return self.subject, self.what, _show(self.literal) if self.literal else "", _show(self.here), times, floor


def _show(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


ROWS: list[Row] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--timings", metavar="FILE", help="write the table of timings to FILE (Markdown)")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not ROWS:
        return
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---|---:|---:|---:|---:|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in sorted(ROWS, key=lambda r: (r.subject, r.what))]
    terminalreporter.section("timings")
    terminalreporter.write_line("\n".join(lines))
    if config.getoption("--timings"):
        Path(config.getoption("--timings")).write_text("\n".join(lines) + "\n")


def least(action: Callable[[], Any], times: int, clock: Callable[[], float] = time.perf_counter) -> float:
    found = []
    for _ in range(times):
        start = clock()
        action()
        found.append(clock() - start)
    return min(found)


@pytest.fixture(scope="session")
def race() -> Callable[..., float]:
    """``race(subject, what, ours, literal, rounds=…)``: how many times less time `ours` takes.

    Keyword arguments: `rounds`; `inner` calls of ours and of the literal side in a round; `warm` rounds that do not
    count; `agree(value, reference)` is called in every round; `cpu`: processor time instead of wall time; `bytes`
    that must be read, for the floor.
    """

    def run(
        subject: str,
        what: str,
        ours: Callable[[], Any],
        literal: Callable[[], Any],
        *,
        rounds: int = 3,
        inner: tuple[int, int] = (1, 1),
        warm: int = 0,
        agree: Callable[[Any, Any], Any] | None = None,
        cpu: bool = False,
        bytes: int = 0,
    ) -> float:
        clock = time.process_time if cpu else time.perf_counter
        kept: list[Any] = [None, None]

        def keep(side: int, action: Callable[[], Any]) -> Callable[[], None]:
            def call() -> None:
                kept[side] = action()

            return call

        fast, slow = [], []
        for _ in range(rounds + warm):
            fast.append(least(keep(0, ours), inner[0], clock))
            slow.append(least(keep(1, literal), inner[1], clock))
            if agree is not None:
                agree(*kept)
        here, there = min(fast[warm:]), min(slow[warm:])
        ROWS.append(Row(subject, what, there, here, bytes / bandwidth() if bytes else None))
        return there / here

    return run


@pytest.fixture(scope="session")
def alone() -> Callable[..., float]:
    """``alone(subject, what, ours, bytes)``: seconds of a call that has no naive reference of bearable length."""

    def run(subject: str, what: str, ours: Callable[[], Any], bytes: int, times: int = 5) -> float:
        here = least(ours, times)
        ROWS.append(Row(subject, what, None, here, bytes / bandwidth()))
        return here

    return run


_bandwidth: list[float] = []


def bandwidth() -> float:
    """Bytes a second that one core reads, measured once: the largest of a quarter gigabyte."""
    if not _bandwidth:
        block = np.zeros(1 << 28, np.uint8)
        block[::4096] = 1
        _bandwidth.append(len(block) / least(lambda: block.view(np.uint64).max(), 5))
    return _bandwidth[0]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads for PyTorch, whatever the machine has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


@pytest.fixture
def two_threads() -> Iterator[None]:
    """What the timings of the methods were measured with."""
    with threads(2):
        yield
