"""Wall time, peak memory and energy of each phase of a cell: prepare, train, predict, evaluate."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


@dataclass
class Phases:
    """Collects what each phase takes.

    Attributes:
        seconds: wall time by phase.
        memory_mb: largest resident memory of the process (and of finished children) in each phase.
        gpu_mb: largest memory of the GPU in each phase, allocated and reserved; empty without one.
        joules: energy by phase, of everything that the meter sees; empty without a meter.
    """

    device: str = "cpu"
    seconds: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    gpu_mb: dict[str, dict[str, float]] = field(default_factory=dict)
    joules: dict[str, float] = field(default_factory=dict)
    meter: Meter | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.meter = Meter.find(self.device)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what runs inside; a phase that is entered again adds its time."""
        _reset_peaks(self.device)
        energy = self.meter.read() if self.meter else None
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)
            self.memory_mb[name] = max(self.memory_mb.get(name, 0.0), peak_memory_mb())
            gpu = peak_gpu_mb(self.device)
            if gpu is not None:
                before = self.gpu_mb.get(name, {})
                self.gpu_mb[name] = {kind: max(peak, before.get(kind, 0.0)) for kind, peak in gpu.items()}
            if self.meter is not None and energy is not None:
                used = self.meter.since(energy)
                self.joules[name] = round(self.joules.get(name, 0.0) + used, 1)

    def record(self) -> dict[str, Any]:
        """The part of a record that these measurements fill, beside ``seconds``."""
        found: dict[str, Any] = {"memory_mb": self.memory_mb}
        if self.gpu_mb:
            found["gpu_mb"] = self.gpu_mb
        if self.meter is not None and self.joules:
            found["energy"] = {"joules": self.joules, "meter": self.meter.name}
        return found


def _reset_peaks(device: str) -> None:
    """Let the peaks start at what is in use now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak_memory_mb() -> float:
    """Largest resident memory of this process: since the last reset on Linux, else since its start."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    unit = 2**20 if sys.platform == "darwin" else 2**10
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(max(own, children) / unit, 1)


def peak_gpu_mb(device: str) -> dict[str, float] | None:
    if device != "cuda":
        return None
    import torch

    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"allocated": round(allocated / 2**20, 1), "reserved": round(reserved / 2**20, 1)}


@dataclass(frozen=True)
class Meter:
    """A counter of energy: of the CPU package (RAPL, readable by root) and, if ``nvidia-ml-py`` is installed, the GPU.

    It counts the whole package or card, not this process alone; a record says so by naming the meter.
    """

    name: str
    counters: tuple[tuple[Path, float], ...] = ()  # of microjoules, and where each wraps
    gpu: bool = False

    @classmethod
    def find(cls, device: str) -> Meter | None:
        counters = []
        for zone in sorted(POWERCAP.glob("intel-rapl:[0-9]")):
            with contextlib.suppress(OSError, ValueError):
                float((zone / "energy_uj").read_text())
                counters.append((zone / "energy_uj", float((zone / "max_energy_range_uj").read_text())))
        gpu = device == "cuda" and _gpu_joules() is not None
        names = [f"RAPL of {len(counters)} package(s)"] * bool(counters) + ["NVML of the GPU"] * gpu
        return cls(" + ".join(names), tuple(counters), gpu) if names else None

    def read(self) -> list[float]:
        values = [float(path.read_text()) for path, _ in self.counters]
        return [*values, (_gpu_joules() or 0.0) * 1e6] if self.gpu else values

    def since(self, before: list[float]) -> float:
        """Joules used since `read`."""
        wraps = [wrap for _, wrap in self.counters] + [0.0] * self.gpu
        pairs = zip(before, self.read(), wraps, strict=True)
        return sum(now - then + (wrap if now < then else 0.0) for then, now, wrap in pairs) / 1e6


def _gpu_joules() -> float | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(visible) if visible.isdigit() else 0)
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    except Exception:  # not installed, no driver, a card that does not count
        return None
