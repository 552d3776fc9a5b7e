"""Namespaces: a network that has nothing but loopback, processes of its own, and a root folder of what the policy shows.

`leave` is called by the supervisor, which stays in the machine's own file system and process table; `enter` by its child, which
becomes process 1 of the new table. When process 1 ends, the kernel kills every process of the table and frees the mounts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Container, Iterable

from harness.sandbox import kernel
from harness.sandbox.policy import Policy

BASE = "/tmp"
"""Where the new root is put together, over what is there; nobody else sees it."""
ROOT_BYTES = 2**24
"""Room for the folders that things are mounted on."""
PRIVATE_TMP_BYTES = 2**28
"""For programs that ignore TMPDIR, which lies on disk."""
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_INTERFACE = "16sH22x"
"""struct ifreq: a name and flags."""
READ_ONLY = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID
STANDARD_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}


def leave() -> None:
    """New users and network for this process; new processes from its next child on. Raises OSError.

    In the new user namespace the caller has the same numbers as before, and no others exist.
    """
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET | kernel.CLONE_NEWPID)
    for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    _raise_loopback()


def enter(policy: Policy, working_folder: str) -> None:
    """A root folder of what the policy shows, for this process and its descendants. Raises OSError."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.make_mounts_private()
    copies = _copies(policy)
    kernel.mount("tmpfs", BASE, kernel.MS_NOSUID | kernel.MS_NODEV, f"size={ROOT_BYTES},mode=755")
    for folder in ("/proc", "/tmp", "/dev/shm"):
        os.makedirs(BASE + folder)
    kernel.mount("tmpfs", f"{BASE}/tmp", kernel.MS_NOSUID | kernel.MS_NODEV, f"size={PRIVATE_TMP_BYTES},mode=700")
    kernel.mount("tmpfs", f"{BASE}/dev/shm", kernel.MS_NOSUID | kernel.MS_NODEV, f"size={policy.shared_memory_bytes},mode=700")
    kernel.mount("proc", f"{BASE}/proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_RDONLY)
    on_the_way = _folders_on_the_way([*policy.listable, *copies, working_folder], copies)
    for folder in on_the_way:
        os.makedirs(BASE + folder)
        kernel.mount("tmpfs", BASE + folder, kernel.MS_NOSUID | kernel.MS_NODEV, f"size={ROOT_BYTES},mode=755")
    for folder in policy.listable:
        os.makedirs(BASE + folder, exist_ok=True)
    for path in sorted(copies, key=_depth):
        _attach(copies[path], BASE + path)
    for name, target in STANDARD_LINKS.items():
        os.symlink(target, f"{BASE}/dev/{name}")
    os.makedirs(BASE + working_folder, exist_ok=True)
    for folder in ("", *on_the_way):
        made = os.open(BASE + folder, os.O_PATH | os.O_CLOEXEC)
        kernel.set_mount_attributes(made, kernel.MOUNT_ATTR_RDONLY, recursive=False)
        os.close(made)
    kernel.make_root(BASE)
    os.chdir(working_folder)


def _folders_on_the_way(paths: Iterable[str], copies: Container[str]) -> list[str]:
    """Folders of the private /tmp in which something is shown, a repository that lies in /tmp for example.

    /tmp is writable, and so would be the folders made in it to hold what is shown: modules could be put beside the real ones.
    """
    found = {"/tmp/" + path.split("/")[2] for path in paths if path.startswith("/tmp/") and path.count("/") > 2}
    return sorted(folder for folder in found if folder not in copies)


def _copies(policy: Policy) -> dict[str, int]:
    """Path -> descriptor of a detached mount of what lies there now. Taken before BASE hides anything."""
    attributes = {
        **dict.fromkeys((*policy.readable, "/sys"), READ_ONLY | kernel.MOUNT_ATTR_NODEV),
        **dict.fromkeys(policy.writable, kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV),
        **dict.fromkeys(policy.devices, kernel.MOUNT_ATTR_NOSUID),
    }
    copies = {}
    for path, wanted in attributes.items():
        with contextlib.suppress(FileNotFoundError, PermissionError):
            copies[path] = kernel.copy_mount(path, wanted)
    return copies


def _attach(copy: int, target: str) -> None:
    """Put a copied mount on a fresh folder or file."""
    if stat.S_ISDIR(os.fstat(copy).st_mode):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o600))
    kernel.attach_mount(copy, target)
    os.close(copy)


def _depth(path: str) -> int:
    """Parents come first."""
    return path.count("/")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack(_INTERFACE, b"lo", 0))
        _, flags = struct.unpack(_INTERFACE, answer)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack(_INTERFACE, b"lo", flags | _IFF_UP))
