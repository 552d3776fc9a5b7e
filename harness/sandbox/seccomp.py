"""A filter of system calls: what no trainer needs, and what would open a door that namespaces or Landlock leave ajar.

It is a classic BPF program over `struct seccomp_data`. Refused calls fail with EPERM (clone3 with ENOSYS, so that the C library falls
back to clone, whose flags a filter can read). The filter holds for all descendants, for good.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from harness.sandbox import kernel

COLUMNS = {"x86_64": 0, "aarch64": 1}
"""Of the tables below."""
REFUSED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "setns": (308, 268),
    "unshare": (272, 97),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_unlink": (241, 181),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
}
"""Looking into other processes; mounts and namespaces; the kernel's insides; keyrings, System V objects and message queues, which outlive
a process; and io_uring, which makes sockets that no filter of system calls sees."""
CLONE = (56, 220)
SOCKET = (41, 198)
CLONE3 = 435
X32_BIT = 0x4000_0000
"""Set in the numbers of x86-64's second interface, which would pass by every number above."""
NEW_NAMESPACES = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWCGROUP
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
)
AF_NETLINK = 16
"""By which libraries list the network's interfaces."""

_ALLOW, _ERRNO, _KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _JUMP_IF_ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _PROCESSOR, _ARGUMENT = 0, 4, 16
_SET_MODE_FILTER = 1
_SPEC_ALLOW = 4
"""Leaves the processor's speculation as it is: before Linux 5.16 a filter would otherwise slow down all that the process computes."""
_SOCKET_TYPE_MASK = 0xF
_IPPROTO_TCP = 6


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("if_true", ctypes.c_uint8), ("if_false", ctypes.c_uint8), ("value", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction))]


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction; jumps are counted in instructions from the next."""

    code: int
    value: int
    if_true: int = 0
    if_false: int = 0


def refuse_calls(*, datagrams: bool) -> None:
    """Install the filter. `datagrams`: whether internet sockets other than TCP may be made. Needs no_new_privs. Raises OSError."""
    lines = program(platform.machine(), datagrams=datagrams)
    instructions = (_Instruction * len(lines))(*(_Instruction(line.code, line.if_true, line.if_false, line.value) for line in lines))
    filter_ = _Program(len(lines), instructions)
    number = kernel.processor().seccomp
    kernel.system_call("the seccomp filter", number, _SET_MODE_FILTER, ctypes.c_uint(_SPEC_ALLOW), ctypes.byref(filter_))


def program(machine: str, *, datagrams: bool) -> list[Line]:
    """The filter for a processor of PROCESSORS."""
    column = COLUMNS[machine]
    return [
        Line(_LOAD, _PROCESSOR),
        Line(_JUMP_IF_EQUAL, kernel.PROCESSORS[machine].audit, if_true=1),
        Line(_RETURN, _KILL),
        Line(_LOAD, _NUMBER),
        *_unless(Line(_JUMP_IF_AT_LEAST, X32_BIT), [_refuse(errno.EPERM)]),
        *_unless(Line(_JUMP_IF_EQUAL, CLONE3), [_refuse(errno.ENOSYS)]),
        *_unless(Line(_JUMP_IF_EQUAL, CLONE[column]), _clone()),
        *_unless(Line(_JUMP_IF_EQUAL, SOCKET[column]), _socket(datagrams=datagrams)),
        *_any_of(numbers[column] for numbers in REFUSED.values()),
        Line(_RETURN, _ALLOW),
    ]


def _unless(test: Line, block: list[Line]) -> list[Line]:
    """A block, which must end by returning, that is skipped unless the test holds."""
    return [Line(test.code, test.value, if_false=len(block)), *block]


def _any_of(numbers: Iterable[int]) -> list[Line]:
    return [line for number in numbers for line in _unless(Line(_JUMP_IF_EQUAL, number), [_refuse(errno.EPERM)])]


def _clone() -> list[Line]:
    """Processes and threads, but no namespaces."""
    return [
        Line(_LOAD, _ARGUMENT),
        *_unless(Line(_JUMP_IF_ANY_BIT, NEW_NAMESPACES), [_refuse(errno.EPERM)]),
        Line(_RETURN, _ALLOW),
    ]


def _socket(*, datagrams: bool) -> list[Line]:
    """Unix sockets, netlink, and the internet's: TCP alone, or whatever the network namespace lets happen."""
    allow = [Line(_RETURN, _ALLOW)]
    internet = allow if datagrams else _tcp_alone()
    return [
        Line(_LOAD, _ARGUMENT),
        *_unless(Line(_JUMP_IF_EQUAL, socket.AF_UNIX), allow),
        *_unless(Line(_JUMP_IF_EQUAL, AF_NETLINK), allow),
        *_unless(Line(_JUMP_IF_EQUAL, socket.AF_INET), internet),
        *_unless(Line(_JUMP_IF_EQUAL, socket.AF_INET6), internet),
        _refuse(errno.EPERM),
    ]


def _tcp_alone() -> list[Line]:
    """Landlock knows the ports of TCP: not those of UDP, multipath TCP or SCTP."""
    allow = [Line(_RETURN, _ALLOW)]
    protocol = [
        Line(_LOAD, _ARGUMENT + 16),
        *_unless(Line(_JUMP_IF_EQUAL, 0), allow),
        *_unless(Line(_JUMP_IF_EQUAL, _IPPROTO_TCP), allow),
        _refuse(errno.EPERM),
    ]
    return [
        Line(_LOAD, _ARGUMENT + 8),
        Line(_AND, _SOCKET_TYPE_MASK),
        *_unless(Line(_JUMP_IF_EQUAL, socket.SOCK_STREAM), protocol),
        _refuse(errno.EPERM),
    ]


def _refuse(code: int) -> Line:
    return Line(_RETURN, _ERRNO | code)
