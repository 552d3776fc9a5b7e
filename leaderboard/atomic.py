"""Writes that are there completely or not at all, also after a crash or a power cut.

Everything is first written under a name that starts with `.writing-`, flushed to the disk, and then renamed.
Readers skip such names. POSIX renames within one file system are atomic.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".writing-"
"""Prefix of files and folders that a crash may leave behind."""


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the only writer's place in `root`, which is created when missing. Waits for another writer; OSError when not writable."""
    make_folder(root)
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Create `path` and its parents so that their names survive a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        _flush_folder(folder.parent)


def write_file(path: Path, content: bytes) -> None:
    """Create or replace one file."""
    make_folder(path.parent)
    _sweep(path.parent)
    handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    os.rename(name, path)
    _flush_folder(path.parent)


def publish_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Create the folder `path` with all its files (relative name -> content) in one step. OSError when it exists and is not empty."""
    make_folder(path.parent)
    _sweep(path.parent)
    building = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=path.parent))
    building.chmod(0o755)
    for name, content in sorted(files.items()):
        write_file(building / name, content)
    os.rename(building, path)
    _flush_folder(path.parent)


def _sweep(folder: Path) -> None:
    """Remove what a crashed writer left here. Safe because writers exclude each other."""
    for left in sorted(folder.glob(UNFINISHED + "*")):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
