"""Linux system calls that Python has no function for, through ctypes. Each raises OSError that names what was tried."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REC, MS_PRIVATE = 0x4000, 0x4_0000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MNT_DETACH = 2
_CAPABILITY_VERSION_3 = 0x2008_0522

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
"""Calls newer than Linux 5.0 have the same number on every processor."""


@dataclass(frozen=True, slots=True)
class Processor:
    """The numbers that differ between processors."""

    audit: int
    """How seccomp names it."""
    pivot_root: int
    seccomp: int


PROCESSORS = {
    "x86_64": Processor(audit=0xC000_003E, pivot_root=155, seccomp=317),
    "aarch64": Processor(audit=0xC000_00B7, pivot_root=41, seccomp=277),
}


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace")]


def system_call(what: str, number: int, *arguments: object) -> int:
    """Any call by its number; `what` is how an error names it."""
    return _checked(what, _libc.syscall(ctypes.c_long(number), *arguments))


def processor() -> Processor:
    """This machine's numbers; OSError where nobody has looked them up."""
    try:
        return PROCESSORS[platform.machine()]
    except KeyError:
        raise OSError(f"the numbers of system calls on {platform.machine()} are not known here") from None


def unshare(flags: int) -> None:
    """Give this process (for CLONE_NEWPID: its next child) namespaces of its own."""
    _checked("new namespaces", _libc.unshare(ctypes.c_int(flags)))


def prctl(what: str, option: int, value: int) -> None:
    """One of prctl's options that take a single number."""
    _checked(what, _libc.prctl(ctypes.c_int(option), *(ctypes.c_ulong(word) for word in (value, 0, 0, 0))))


def mount(kind: str, target: str, flags: int, options: str = "") -> None:
    """Mount a fresh file system; `kind` is its type."""
    words = (kind.encode(), target.encode(), kind.encode())
    _checked(f"mounting {kind} on {target}", _libc.mount(*words, ctypes.c_ulong(flags), options.encode()))


def make_mounts_private() -> None:
    """What is mounted from here on shows in no other namespace."""
    _checked("making mounts private", _libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None))


def copy_mount(path: str, attributes: int) -> int:
    """A descriptor of a detached copy of what `path` shows, mounts below it included, with MOUNT_ATTR_… on all of it (Linux 5.12)."""
    flags = ctypes.c_uint(_OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC)
    tree = system_call(f"copying the mount of {path}", _OPEN_TREE, _AT_FDCWD, path.encode(), flags)
    set_mount_attributes(tree, attributes, recursive=True)
    return tree


def set_mount_attributes(descriptor: int, attributes: int, *, recursive: bool) -> None:
    """Add MOUNT_ATTR_… to a mount; those that it has already stay."""
    wanted = _MountAttributes(attributes, 0, 0, 0)
    flags = ctypes.c_uint(_AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0))
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    system_call("restricting a mount", _MOUNT_SETATTR, descriptor, b"", flags, ctypes.byref(wanted), size)


def attach_mount(tree: int, target: str) -> None:
    """Put what `copy_mount` returned in place."""
    system_call(f"mounting on {target}", _MOVE_MOUNT, tree, b"", _AT_FDCWD, target.encode(), ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH))


def make_root(folder: str) -> None:
    """The mount at `folder` becomes this process's root, and nothing of the old root can be reached any more."""
    os.chdir(folder)
    system_call("changing the root", processor().pivot_root, b".", b".")
    _checked("letting go of the old root", _libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability for good. A process that may not shrink the bounding set has none to lose, given no_new_privs."""
    for capability in range(64):
        if _libc.prctl(ctypes.c_int(PR_CAPBSET_DROP), *(ctypes.c_ulong(word) for word in (capability, 0, 0, 0))):
            break
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked("dropping capabilities", _libc.capset(header, nothing))


def _checked(what: str, result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
