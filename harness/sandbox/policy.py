"""What one sandbox shows and allows: a value that the harness makes and the supervisor's child puts into force."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Mode = Literal["namespaces", "landlock", "none"]
"""`record.SandboxName`, without the cost of importing the schema in every supervisor."""
DEFAULT_SHARED_MEMORY_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Policy:
    """Files and folders that a command may use; whatever is not named here does not exist for it, or cannot be opened."""

    mode: Mode
    readable: tuple[str, ...] = ()
    """To read and execute."""
    listable: tuple[str, ...] = ()
    """Folders whose names may be listed; of what is in them, only what `readable` names can be opened."""
    writable: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    shared_memory_bytes: int = DEFAULT_SHARED_MEMORY_BYTES
    """Size of the private /dev/shm, which only namespaces have."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Policy:
        values = json.loads(text)
        readable, listable, writable, devices = (tuple(values[name]) for name in ("readable", "listable", "writable", "devices"))
        return cls(values["mode"], readable, listable, writable, devices, values["shared_memory_bytes"])


UNCONFINED = Policy("none")


@dataclass(frozen=True, slots=True)
class Shown:
    """What is left of trees to read when hidden places are taken out of them."""

    readable: tuple[str, ...]
    listable: tuple[str, ...]


def without_hidden(trees: Sequence[str | Path], hidden: Iterable[str | Path]) -> Shown:
    """The trees (files or folders), each under its own name and under its real one, less the hidden places inside them.

    A folder that holds a hidden place is replaced by what else is in it, down to the hidden place. A tree inside a hidden place stays:
    it was named on purpose.
    """
    out = [os.path.realpath(path) for path in hidden if os.path.exists(path)]
    readable: dict[str, None] = {}
    listable: dict[str, None] = {}
    for tree in trees:
        name, real = os.path.abspath(tree), os.path.realpath(tree)
        if not os.path.exists(real):
            continue
        for suffix, whole in _parts(real, [path for path in out if _inside(path, real)], real):
            (readable if whole else listable).update({name + suffix: None, real + suffix: None})
    folders = [path for path in readable if os.path.isdir(path) and not os.path.islink(path)]
    covered = set(folders)
    return Shown(tuple(path for path in readable if not _below_any(path, covered)), tuple(listable))


def _parts(folder: str, hidden: Sequence[str], real: str) -> list[tuple[str, bool]]:
    """(path relative to `real` with a leading slash, whether all of it is shown) of what is left of a folder."""
    suffix = folder.removeprefix(real)
    if not any(_inside(path, folder) for path in hidden):
        return [(suffix, True)]
    if folder in hidden:
        return []
    parts = [(suffix, False)]
    for entry in _entries(folder):
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if not any(_inside(target, path) or _inside(path, target) for path in hidden):
                parts.append((entry.path.removeprefix(real), True))
        else:
            parts += _parts(entry.path, hidden, real)
    return parts


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing where this user may not look, who then could not use it either."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except PermissionError:
        return []


def _inside(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _below_any(path: str, folders: set[str]) -> bool:
    """Whether one of the folders holds the path, and shows it under this name."""
    parent = os.path.dirname(path)
    while parent != "/":
        if parent in folders:
            return True
        parent = os.path.dirname(parent)
    return False
