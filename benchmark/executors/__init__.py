"""Where cells run: child processes here, SLURM jobs, or printed commands; more through the entry-point group."""

from __future__ import annotations

from ...core.registry import Registry
from .base import Ending, Executor, Resources, arguments

__all__ = ["EXECUTORS", "Ending", "Executor", "Resources", "arguments"]

EXECUTORS: Registry[type[Executor]] = Registry(
    "executor", "multirater.executors", "multirater.benchmark.executors.base:Executor"
)
EXECUTORS.add(
    "local",
    "multirater.benchmark.executors.local:LocalExecutor",
    summary="child processes on this machine: --jobs at a time, GPU slots, thread limits",
)
EXECUTORS.add(
    "script",
    "multirater.benchmark.executors.script:ScriptExecutor",
    summary="prints one command a cell, or an sbatch array, for LSF, PBS, SGE, GNU parallel, house rules",
)
EXECUTORS.add(
    "slurm",
    "multirater.benchmark.executors.slurm:SlurmExecutor",
    summary="SLURM job arrays through submitit, requeued at the time limit",
    requires="submitit",
    extra="slurm",
)
