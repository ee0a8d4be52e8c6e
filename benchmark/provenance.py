"""What a record says of the code and the machine that made it; no user names, no absolute paths."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.hashing import digest


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@cache
def code() -> dict[str, Any]:
    """Revision of the suite (recorded, not hashed into keys) and versions of what computes."""
    revision, diff = _git("rev-parse", "HEAD"), _git("diff", "HEAD")
    packages = sorted(f"{d.metadata['Name']}=={d.version}" for d in distributions() if d.metadata["Name"])
    versions = {line.split("==")[0].lower(): line.split("==")[1] for line in packages}
    return {
        "multirater": __version__,
        "revision": revision.strip() if revision else None,
        "dirty": bool(diff) if diff is not None else None,
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest() if diff else None,
        "python": platform.python_version(),
        **{name: versions.get(name) for name in ("torch", "numpy", "scipy", "monai", "pillow")},
        "packages_sha256": digest(packages),
    }


def machine(device: str) -> dict[str, Any]:
    """Hardware, threads and determinism flags of the running process."""
    import psutil
    import torch

    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "ram_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "threads": torch.get_num_threads(),
        "device": device,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "gpu_gb": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def peak_gpu_mb(device: str) -> dict[str, float] | None:
    if device != "cuda":
        return None
    import torch

    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"allocated": round(allocated / 2**20, 1), "reserved": round(reserved / 2**20, 1)}
