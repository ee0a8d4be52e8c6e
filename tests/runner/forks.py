"""An executor whose workers are forked instead of started, and a coordinator to be run in a process of its own.

Forked workers run the code of real ones from `worker.main` on; only the seconds of the imports are saved.
"""

import contextlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from multirater.benchmark.executors import Ending, Executor, arguments


class ForkExecutor(Executor):
    name = "forks"

    def __init__(self):
        self.codes = {}

    def capacity(self, resources):
        return resources.jobs

    def submit(self, cells, resources):
        return [self._fork(cell, resources) for cell in cells]

    def _fork(self, cell, resources):
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setsid()
            from multirater.benchmark import claims, provenance, worker

            for known in (claims.owner, provenance.signature, provenance.code):
                known.cache_clear()  # of the process that this one was
            code = worker.main([*arguments(cell, resources), "--parent", str(parent)])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def alive(self, handle):
        if handle not in self.codes:
            pid, status = os.waitpid(handle, os.WNOHANG)
            if pid:
                self.codes[handle] = os.waitstatus_to_exitcode(status)
        return handle not in self.codes

    def cancel(self, handles, kill=False):
        for handle in handles:
            with contextlib.suppress(ProcessLookupError):
                os.kill(handle, signal.SIGKILL if kill else signal.SIGTERM)

    def ended(self, handle):
        code = self.codes[handle]
        return Ending(code if code >= 0 else None, -code if code < 0 else None)


def coordinate(arguments, target, environment):
    """`run` with these arguments; its report goes to `target`."""
    os.environ.update(environment)
    from multirater.benchmark.policy import Overwrite
    from multirater.benchmark.runner import run

    if "overwrite" in arguments:
        arguments = {**arguments, "overwrite": Overwrite(arguments["overwrite"])}
    report = run(**arguments)
    record = {
        "exit_code": report.exit_code,
        "failed": [["/".join(cell.folder.parts[-3:]), message] for cell, message in report.failed],
        "ran": report.ran,
        "left": len(report.left),
        "cells": len(report.cells),
    }
    Path(target).write_text(json.dumps(record))


def command(arguments, target, environment):
    """The command line with these arguments; what it prints goes to `target`."""
    os.environ.update(environment)
    from multirater.benchmark.attempts import logged
    from multirater.benchmark.cli import main

    with logged(Path(target)):
        main(arguments)
