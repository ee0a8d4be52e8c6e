"""Run planned cells and report. The coordinator never trains: one process per cell, and the truth in the folders."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from . import policy, provenance
from .attempts import BUSY, EXIT, Outcome, attempt_folders, read_attempt, write_attempt
from .cell import Cell, State
from .claims import move_aside, read_claim
from .devices import available_cores, pick_device
from .estimates import MARGIN, Estimates, kind_of
from .executors import EXECUTORS, Ending, Executor, Resources
from .monitor import Monitor
from .planning import Plan
from .planning import plan as plan
from .policy import Ledger, Overwrite
from .progress import read_heartbeat
from .states import Found, damage, file_signature

STALL = 3600.0  # seconds without a sign of life after which a cell counts as hung
LOOK = 2.0  # seconds between two looks at cells that somebody else runs
CANCEL = "cancel"  # file in a results folder: coordinators stop once it is another than when they began
# Fields of `Settings` that some engines have no use for, as options.
ENGINE_OPTIONS = {
    "gpus": "--gpus", "per_gpu": "--per-gpu", "minutes": "--time", "memory_gb": "--memory", "options": "--slurm",
    "form": "--script-form", "output": "--output",
}  # fmt: skip


@dataclass
class Report:
    """What `run` did.

    Attributes:
        cells: every planned cell, human rows included.
        skipped: (method, reason) of pairs that a method refuses.
        failed: (cell, message) of cells that did not finish.
        ran: cells that were started.
        left: cells that were not tried.
        stopped: why no new cells were started, if that was not the user's Ctrl-C.
        handed_over: the cells are in the hands of an engine that nobody waits for.
        found: all cells of the folder as they were before anything was started, where they were looked at.
        logs: what failed is said in the log of its last attempt.
    """

    results: Path
    cells: list[Cell] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[Cell, str]] = field(default_factory=list)
    ran: int = 0
    left: list[Cell] = field(default_factory=list)
    interrupted: bool = False
    stopped: str = ""
    handed_over: bool = False
    found: list[Found] | None = None
    logs: bool = True

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return 130
        if self.failed and not self.stopped:  # 2: every failure is the user's to mend, none the method's
            return 2 if all(message.startswith("refused:") for _, message in self.failed) else 1
        return 1 if self.failed or self.stopped or self.left else 0


@dataclass
class Settings:
    """How cells are run; nothing of it changes a number, except the number of threads.

    Attributes:
        stall: seconds without a sign of life after which a cell is ended as hung.
        retries: more attempts for a method that raised.
        fail_fast: start no new cell after a failure.
    """

    executor: str = "local"
    jobs: int | None = None
    threads: int = 0
    device: str = "auto"
    gpus: tuple[str, ...] = ()
    per_gpu: int = 1
    minutes: int | None = None
    memory_gb: float | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    form: str = "list"
    output: Path | None = None
    overwrite: Overwrite = Overwrite.MISSING
    retries: int = 0
    fail_fast: bool = False
    stall: float = STALL

    def engine(self) -> Executor:
        """The engine that is asked for.

        Raises:
            UserError: an option that it would ignore, or GPUs where there are none.
        """
        engine, usual = EXECUTORS.get(self.executor)(), Settings()
        given = [name for name in ENGINE_OPTIONS if getattr(self, name) != getattr(usual, name)]
        ignored = [ENGINE_OPTIONS[name] for name in given if engine.takes is not None and name not in engine.takes]
        if ignored:
            raise UserError(
                f"the executor {self.executor!r} has no use for {', '.join(ignored)}; leave that out or choose another "
                f"--executor (`multirater list executors`)"
            )
        if self.executor == "local" and self.gpus and self.device != "cpu" and pick_device("auto") == "cpu":
            raise UserError("--gpus was given, but torch sees no CUDA device; leave it out or install a CUDA build")
        return engine

    def resources(self, engine: Executor, results: Path, cells: Sequence[Cell], found: Sequence[Found]) -> Resources:
        """What each cell is given; times and threads that were not asked for are filled in.

        Args:
            cells: that will be started.
            found: all cells of the folder, whose finished ones tell how long others take.
        """
        local = engine.waits and not engine.detaches
        jobs = self.jobs or (max(1, len(self.gpus) * self.per_gpu) if local else 256)
        threads = self.threads or (max(1, available_cores() // jobs) if local else 4)
        expected = {} if local else expected_seconds(results, cells, found)
        minutes = self.minutes
        if minutes is None and len(expected) == len(cells) and cells:
            minutes = max(10, round(max(expected.values()) * MARGIN / 60))
        return Resources(
            results, threads, self.device, jobs, self.gpus, self.per_gpu, minutes, self.memory_gb, self.options,
            expected, self.form, self.output,
        )  # fmt: skip


def expected_seconds(results: Path, cells: Sequence[Cell], found: Sequence[Found]) -> dict[Cell, float]:
    """Seconds that each cell will take, where finished ones of its kind tell."""
    known = Estimates.of(results, found).seconds
    kinds = {one.path: kind_of(one.facts) for one in found}
    seconds = {cell: known.get(kinds[cell.path]) for cell in cells if cell.path in kinds}
    return {cell: spent for cell, spent in seconds.items() if spent is not None}


def run(
    methods: Sequence[str] | str,
    dataset: str = "lidc-contours",
    preset: str = "quick",
    folds: Sequence[int] | None = (0,),
    seeds: Sequence[int] = (0,),
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    results: str | Path = "results",
    executor: str = "local",
    jobs: int | None = None,
    threads: int = 0,
    device: str = "auto",
    quiet: bool = False,
    wait: bool = True,
    **settings: Any,
) -> Report:
    """Train and evaluate cells as ``multirater run`` does, skipping what is done.

    Args:
        methods: registry names, or ``"all"``: every method that can run on the data set.
        folds: folds of the split; None: all of them.
        overrides: sections ``dataset``, ``method``, ``train``, ``eval`` to option values.
        jobs: cells at the same time; None: one, or one for each GPU slot.
        threads: CPU threads a cell; 0: cores / jobs.
        wait: False: return once the cells are handed over to the engine (`submit`).
        settings: further fields of `Settings`.

    Raises:
        UserError: wrong usage or input, before anything is trained.
    """
    monitor = Monitor(quiet=quiet)
    chosen = Settings(executor, jobs, threads, device, **settings)
    engine = chosen.engine()
    if not wait and engine.waits and not engine.detaches:
        raise UserError(
            f"cells of the executor {executor!r} end with the process that started them; use `multirater run`, or "
            f"submit with --executor slurm or script"
        )
    names = [methods] if isinstance(methods, str) else list(methods)
    planned = plan(names, dataset, preset, folds, seeds, overrides or {}, Path(results), monitor)
    return execute(planned, monitor, engine, chosen, wait)


def execute(planned: Plan, monitor: Monitor, engine: Executor, settings: Settings, wait: bool = True) -> Report:
    """Bring the planned cells to a result; one that fails never stops the others."""
    choice = policy.choose(planned.states(), settings.overwrite, provenance.signature())
    report = Report(planned.results, planned.cells, planned.skipped, found=planned.found)
    report.failed += choice.failed
    report.left += choice.left
    if choice.done or not choice.start:
        monitor.say(f"{choice.done} of {len(planned.cells)} cells are done already")
    if not choice.start:
        return report
    if settings.device == "cuda" and settings.executor == "local":
        pick_device("cuda")
    for cell in choice.afresh:
        if damage(cell):
            monitor.say(f"{cell.path}: train.json is damaged; trained again, what was there goes to superseded/")
        policy.set_aside(cell)
    resources = settings.resources(engine, planned.results, choice.start, planned.found or ())
    if not wait or not engine.waits:
        engine.submit(choice.start, resources)
        report.ran, report.handed_over = len(choice.start), True
        monitor.say(f"{len(choice.start)} cells handed over; see them with multirater status")
        return report
    Coordinator(report, monitor, engine, settings, resources, choice.start, len(planned.cells)).run()
    return report


class Coordinator:
    """Hands cells to an engine, looks at their folders, and decides what is tried again.

    Others may do the same on the same folder: cells that they hold are waited for.
    """

    def __init__(
        self,
        report: Report,
        monitor: Monitor,
        engine: Executor,
        settings: Settings,
        resources: Resources,
        cells: list[Cell],
        total: int,
    ) -> None:
        self.report = report
        self.monitor = monitor
        self.engine = engine
        self.settings = settings
        self.resources = resources
        self.pending = list(cells)
        self.total = total
        self.running: dict[Cell, tuple[Any, int]] = {}  # handle, attempts before it
        self.elsewhere: dict[Cell, float] = {}  # held by another process; when it was looked at
        self.closed = False  # no cell is started any more
        self.ledger = Ledger(settings.retries, engine.preemptible)
        self.started = time.time()
        self.cancel_file = file_signature(str(report.results / CANCEL))

    def run(self) -> None:
        self.monitor.start(self.total, self.total - len(self.pending) - len(self.report.failed))
        try:
            while self.pending or self.running or self.elsewhere:
                self._start_some()
                time.sleep(0.1 if self.engine.capacity(self.resources) else 1.0)
                self._look()
                self._look_elsewhere()
                if self._cancelled():
                    self.report.stopped = "stopped by multirater cancel"
                    self._stop()
                    break
        except KeyboardInterrupt:
            self.report.interrupted = True
            if self.engine.detaches:
                self.monitor.say("leaving: the submitted cells go on; multirater cancel stops them")
            else:
                self.monitor.say("stopping: running cells save and end (Ctrl-C again kills)")
                self._stop()
        finally:
            self.monitor.stop()

    def _start_some(self) -> None:
        """Submit as much as the engine takes."""
        capacity = self.engine.capacity(self.resources)
        free = len(self.pending) if capacity is None else max(0, capacity - len(self.running))
        batch: list[Cell] = []
        while self.pending and len(batch) < free:
            cell = self.pending.pop(0)
            state = cell.state()
            if state is State.RUNNING:
                self.elsewhere[cell] = time.monotonic()
            elif state is State.DONE:
                self._done(cell)
            else:
                batch.append(cell)
        if not batch:
            return
        before = [len(attempt_folders(cell.folder)) for cell in batch]
        for cell in batch:
            self.ledger.begin(cell)
        for cell, handle, count in zip(batch, self.engine.submit(batch, self.resources), before, strict=True):
            self.running[cell] = (handle, count)
            self.report.ran += 1
            self.monitor.begin(cell, show=not self.engine.detaches)

    def _look(self) -> None:
        for cell, (handle, before) in list(self.running.items()):
            self.monitor.update(cell)
            if self.engine.alive(handle):
                if not self.engine.detaches:
                    self._check_stall(cell, handle, before)
                elif cell.state() is State.DONE:
                    del self.running[cell]
                    self._done(cell)
                continue
            del self.running[cell]
            self._ended(cell, before, self.engine.ended(handle))

    def _ended(self, cell: Cell, before: int, ending: Ending | None) -> None:
        if ending is not None:
            _record(cell, before, ending)
        state = cell.state()
        if state is State.DONE:
            self._done(cell)
        elif state is State.RUNNING:  # another coordinator was quicker
            self.monitor.end(cell, "", waiting=True)
            self.elsewhere[cell] = time.monotonic()
        elif ending is not None and ending.code == BUSY:  # and has let go of it again
            self._queue(cell)
            self.monitor.end(cell, "", waiting=True)
        else:
            self._failed(cell, *self._outcome(cell, before, ending))

    def _outcome(self, cell: Cell, before: int, ending: Ending | None) -> tuple[str, str]:
        outcome, message = policy.last_outcome(cell, before)
        if outcome == Outcome.OK:  # an engine of somebody else's, whose worker was not told
            return Outcome.ERROR, "its worker ended well but did not make the evaluation that was asked for"
        if outcome:
            return outcome, message
        if ending is None:
            jobs = self.report.results / "jobs"
            return Outcome.LOST, f"its job ended before it began; what the job printed is below {jobs}"
        last = ending.words.splitlines()[-1] if ending.words else f"{_how(ending)} before it began"
        if ending.code == EXIT[Outcome.DISK_FULL]:
            return Outcome.DISK_FULL, last
        return (Outcome.LOST if ending.signal else Outcome.ERROR), last

    def _failed(self, cell: Cell, outcome: str, message: str) -> None:
        full = policy.disk_is_full(self.report.results)  # whatever it was that failed for it
        if self.ledger.again(cell, outcome) and not full and not self.closed:
            self.monitor.end(cell, f"{outcome}: {message}", again=True)
            self.pending.append(cell)
            return
        self.report.failed.append((cell, f"{outcome}: {message}"))
        self.monitor.end(cell, f"{outcome}: {message}")
        if self.settings.fail_fast:
            self._leave("--fail-fast: no new cells after the first failure")
        elif full:
            self._leave(f"the disk of {self.report.results} is full: no new cells")

    def _leave(self, why: str) -> None:
        """Start no cell from now on."""
        if not self.closed:
            self.monitor.say(why)
        self.closed = True
        self.report.left += self.pending
        self.pending.clear()

    def _queue(self, cell: Cell) -> None:
        """Start a cell when there is room for it, unless none is started any more."""
        (self.report.left if self.closed else self.pending).append(cell)

    def _done(self, cell: Cell) -> None:
        self.monitor.end(cell, "")

    def _look_elsewhere(self) -> None:
        now = time.monotonic()
        for cell, looked in list(self.elsewhere.items()):
            if now - looked < LOOK:
                continue
            self.elsewhere[cell] = now
            state = cell.state()
            if state is State.RUNNING:
                self.monitor.waiting(cell, read_claim(cell.folder / "claim.json"))
                continue
            del self.elsewhere[cell]
            if state is State.DONE:
                self._done(cell)
            elif state is State.FAILED:
                attempt = cell.last_attempt() or {}
                self._failed(cell, str(attempt.get("outcome")), str(attempt.get("message")))
            elif state is State.LOST and not self.closed:  # counted, or two that cannot see each other go on for ever
                self._failed(cell, Outcome.LOST, "the process that held it ended without a record (killed?)")
            else:
                self._queue(cell)

    def _check_stall(self, cell: Cell, handle: Any, before: int) -> None:
        """End a cell that shows no sign of life."""
        attempts = attempt_folders(cell.folder)
        if len(attempts) <= before:
            return
        beat = read_heartbeat(attempts[-1] / "progress.json") or {"time": self.started, "phase": "start"}
        silent = time.time() - max(beat["time"], self.started)
        if silent >= self.settings.stall:
            # The claim is touched also where a full disk takes no heartbeat; by it `Cell.state` judges as well.
            silent = min(silent, time.time() - (cell.claim() or {}).get("time", 0.0))
        if silent < self.settings.stall:
            return
        message = f"no sign of life for {silent:.0f} s in phase {beat['phase']!r}; it was ended"
        if read_attempt(attempts[-1]) is None:
            write_attempt(attempts[-1], Outcome.HUNG, message)
        self.engine.cancel([handle], kill=True)

    def _cancelled(self) -> bool:
        # Not by its time: the clock of a file server may be another.
        now = file_signature(str(self.report.results / CANCEL))
        return now is not None and now != self.cancel_file

    def _stop(self, patience: float = 60) -> None:
        handles = [handle for handle, _ in self.running.values()]
        self.engine.cancel(handles)
        deadline = time.monotonic() + patience
        try:
            while any(self.engine.alive(h) for h in handles) and time.monotonic() < deadline:
                time.sleep(0.1)
        except KeyboardInterrupt:
            pass
        if self.engine.detaches:
            return
        self.engine.cancel([h for h in handles if self.engine.alive(h)], kill=True)
        for cell, (handle, before) in self.running.items():
            while self.engine.alive(handle):
                time.sleep(0.05)
            ending = self.engine.ended(handle)
            if ending is not None:
                _record(cell, before, ending)


def _record(cell: Cell, before: int, ending: Ending) -> None:
    """Write down how a process ended that could not do so itself, and take its claim away."""
    attempts = attempt_folders(cell.folder)
    if len(attempts) > before and read_attempt(attempts[-1]) is None and ending.code != BUSY:
        if ending.code == EXIT[Outcome.DISK_FULL]:
            write_attempt(
                attempts[-1],
                Outcome.DISK_FULL,
                "nothing more could be written: the disk is full, or a limit is reached",
            )
        else:
            outcome = Outcome.OOM if ending.out_of_memory else Outcome.LOST
            why = ", the kernel had run out of memory" if ending.out_of_memory else ""
            message = f"the process {_how(ending)}{why}; its log is {attempts[-1] / 'log.txt'}"
            write_attempt(attempts[-1], outcome, message, signal=ending.signal, exit=ending.code)
    claim = read_claim(cell.folder / "claim.json")
    if claim is not None and cell.state() is State.LOST:
        move_aside(cell.folder, claim)


def _how(ending: Ending) -> str:
    if ending.signal is None:
        return f"ended with code {ending.code}"
    try:
        name = signal.Signals(ending.signal).name
    except ValueError:
        name = str(ending.signal)
    return f"was killed by {name}"
