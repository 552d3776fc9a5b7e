"""Where a model server writes its logits, and what the evaluator makes of them. The memory is the evaluator's own."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 2**19
"""Logits that are looked at together: three such blocks stay in a core's cache between the passes over them."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """What logits say of m tokens."""

    losses: NDArray[np.float32]
    """(m,) cross-entropy in nats; not a number where the logits are not finite."""
    greedy: NDArray[np.bool_]
    """(m,): the token is the argmax; of equal logits the first counts."""
    not_finite: int
    """Positions with a logit that is not finite."""


class LogitMemory(Protocol):
    """Memory that a server may write to: float32 (slots, positions, vocab)."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """How the server finds it, for its command line."""
        ...

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Open files that the server inherits."""
        ...

    def scores(self, slot: int, count: int, positions: NDArray[np.int64], targets: NDArray[np.int64]) -> TokenScores:
        """Of the slot's first `count` logits: how each target (m,) fares at its position (m,) in 0 … count - 1."""
        ...

    def logits(self, slot: int, begin: int, end: int) -> NDArray[np.float32]:
        """A copy of some of a slot's logits, (end - begin, vocab)."""
        ...


class MappedLogits:
    """Logits in a file without a name, mapped here and in the server."""

    def __init__(self, file: IO[bytes], shape: tuple[int, int, int]) -> None:
        self._descriptor = file.fileno()
        self._logits = np.memmap(file, np.float32, "r+", shape=shape)

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("--logits-fd", str(self._descriptor))

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._descriptor,)

    def scores(self, slot: int, count: int, positions: NDArray[np.int64], targets: NDArray[np.int64]) -> TokenScores:
        return token_scores(self._logits[slot, :count], positions, targets)

    def logits(self, slot: int, begin: int, end: int) -> NDArray[np.float32]:
        return np.array(self._logits[slot, begin:end])


@contextmanager
def mapped_logits(folder: Path, shape: tuple[int, int, int]) -> Iterator[MappedLogits]:
    """Logits in shared memory (in `folder`, where the system knows no such thing); gone when the context ends."""
    with shared_file(4 * shape[0] * shape[1] * shape[2], folder) as file:
        yield MappedLogits(file, shape)


def token_scores(logits: NDArray[np.float32], positions: NDArray[np.int64], targets: NDArray[np.int64]) -> TokenScores:
    """logits (n, vocab); targets (m,), each at its position (m,) among them."""
    count, vocab = logits.shape
    log_sums, likeliest = np.empty(count, np.float32), np.empty(count, np.int64)
    not_finite = 0
    step = max(1, BLOCK_BYTES // (4 * vocab))
    block = np.empty((min(step, count), vocab), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite logits give losses that are no numbers, and are counted
        for begin in range(0, count, step):
            part = logits[begin : begin + step]
            best = part.argmax(axis=-1)
            top = np.take_along_axis(part, best[:, None], axis=-1)[:, 0]
            not_finite += int((~np.isfinite(top) | ~np.isfinite(part.min(axis=-1))).sum())
            shifted = np.subtract(part, top[:, None], out=block[: len(part)])
            np.exp(shifted, out=shifted)
            log_sums[begin : begin + step] = np.log(shifted.sum(axis=-1)) + top
            likeliest[begin : begin + step] = best
        losses: NDArray[np.float32] = log_sums[positions] - logits[positions, targets]
    return TokenScores(losses, likeliest[positions] == targets, not_finite)


def shared_file(size: int, folder: Path) -> IO[bytes]:
    """A file without a name to map in two processes. On Linux its size is sealed: shrinking it would kill whoever has it mapped."""
    if sys.platform != "linux":
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the caller closes it
        file.truncate(size)
        return file
    descriptor = os.memfd_create("evaluation", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return os.fdopen(descriptor, "r+b")
