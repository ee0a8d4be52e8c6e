"""What a record says of the code and the machine that made it; no user names, no absolute paths."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import Distribution, distributions, entry_points
from importlib.util import find_spec
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
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@cache
def code() -> dict[str, Any]:
    """Revision of the suite (recorded, not hashed into keys) and versions of what computes."""
    revision, diff = _git("rev-parse", "HEAD"), _git("diff", "HEAD")
    packages = sorted(filter(None, (_package(d) for d in distributions())))
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


def _package(found: Distribution) -> str | None:
    """``name==version``, from the name of the folder where it says so: reading 300 descriptions takes a second."""
    path = getattr(found, "_path", None)
    if path is not None and path.name.endswith(".dist-info") and path.name.count("-") == 2:
        name, version = path.name.removesuffix(".dist-info").split("-")
        return f"{name}=={version}"
    return f"{found.metadata['Name']}=={found.version}" if found.metadata["Name"] else None


@cache
def signature() -> str:
    """Hash of names, sizes and times of all source files of the suite and of packages that add entries to it.

    Another value says that a method may behave differently now; it costs no import and reads no file.
    """
    root = Path(__file__).resolve().parent.parent
    folders = [root / name for name in ("core", "metrics", "datasets", "methods", "benchmark")]
    lines = [f"{__version__}"]
    for kind in ("methods", "datasets", "metrics", "executors"):
        for point in entry_points(group=f"multirater.{kind}"):
            lines.append(f"{kind} {point.name} {point.value} {point.dist.version if point.dist else ''}")
            try:
                found = find_spec(point.value.partition(":")[0].partition(".")[0])
            except (ImportError, ValueError):
                continue
            if found is not None and found.submodule_search_locations:
                folders += [Path(p) for p in found.submodule_search_locations]
            elif found is not None and found.origin:
                lines.append(_stamp(found.origin))
    for folder in dict.fromkeys(folders):
        for base, _, names in sorted(os.walk(folder)):
            lines += [_stamp(os.path.join(base, n)) for n in sorted(names) if n.endswith((".py", ".yaml", ".json"))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _stamp(path: str) -> str:
    found = os.stat(path)
    return f"{path} {found.st_size} {found.st_mtime_ns}"


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
