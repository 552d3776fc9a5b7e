"""How long work reports where it is; the caller draws."""

from __future__ import annotations

import threading
from typing import Literal, Protocol

Stage = Literal["extract", "download", "tokenizer", "tokenize", "pack", "verify"]
"""Units: extract counts source files, tokenizer characters of training text, and all others bytes of the files that are worked on."""


class Progress(Protocol):
    """Called from any thread, with `done` growing from 0 to `total` within a stage."""

    def __call__(self, stage: Stage, done: int, total: int) -> None: ...


def silent(stage: Stage, done: int, total: int) -> None:
    """Report nothing."""


class Tally:
    """Adds up the advances of several threads and reports the sum, one report at a time."""

    def __init__(self, stage: Stage, total: int, progress: Progress) -> None:
        self._stage: Stage = stage
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()
        progress(stage, 0, total)

    def advance(self, amount: int) -> None:
        """Report `amount` more units as done; a negative amount takes back work that has to be repeated."""
        with self._lock:
            self._done += amount
            self._progress(self._stage, self._done, self._total)

    def finish(self) -> None:
        """Report the end, with the total corrected to what was done."""
        with self._lock:
            self._progress(self._stage, self._done, self._done)
