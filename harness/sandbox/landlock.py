"""Landlock: rights to files and TCP ports that a process gives up, with all its descendants, for good (Linux 5.13 and later).

A right that is handled here is refused unless a rule grants it. What the kernel's interface is too old to handle stays allowed.
See the kernel's userspace-api/landlock.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

from harness.sandbox import kernel

TCP_ABI = 4
"""The first interface that knows TCP ports (Linux 6.7)."""
_SCOPE_ABI = 6
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2
PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Right(IntFlag):
    """What may be done to files, in the kernel's order."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ = Right.EXECUTE | Right.READ_FILE | Right.READ_DIR
LIST = Right.READ_DIR
USE_DEVICE = Right.READ_FILE | Right.WRITE_FILE | Right.IOCTL_DEV | Right.READ_DIR
WRITE = ~(Right.MAKE_CHAR | Right.MAKE_BLOCK | Right.IOCTL_DEV)
"""All but devices."""
_OF_FILES = Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE | Right.IOCTL_DEV
"""The rights that a rule for a single file may name."""
_HANDLED_BY_ABI = {1: Right((1 << 13) - 1), 2: Right((1 << 14) - 1), 3: Right((1 << 15) - 1), 4: Right((1 << 15) - 1)}
_ALL = Right((1 << 16) - 1)


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights to a file, or to everything in a folder."""

    path: str
    rights: Right


class _Ruleset(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "network", "scoped")]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


class _NetPort(ctypes.Structure):
    _fields_ = [("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def abi() -> int:
    """Version of the kernel's interface; 0 where it has none or has it turned off. Asking restricts nothing."""
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError):
        return kernel.system_call("Landlock", _CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    return 0


def ephemeral_ports() -> range:
    """The ports that the kernel hands out to whoever asks for any: torchrun, gloo and NCCL use no other."""
    first, last = PORT_RANGE.read_text().split()
    return range(int(first), int(last) + 1)


def restrict(grants: Iterable[Grant], tcp_ports: Collection[int] | None = None) -> None:
    """From here on only what is granted, and no signal or abstract socket beyond this process's descendants (Linux 6.12).

    `tcp_ports`: those that may be bound and connected to, at any address; None leaves the network as it is. Grants to paths that do not
    exist are left out. Needs no_new_privs. Raises OSError.
    """
    version = abi()
    handled = _HANDLED_BY_ABI.get(version, _ALL)
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if version >= _SCOPE_ABI else 0
    wanted = _Ruleset(handled, 0 if tcp_ports is None else _BIND_TCP | _CONNECT_TCP, scoped)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    ruleset = kernel.system_call("a Landlock ruleset", _CREATE_RULESET, ctypes.byref(wanted), size, ctypes.c_uint32(0))
    try:
        for grant in grants:
            _grant(ruleset, grant.path, grant.rights & handled)
        if tcp_ports is not None:
            _grant_ports(ruleset, tcp_ports)
        kernel.system_call("Landlock", _RESTRICT_SELF, ruleset, ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _grant(ruleset: int, path: str, rights: Right) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = rights if stat.S_ISDIR(os.fstat(parent).st_mode) else rights & _OF_FILES
        if allowed:
            _rule(ruleset, _PATH_BENEATH, _PathBeneath(allowed, parent))
    finally:
        os.close(parent)


def _grant_ports(ruleset: int, ports: Collection[int]) -> None:
    """One rule for each port, some 28,000 of them, so that the loop makes nothing new; and port 0, which asks for any of them."""
    rule = _NetPort(_BIND_TCP, 0)
    _rule(ruleset, _NET_PORT, rule)
    rule.allowed = _BIND_TCP | _CONNECT_TCP
    for port in ports:
        rule.port = port
        _rule(ruleset, _NET_PORT, rule)


def _rule(ruleset: int, kind: int, rule: ctypes.Structure) -> None:
    kernel.system_call("a Landlock rule", _ADD_RULE, ruleset, ctypes.c_int(kind), ctypes.byref(rule), ctypes.c_uint32(0))
