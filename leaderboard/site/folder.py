"""Replaces a whole folder at once, so that nobody meets a half-built site."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from leaderboard.site.archive import SiteError

MARKERS = ("index.json", "static/board.css")
"""A folder that has these files is taken for an earlier build, unless it holds hidden ones such as `.git`."""


def replace_folder(out: Path, files: Mapping[str, bytes]) -> None:
    """Make `out` hold exactly `files` (relative path -> content).

    The files are written beside it first; then two renames put them in its place. When anything fails, `out` is as before.
    Raises SiteError when `out` holds something that is not a site, or cannot be written.
    """
    _refuse_foreign(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as space:
            building, old = Path(space) / "new", Path(space) / "old"
            _write(building, files)
            _swap(building, out, old)
    except OSError as error:
        raise SiteError(f"{out}: cannot be written ({error.strerror}); choose another --out, or make its parent writable") from None


def _refuse_foreign(out: Path) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if out.is_dir() and not out.is_symlink():
        names = [item.name for item in out.iterdir()]
        hidden = any(name.startswith(".") for name in names)
        if not names or (not hidden and all((out / marker).is_file() for marker in MARKERS)):
            return
    raise SiteError(f"{out}: holds something that is not a site built here; choose an empty or a new folder with --out")


def _write(building: Path, files: Mapping[str, bytes]) -> None:
    building.mkdir()
    for name, content in sorted(files.items()):
        path = building / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _swap(building: Path, out: Path, old: Path) -> None:
    if not out.exists():
        os.rename(building, out)
        return
    os.rename(out, old)
    try:
        os.rename(building, out)
    except OSError:
        os.rename(old, out)
        raise
    shutil.rmtree(old)
