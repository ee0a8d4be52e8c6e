"""A SLURM cluster of one node for the tests: no systemd, no accounting, private folders and ports.

    python tests/slurm/cluster.py start FOLDER    prints the environment that reaches it
    python tests/slurm/cluster.py stop FOLDER

Needs Debian's ``slurm-wlm`` and ``munge`` (``apt-get install -y slurm-wlm munge``) and root. Munge key and daemons are
the cluster's own: an instance that runs already on this machine is left alone. Credentials expire after ten seconds
instead of two minutes, for SLURM lets a requeued job wait that long.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "slurmctld", "slurmd", "munged", "mungekey")
CPUS = 2
CONFIG = """\
ClusterName=multirater
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=bf_interval=5,sched_min_interval=500000
KillWait=15
MinJobAge=10
InactiveLimit=0
SlurmdTimeout=300
MaxArraySize=1001
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP OverSubscribe=NO
"""


def missing() -> str:
    """Why no cluster can be started here; empty if one can."""
    absent = [name for name in PROGRAMS if find(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (apt-get install -y slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "only root may start the daemons"


def find(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


def environment(folder: Path) -> dict[str, str]:
    """What a process needs to reach the cluster."""
    return {"SLURM_CONF": str(folder / "slurm.conf"), "MULTIRATER_SQUEUE_SECONDS": "2"}


def start(folder: Path) -> dict[str, str]:
    """Start the daemons in a private folder and wait until the node is idle.

    Raises:
        RuntimeError: a daemon does not start; with the end of its log.
    """
    folder = folder.resolve()
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    _run("mungekey", "--create", f"--keyfile={folder / 'munge.key'}")
    _run(
        "munged", "--force", f"--socket={folder / 'munge.socket'}", f"--key-file={folder / 'munge.key'}",
        f"--pid-file={folder / 'munged.pid'}", f"--log-file={folder / 'munged.log'}",
        f"--seed-file={folder / 'munged.seed'}",
    )  # fmt: skip
    host = socket.gethostname().partition(".")[0]
    controller, daemon = free_ports(2)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 - 64
    values = {"host": host, "controller": controller, "daemon": daemon, "cpus": CPUS, "memory": memory}
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, **values))
    variables = environment(folder)
    _run("slurmctld", "-c", **variables)
    _run("slurmd", "-c", "-N", host, **variables)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        shown = _run("sinfo", "-h", "-o", "%T", fail=False, **variables)
        if shown.strip() == "idle":
            return variables
        time.sleep(0.5)
    logs = "\n".join((folder / f"{n}.log").read_text()[-1500:] for n in ("slurmctld", "slurmd"))
    stop(folder)
    raise RuntimeError(f"the node did not become idle:\n{logs}")


def stop(folder: Path) -> None:
    """End the jobs and daemons of a cluster that `start` made."""
    folder = folder.resolve()
    variables = environment(folder)
    _run("scancel", "--signal=KILL", "--user=root", fail=False, **variables)
    for name in ("slurmd", "slurmctld", "munged"):
        with contextlib.suppress(OSError, ValueError, ProcessLookupError):
            pid = int((folder / f"{name}.pid").read_text())
            os.kill(pid, signal.SIGTERM)
            for _ in range(100):
                os.kill(pid, 0)
                time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _run(name: str, *arguments: str, fail: bool = True, **variables: str) -> str:
    done = subprocess.run(
        [find(name) or name, *arguments], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
    )
    if done.returncode and fail:
        raise RuntimeError(f"{name} ended with {done.returncode}: {(done.stderr or done.stdout)[-800:]}")
    return done.stdout


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("start", "stop"):
        sys.exit(__doc__)
    if sys.argv[1] == "stop":
        stop(Path(sys.argv[2]))
    else:
        print("\n".join(f"export {k}={v}" for k, v in start(Path(sys.argv[2])).items()))
