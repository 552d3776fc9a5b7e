"""Shared memory outlives the processes that made it. Where a sandbox has no /dev/shm of its own, what a run left there is removed."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

FOLDER = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Names that were in /dev/shm before a run."""

    before: frozenset[str]

    @classmethod
    def now(cls) -> SharedMemory:
        return cls(frozenset(_names()))

    def remove_newer(self) -> None:
        """Remove what this user has there since, and no living process of this user has open or mapped."""
        newer = [name for name in _names() - self.before if _mine(FOLDER / name)]
        used = _in_use() if newer else set()
        for name in newer:
            with contextlib.suppress(OSError):
                status = (FOLDER / name).lstat()
                if (status.st_dev, status.st_ino) not in used:
                    (FOLDER / name).unlink()


def _names() -> set[str]:
    with contextlib.suppress(OSError):
        return set(os.listdir(FOLDER))
    return set()


def _mine(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.lstat().st_uid == os.getuid()
    return False


def _in_use() -> set[tuple[int, int]]:
    """(device, inode) of each file that a process of this user has open or mapped; other users' processes do not let us look.

    By inode and not by name: the C library makes a named semaphore under another name, which is the one that its mapping keeps.
    """
    found: set[tuple[int, int]] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            for link in os.scandir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(OSError):  # closed meanwhile
                    status = os.stat(link.path)
                    found.add((status.st_dev, status.st_ino))
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
                device, inode = line.split()[3:5]
                major, minor = (int(part, 16) for part in device.split(":"))
                found.add((os.makedev(major, minor), int(inode)))
    return found
