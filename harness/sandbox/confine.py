"""The supervisor's child on its way to the command: limits, a policy put into force, and only then the program."""

from __future__ import annotations

import os
import resource
import signal

from harness.sandbox import kernel, landlock, namespaces, seccomp
from harness.sandbox.landlock import Grant
from harness.sandbox.policy import Policy

MAX_PROCESSES = 16_384
"""Processes and threads of this user: eight ranks, each with as many threads as a large node has cores, and compilers beside them."""
MAX_OPEN_FILES = 65_536


def confine(policy: Policy) -> None:
    """Put a policy into force for this process and its descendants, for good. Raises OSError.

    With namespaces, this process becomes the first of its own process table, and a child of it returns from here instead.
    """
    if policy.mode == "none":
        return
    _limit(resource.RLIMIT_NPROC, MAX_PROCESSES)
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    own_network = policy.mode == "namespaces"
    if own_network:
        namespaces.enter(policy, os.getcwd())
    kernel.prctl("no_new_privs", kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.drop_capabilities()
    if landlock.abi():
        landlock.restrict(_grants(policy), None if own_network else landlock.ephemeral_ports())
    seccomp.refuse_calls(datagrams=own_network)
    if own_network:
        _leave_to_a_child()


def _grants(policy: Policy) -> list[Grant]:
    """Landlock's rights. In a root of its own everything may be read that is there; else only what the policy names."""
    if policy.mode == "namespaces":
        readable = [Grant("/", landlock.READ)]
        writable = ["/tmp", "/dev/shm", *policy.writable]
    else:
        readable = [Grant(path, landlock.READ) for path in (*policy.readable, "/proc", "/sys")]
        readable += [Grant(path, landlock.LIST) for path in policy.listable]
        writable = ["/dev/shm", *policy.writable]
    return [
        *readable,
        *(Grant(path, landlock.WRITE) for path in writable),
        *(Grant(path, landlock.USE_DEVICE) for path in policy.devices),
    ]


def _leave_to_a_child() -> None:
    """Fork: the child returns; this process reaps what is orphaned and ends with the child's status, and all others with it."""
    child = os.fork()
    if child == 0:
        return
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        process, status = os.wait()
        if process == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _limit(which: int, most: int) -> None:
    """Lower a limit, if it is not lower already."""
    soft, hard = (most if limit == resource.RLIM_INFINITY else min(limit, most) for limit in resource.getrlimit(which))
    resource.setrlimit(which, (soft, hard))
