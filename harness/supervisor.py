"""Runs one command and makes sure that nothing of it survives. Started by path, as its own small process.

It adopts every descendant (Linux subreaper), so that torchrun's workers, which have sessions of their own, cannot
slip away. When the command ends, or the parent goes away (end of standard input), or asks for it (any byte on standard
input), every descendant is killed, and only then does the supervisor leave, with the command's exit status.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import time

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.05
STOPPED = 75
"""Exit status when the parent went away or asked to stop."""


def main(arguments: list[str]) -> int:
    """`supervisor.py FILE_SIZE_LIMIT COMMAND…`; the limit in bytes holds for each file that the command writes."""
    limit = int(arguments[0])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with subprocess.Popen(
        arguments[1:], stdin=subprocess.DEVNULL, start_new_session=True, close_fds=False, preexec_fn=_die_with_supervisor
    ) as child:
        status = _wait(child)
        _kill_all()
        return status


def _die_with_supervisor() -> None:
    """In the child, before the command: if somebody kills the supervisor, Linux kills the command too."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _wait(child: subprocess.Popen[bytes]) -> int:
    """The command's exit status, or STOPPED."""
    while True:
        status = child.poll()
        if status is not None:
            return status if status >= 0 else 128 - status
        readable, _, _ = select.select([0], [], [], POLL_S)
        if readable:
            return STOPPED


def _kill_all() -> None:
    """Kill descendants until none is left; new ones may appear while the old ones die."""
    me = psutil.Process()
    while descendants := me.children(recursive=True):
        for process in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _reap()
        time.sleep(0.005)


def _reap() -> None:
    """Collect dead children, adopted ones among them, so that they leave the process table."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
