"""Runs one command, confined, and makes sure that nothing of it survives. Started by path, as its own small process.

It adopts every descendant (Linux subreaper), so that torchrun's workers, which have sessions of their own, cannot
slip away. When the command ends, or the parent goes away (end of standard input), or asks for it (any byte on standard
input), every descendant is killed, and only then does the supervisor leave, with the command's exit status.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import time
from typing import NoReturn

import psutil

from harness.sandbox import kernel, namespaces
from harness.sandbox.confine import confine
from harness.sandbox.policy import Policy
from harness.sandbox.remnants import SharedMemory

POLL_S = 0.05
STOPPED = 75
"""Exit status when the parent went away or asked to stop."""
NOT_CONFINED = 76
"""Exit status when the sandbox could not be made; the last line on stderr says why."""
NOT_STARTED = 127
"""Exit status when the command could not be started."""


def main(arguments: list[str]) -> int:
    """`supervisor.py FILE_SIZE_LIMIT COMMAND…`, and a Policy as one line of JSON on standard input.

    The limit in bytes holds for each file that the command writes.
    """
    policy = Policy.from_json(_first_line())
    limit = int(arguments[0])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    shared_memory = SharedMemory.now()
    try:
        if sys.platform == "linux":
            kernel.prctl("adopting orphans", kernel.PR_SET_CHILD_SUBREAPER, 1)
        if policy.mode == "namespaces":
            namespaces.leave()
    except OSError as error:
        return _say_why_not(error)
    status = _wait(_start(arguments[1:], policy))
    _kill_all()
    shared_memory.remove_newer()
    return status


def _first_line() -> str:
    """What the parent writes before anything else; end of input means that it is gone."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1)
        if not part:
            sys.exit(STOPPED)
        line += part
    return line.decode()


def _start(command: list[str], policy: Policy) -> int:
    """Start the command in a session of its own, confined; returns its process id."""
    alive, kept_open = os.pipe()
    child = os.fork()
    if child:
        os.close(alive)
        return child
    os.close(kept_open)
    try:
        _become(command, policy, alive)
    except Exception as error:
        os.write(2, f"{command[0]} could not be started: {error!r}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def _become(command: list[str], policy: Policy, alive: int) -> NoReturn:
    """In the child. `alive` is a pipe that ends with the supervisor: whoever kills the supervisor kills the command too (Linux)."""
    if sys.platform == "linux":
        kernel.prctl("dying with the supervisor", kernel.PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if select.select([alive], [], [], 0)[0]:
            os._exit(STOPPED)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, and so by what it starts
        signal.signal(number, signal.SIG_DFL)
    try:
        confine(policy)
    except OSError as error:
        os._exit(_say_why_not(error))
    os.execv(command[0], command)


def _say_why_not(error: OSError) -> int:
    where = f"{error.filename}: " if error.filename else ""
    os.write(2, f"no sandbox: {where}{error.args[-1]}\n".encode())
    return NOT_CONFINED


def _wait(child: int) -> int:
    """The command's exit status, or STOPPED."""
    while True:
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
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
