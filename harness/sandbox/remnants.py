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
        used = _in_use() if newer else ""
        for name in newer:
            if f"{FOLDER / name}\n" not in used:
                with contextlib.suppress(OSError):
                    (FOLDER / name).unlink()


def _names() -> set[str]:
    with contextlib.suppress(OSError):
        return set(os.listdir(FOLDER))
    return set()


def _mine(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.lstat().st_uid == os.getuid()
    return False


def _in_use() -> str:
    """One line for each file that a process of this user has open or mapped; other users' processes do not let us look."""
    lines = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            lines += [f"{os.readlink(link.path)}\n" for link in os.scandir(f"/proc/{process.pid}/fd")]
            lines.append(Path(f"/proc/{process.pid}/maps").read_text())
    return "".join(lines)
