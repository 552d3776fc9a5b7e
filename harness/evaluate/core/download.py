"""Brings the published zip of CORE's examples to this machine: once, whole, and every file in it verified before it gets its name."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from baseline.data.durable import exclusive
from harness.errors import MachineLacks, UsageProblem
from harness.evaluate.core.bundle import BRING, DATA_FOLDERS, DEFAULT_FOLDER, ZIP_NAME, Bundle, open_bundle
from harness.evaluate.core.tasks import CORE_TASKS, Task

BUNDLE_URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"
"""About 26 MB. Its own digest is not published; the digests of the files inside decide."""
MAX_ZIP_BYTES = 256 << 20
"""More than ten times the published file."""
ATTEMPTS = 5
FIRST_WAIT_S = 1.0
"""Pause before the second attempt; it doubles from attempt to attempt."""
TIMEOUT_S = 30.0
"""Without a byte."""
BLOCK_BYTES = 1 << 18
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

Progress = Callable[[int, int], None]
"""(bytes received, bytes in all; 0 when the server does not say)."""


def silent(done: int, total: int) -> None:
    """Report nothing."""


def download_bundle(
    folder: Path = DEFAULT_FOLDER,
    *,
    url: str = BUNDLE_URL,
    tasks: tuple[Task, ...] = CORE_TASKS,
    first_wait_s: float = FIRST_WAIT_S,
    progress: Progress = silent,
) -> Bundle:
    """The verified bundle in `folder`, fetched unless an intact one is there. A damaged zip is replaced; a damaged folder is left alone.

    Raises MachineLacks with one line when the server cannot be reached, stops short in every attempt, or sends something else.
    """
    with exclusive(folder):
        if any((folder / place).is_dir() for place in DATA_FOLDERS):
            return _verified(folder, tasks)
        with suppress(MachineLacks, UsageProblem):  # missing or damaged
            return _verified(folder, tasks)
        partial = folder / (ZIP_NAME + ".partial")
        try:
            _fetch(url, partial, first_wait_s, progress)
            _verified(partial, tasks)
            partial.replace(folder / ZIP_NAME)
        except UsageProblem:
            raise MachineLacks("sends something that is no zip file", where=url, mend=f"look at it with a browser, or {BRING}") from None
        finally:
            partial.unlink(missing_ok=True)
        return open_bundle(folder)


def _verified(path: Path, tasks: tuple[Task, ...]) -> Bundle:
    bundle = open_bundle(path)
    bundle.verify(tasks)
    return bundle


def _fetch(url: str, target: Path, first_wait_s: float, progress: Progress) -> None:
    """Write what the server sends, trying again after a pause where that may help."""
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(first_wait_s * 2 ** (attempt - 1))
        try:
            return _receive(url, target, progress)
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code not in TRANSIENT_STATUS:
                break
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
    raise MachineLacks(f"the examples of CORE could not be downloaded ({reason})", where=url, mend=f"go online and try again, or {BRING}")


def _receive(url: str, target: Path, progress: Progress) -> None:
    """One attempt. Raises OSError when fewer or more bytes arrive than were announced."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, target.open("wb") as file:
        announced = int(response.headers.get("Content-Length") or 0)
        received = 0
        while block := response.read(BLOCK_BYTES):
            received += len(block)
            if received > MAX_ZIP_BYTES:
                raise MachineLacks(f"sends more than {MAX_ZIP_BYTES:,} bytes, which is not the bundle", where=url, mend=BRING)
            file.write(block)
            progress(received, announced)
        if announced and received != announced:
            raise ConnectionError(f"the connection broke after {received:,} of {announced:,} bytes")
