"""Room on the disk, asked for before the work that needs it."""

from __future__ import annotations

import shutil
from pathlib import Path

from baseline.data.errors import DataError

FREE_MARGIN_BYTES = 1 << 30
"""Left free on the disk beyond what is needed."""


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise DataError unless the disk of an existing folder has `needed` bytes free for `what`, and FREE_MARGIN_BYTES to spare."""
    free = shutil.disk_usage(folder).free
    if needed and free < needed + FREE_MARGIN_BYTES:
        raise DataError(
            f"{folder} has {free / 1e9:.1f} GB free, and {what} need {(needed + FREE_MARGIN_BYTES) / 1e9:.1f} GB: "
            "free some space, or choose a folder on another disk"
        )
