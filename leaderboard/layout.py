"""Names and places inside a results folder: what may be a name, and what counts as kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harness.record import Slug
from leaderboard.documents import DatabaseError

_SLUG: TypeAdapter[str] = TypeAdapter(Slug)
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}){0,3}")


def checked_slug(name: str) -> str:
    """`name` itself when it can name a folder safely; DatabaseError for anything else, such as `../x`."""
    try:
        return _SLUG.validate_python(name)
    except ValidationError:
        mend = "use lower case letters, digits, '-', '_' and '.', beginning with a letter or digit"
        raise DatabaseError(f"{name!r} is not an id; {mend}") from None


def checked_name(name: str) -> str:
    """`name` itself when it is a plain relative file name; DatabaseError for anything else."""
    if not _FILE_NAME.fullmatch(name):
        raise DatabaseError(f"submission file {name!r}: not a plain relative name; use letters, digits, '-', '_' and '.', no hidden files")
    return name


def folders(place: Path) -> list[Path]:
    """The kept folders in `place`, by name; none when it does not exist."""
    return sorted(path for path in _listed(place) if path.is_dir())


def documents_in(place: Path) -> list[Path]:
    """The kept `*.json` files in `place`, by name; none when it does not exist."""
    return sorted(path for path in _listed(place) if path.suffix == ".json" and path.is_file())


def read_texts(place: Path) -> dict[str, str]:
    """All text files below `place`: relative name -> text, by name. DatabaseError for one that is not UTF-8."""
    texts = {}
    for name, content in kept_files(place, (".",)).items():
        try:
            texts[name] = content.decode()
        except UnicodeDecodeError:
            raise DatabaseError(f"{place / name}: is not UTF-8 text; restore the file from version control or a copy") from None
    return texts


def kept_files(root: Path, rooms: Sequence[str]) -> dict[str, bytes]:
    """Every kept file below the rooms: path relative to `root`, with '/' -> content, by path. Links are not followed."""
    found: dict[str, bytes] = {}
    for room in rooms:
        waiting = [root / room]
        while waiting:
            for path in _listed(waiting.pop()):
                if path.is_dir():
                    waiting.append(path)
                elif path.is_file():
                    found[path.relative_to(root).as_posix()] = _content(path)
    return dict(sorted(found.items()))


def _listed(place: Path) -> list[Path]:
    """What lies in a folder, without links, hidden names and what a crash left unfinished."""
    if place.is_symlink():
        return []
    try:
        return [path for path in place.iterdir() if not path.name.startswith(".") and not path.is_symlink()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DatabaseError(f"{place}: cannot be listed ({error.strerror}); check the folder's permissions") from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatabaseError(f"{path}: cannot be read ({error.strerror}); check the file's permissions") from None
