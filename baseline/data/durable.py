"""Files that are either whole or absent, and JSON files that carry their own SHA-256.

A crash at any moment leaves the old file, the new file, or no file; never half of one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from baseline.data.errors import DataError
from baseline.data.progress import Tally

HASH_BLOCK_BYTES = 8 << 20


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write; it appears under `path` when the block ends without an exception, durable on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DataError(
                f"{path} could not be written: the disk is full. Free some space and start again; what is finished is kept"
            ) from None
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Wait until no other process is inside this block for the same folder. The kernel frees the lock of a killed process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sha256_of(path: Path, tally: Tally | None = None) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
            if tally:
                tally.advance(len(block))
    return digest.hexdigest()


def seal(content: Mapping[str, Any]) -> tuple[str, bytes]:
    """(SHA-256 of the content's canonical JSON, the bytes of a file that holds that digest and the content)."""
    digest = hashlib.sha256(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()
    text = json.dumps({"sha256": digest, **content}, ensure_ascii=False, indent=1) + "\n"
    return digest, text.encode()


def write_sealed(path: Path, content: Mapping[str, Any]) -> str:
    """Write `content` with its digest, durably; returns the digest."""
    digest, data = seal(content)
    with whole_file(path) as file:
        file.write(data)
    return digest


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a sealed file, without its digest. DataError names the file if it is absent or if any byte of it has changed."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: prepare the data again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    try:
        content = json.loads(data)
        content.pop("sha256")
        intact = seal(content)[1] == data
    except (ValueError, KeyError, AttributeError, TypeError):
        intact = False
    if not intact:
        raise DataError(f"{path} is damaged: its content does not match the SHA-256 it carries. Delete it and prepare the data again")
    assert isinstance(content, dict)
    return content
