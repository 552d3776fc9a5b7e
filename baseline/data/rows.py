"""Packed rows by position: which rows a rank reads is arithmetic, so a batch is the same at any world size and after any restart.

Row number g of a run (counted from 0 over all steps) lies in epoch g // N at place g % N. Epoch 0 reads rows.bin from front to back;
epoch e >= 1 reads the rows in increasing order of splitmix64(e · 2^32 + row), a shuffle that no library version can change.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baseline.data.errors import DataError

TOKEN_TYPE = np.dtype("<u2")


@dataclass(frozen=True, slots=True)
class RowFile:
    """A memory-mapped rows.bin. Its pages are shared by all processes of a machine."""

    rows: NDArray[np.uint16]
    """(N, T + 1) token ids, read-only."""

    @classmethod
    def open(cls, source: Path | int, rows: int, row_length: int) -> RowFile:
        """Map `rows` rows of `row_length` = T + 1 tokens from a path or an open file descriptor, which the caller may close afterwards.

        Raises DataError when the file's size is another one.
        """
        if not isinstance(source, int):
            try:
                with source.open("rb") as file:
                    return cls.open(file.fileno(), rows, row_length)
            except OSError as error:
                raise DataError(f"{source} cannot be opened ({error.strerror}): prepare the data first") from None
        size, expected = os.fstat(source).st_size, rows * row_length * TOKEN_TYPE.itemsize
        if size != expected or not rows:
            raise DataError(
                f"rows.bin has {size} bytes, and {rows} rows of {row_length} tokens take {expected}: it does not belong to the manifest"
            )
        mapped = mmap.mmap(source, size, access=mmap.ACCESS_READ)
        return cls(np.frombuffer(mapped, dtype=TOKEN_TYPE).reshape(rows, row_length))


def positions(cursor: int, micro_step: int, rank: int, world_size: int, rows: int) -> range:
    """The `rows` row numbers that `rank` reads in a micro-step of the global batch which begins at row number `cursor`.

    Ranks lie side by side within a micro-step: cursor + micro_step · (world_size · rows) + rank · rows + i, for i < rows.
    """
    first = cursor + (micro_step * world_size + rank) * rows
    return range(first, first + rows)


def epoch_order(epoch: int, num_rows: int) -> NDArray[np.int64]:
    """(N,) the rows of an epoch in reading order."""
    rows = np.arange(num_rows, dtype=np.int64)
    if epoch == 0:
        return rows
    return np.argsort(splitmix64(rows.astype(np.uint64) + np.uint64(epoch << 32)))


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Vigna's splitmix64 for each seed in `values`: a bijection of the 64-bit numbers, so that distinct rows have distinct keys."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class RowReader:
    """Hands a rank its inputs and targets."""

    def __init__(self, file: RowFile, rank: int, world_size: int, device: torch.device) -> None:
        self._rows = file.rows
        self._rank = rank
        self._world_size = world_size
        self._order: Callable[[int], NDArray[np.int64]] = lru_cache(maxsize=2)(lambda epoch: epoch_order(epoch, len(file.rows)))
        self._transfer: _Transfer = _CudaTransfer(device) if device.type == "cuda" else _Transfer(device)

    def batch(self, cursor: int, micro_step: int, rows: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, both (rows, T) int64 on the device, of one micro-step in the global batch that begins at row `cursor`."""
        numbers = positions(cursor, micro_step, self._rank, self._world_size, rows)
        return self._transfer(self._rows[self._indices(numbers)])

    def _indices(self, numbers: range) -> NDArray[np.int64]:
        """Where in rows.bin consecutive row numbers lie; they may span epochs."""
        size = len(self._rows)
        parts, number = [], numbers.start
        while number < numbers.stop:
            epoch, place = divmod(number, size)
            end = min(size, place + numbers.stop - number)
            parts.append(self._order(epoch)[place:end])
            number += end - place
        return np.concatenate(parts)


class _Transfer:
    """Rows (b, T + 1) of token ids -> inputs and targets on a device, each (b, T) int64 and contiguous."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, rows: NDArray[np.uint16]) -> tuple[Tensor, Tensor]:
        staging = torch.empty((2, len(rows), rows.shape[1] - 1), dtype=torch.int64)
        _fill(staging, rows)
        batch = staging.to(self._device)
        return batch[0], batch[1]


class _CudaTransfer(_Transfer):
    """Copies from two pinned buffers in turn, without waiting for the device.

    A buffer is written again only after the event behind its last copy has passed: writing earlier would change tokens of a batch that
    is still on its way, as happens with a single reused pinned buffer.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._buffers: list[Tensor | None] = [None, None]
        new_event: Callable[[], torch.cuda.Event] = torch.cuda.Event
        self._copied = [new_event(), new_event()]
        self._turn = 0

    def __call__(self, rows: NDArray[np.uint16]) -> tuple[Tensor, Tensor]:
        turn, self._turn = self._turn, 1 - self._turn
        shape = (2, len(rows), rows.shape[1] - 1)
        self._copied[turn].synchronize()
        staging = self._buffers[turn]
        if staging is None or staging.shape != shape:
            staging = self._buffers[turn] = torch.empty(shape, dtype=torch.int64, pin_memory=True)
        _fill(staging, rows)
        with torch.cuda.device(self._device):
            batch = staging.to(self._device, non_blocking=True)
            self._copied[turn].record()
        return batch[0], batch[1]


def _fill(staging: Tensor, rows: NDArray[np.uint16]) -> None:
    """Widen rows (b, T + 1) into staging (2, b, T): inputs, then targets one token later."""
    view = staging.numpy()
    view[0] = rows[:, :-1]
    view[1] = rows[:, 1:]
