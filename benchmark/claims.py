"""Who runs a cell now: a file that only one process can create, and rules for taking over what an owner left behind.

A claim is linked into place whole, so that no reader sees half of one; a link to an existing name fails. The claim of a
dead owner is moved aside by one contender only: the one that created the marker which names that very claim. A marker
whose own maker died is followed by one with the next number, so that no death blocks a cell.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import socket
import time
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from .attempts import new_attempt, write_attempt

OWNER = ("host", "pid", "started")
# Where a process id means anything: one start of one machine, one PID namespace (a container has its own).
PLACE = ("host", "boot", "pid_namespace")
LOST_SECONDS = 3600.0  # without a sign of life from another host; MULTIRATER_LOST_SECONDS sets it
_STAT = ("time", "uid")  # what `read_claim` says of the file beside its content
_NEW = 60.0  # seconds in which an empty claim is one that is being written
_TYPES: dict[str, type | tuple[type, ...]] = {
    "host": str, "pid": int, "started": (int, float), "taken": (int, float), "attempt": int, "restart": int,
}  # fmt: skip


@cache
def owner() -> dict[str, Any]:
    """This process, as a claim names it."""
    import psutil

    me = psutil.Process()
    found = {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time(), "job": job_id()}
    found["restart"] = _restart()
    with contextlib.suppress(OSError):  # Linux only
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found["pid_namespace"] = os.readlink("/proc/self/ns/pid")
        found["ticks"] = _ticks(me.pid)
    return found


def _ticks(pid: int) -> int | None:
    """When a process started, in ticks since the machine did: it stays, where `started` moves with the clock.

    None if it has ended, also where its parent never asks for its end: in a container nobody may.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def nearby(claim: Mapping[str, Any], what: tuple[str, ...] = PLACE) -> bool:
    """Whether the process id of a claim means the same to this process; older claims name their host alone."""
    here = owner()
    return all(claim.get(k) == here.get(k) or (k != "host" and claim.get(k) is None) for k in what)


def job_id() -> str | None:
    """The SLURM job that this process belongs to, as ``squeue`` prints it."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _restart() -> int:
    """How often SLURM has put this job back into its queue and started it again."""
    text = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(text) if text.isdecimal() else 0


def read_claim(path: str | Path) -> dict[str, Any] | None:
    """A claim with the time of its owner's last sign of life and the user who made it; None if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text, stat = stream.read(), os.fstat(stream.fileno())
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    # Damaged: an owner that is not alive; unless it was created this minute and is only being written.
    if not isinstance(found, dict):
        found = {"writing": not text and time.time() - stat.st_mtime < _NEW}
    # What is of another type says nothing (`true` is no number).
    for key, kind in _TYPES.items():
        if key in found and (not isinstance(found[key], kind) or isinstance(found[key], bool)):
            found[key] = None
    return {**found, "time": stat.st_mtime, "uid": stat.st_uid}


def process_of(claim: Mapping[str, Any]) -> int | None:
    """The process id of the owner, if that process lives in this place."""
    import psutil

    if any(claim.get(k) is None for k in OWNER) or not nearby(claim):
        return None
    if claim.get("ticks") is not None:
        return int(claim["pid"]) if _ticks(claim["pid"]) == claim["ticks"] else None
    try:
        process = psutil.Process(claim["pid"])
        same = abs(process.create_time() - claim["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return None
    return int(claim["pid"]) if same else None


def _hidden(pid: int) -> bool:
    """Whether there is such a process, of somebody else, of which this system tells nothing (`hidepid`)."""
    if pid <= 0 or os.path.exists(f"/proc/{pid}"):
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def owner_alive(claim: Mapping[str, Any], limit: float | None = None) -> bool:
    """Whether the claiming process still lives.

    In this place (`PLACE`) by its process id and start time; elsewhere by the scheduler if it is a SLURM job of this
    user that the queue can know of, and else by its last sign of life.

    Args:
        claim: as `read_claim` returns it.
        limit: seconds without a sign of life after which an owner in another place counts as dead.
    """
    import psutil

    if claim.get("writing"):
        return True
    known = all(claim.get(k) is not None for k in OWNER)
    if not known and not claim.get("id"):  # cut off: nobody can show that it is his
        return False
    if known and nearby(claim):
        if process_of(claim) is not None:
            return True
        if not _hidden(claim["pid"]):
            return False
    # This machine before it was started again, unless it showed signs of life since: then it is another of that name.
    if known and nearby(claim, ("host",)) and not nearby(claim, ("boot",)) and claim["time"] < psutil.boot_time():
        return False
    # The queue is asked for one's own jobs only: others' are judged by their sign of life.
    if claim.get("job") and claim.get("uid") in (None, os.getuid()):
        from .squeue import jobs

        # An answer from before the claim knows nothing of its job.
        taken = claim.get("taken")
        listed = jobs(newer_than=None if taken is None else time.monotonic() - (time.time() - taken))
        if listed is not None:
            return str(claim["job"]) in listed
    if limit is None:
        limit = float(os.environ.get("MULTIRATER_LOST_SECONDS", LOST_SECONDS))
    return time.time() - claim["time"] < limit


def take(folder: Path) -> str | None:
    """Claim a cell for this process.

    Returns:
        The identity of the claim; None if a living owner has it or another contender was quicker.
    """
    path = folder / "claim.json"
    old = read_claim(path)
    if old is not None:
        # A job that was requeued finds the claim of its own earlier run: SLURM runs a job once at a time.
        # Within one run of a job, which may have several machines, another claim is another process's.
        mine = old.get("job") is not None and old["job"] == job_id() and (old.get("restart") or 0) < _restart()
        if (owner_alive(old) and not mine) or not move_aside(folder, old):
            return None
    ident = uuid.uuid4().hex[:16]
    return ident if _create(path, {**owner(), "id": ident, "taken": time.time()}) else None


def holds(folder: Path, ident: str) -> bool:
    """Whether the claim of a cell is (still) the one called `ident`."""
    found = read_claim(folder / "claim.json")
    return found is not None and found.get("id") == ident


def note(folder: Path, ident: str, **facts: Any) -> None:
    """Add facts to one's own claim."""
    path = folder / "claim.json"
    found = read_claim(path)
    if found is None or found.get("id") != ident:
        return
    found = {k: v for k, v in found.items() if k not in _STAT}
    temporary = path.with_name(f".claim.{uuid.uuid4().hex[:12]}.tmp")
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps({**found, **facts}))
        os.replace(temporary, path)


def release(folder: Path, ident: str | None = None) -> None:
    """Give up a claim, if it is one's own."""
    held, me = read_claim(folder / "claim.json"), owner()
    if held is None:
        return
    mine = held.get("id") == ident if ident is not None else nearby(held) and all(held.get(k) == me[k] for k in OWNER)
    if mine:
        with contextlib.suppress(OSError):
            (folder / "claim.json").unlink()


def move_aside(folder: Path, lost: Mapping[str, Any]) -> bool:
    """Move the claim of a dead owner into its attempt; False if another contender does or did so."""
    path, name = folder / "claim.json", _name(lost)
    for number in itertools.count(1):
        marker = folder / f".lost-{name}-{number}.json"
        if _create(marker, owner()):
            break
        holder = read_claim(marker)
        if holder is None or owner_alive(holder):
            return False
    try:
        # Only the holder of the last marker removes this claim, and no later claim has its name.
        now = read_claim(path)
        if now is None or _name(now) != name:
            return False
        attempt = folder / "attempts" / str(lost.get("attempt") or "")
        if not lost.get("attempt") or not attempt.is_dir():
            attempt = new_attempt(folder)
        os.rename(path, attempt / f"lost-claim-{name}.json")
        _record_loss(attempt, lost)
        return True
    finally:
        for old in folder.glob(f".lost-{name}-*.json"):
            old.unlink(missing_ok=True)


def _record_loss(attempt: Path, lost: Mapping[str, Any]) -> None:
    """Say in the attempt what became of it, unless it says so itself."""
    if not (attempt / "attempt.json").exists():
        where = f" on {lost['host']}" if lost.get("host") else ""
        write_attempt(attempt, "lost", f"the process{where} ended without a record (killed?)", job=lost.get("job"))


def _name(claim: Mapping[str, Any]) -> str:
    """What a marker calls a claim: its identity, or a hash of what a damaged or older one says."""
    if claim.get("id"):
        return str(claim["id"])
    parts = {k: v for k, v in claim.items() if k not in ("writing", "uid")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _create(path: Path, content: Mapping[str, Any]) -> bool:
    """Create a file whole, if there is none of that name."""
    text = json.dumps(content)
    temporary = path.with_name(f".claim.{uuid.uuid4().hex[:12]}.tmp")
    try:
        temporary.write_text(text)
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        try:  # a file system without hard links
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        return True
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
