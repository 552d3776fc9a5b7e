"""What the evaluator asks a model server: rows of tokens, and at which of their positions it wants logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class AskedRow:
    """One row as the model sees it. Its last scored token is not in it: no logit depends on it.

    Rows that differ in that token alone are one row with several endings.
    """

    index: int
    """Number of the row among all that are scored."""
    tokens: NDArray[np.int32]
    """(n,), at least one."""
    first: int
    """Logits are wanted at positions first … n - 1; they predict `tokens[first + 1 :]` and then an ending."""
    endings: tuple[int, ...] = ()
    """Tokens that may come last. None where nothing is scored."""

    @property
    def positions(self) -> int:
        """Number of wanted positions."""
        return len(self.tokens) - self.first


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Rows that are answered together."""

    rows: tuple[AskedRow, ...]
    start: int = 0
    """Tokens that a row has in common with the others of the same prefix; they are read once. 0: rows are independent.

    It is at most the smallest `first` among the rows.
    """
    prefix_of: tuple[int, ...] = ()
    """Index of each row's prefix, from 0 and without gaps; empty when `start` is 0."""

    @classmethod
    def alone(cls, tokens: NDArray[np.int32], first: int) -> Request:
        """One row that nothing is scored of."""
        return cls((AskedRow(-1, tokens, first),))

    @property
    def prefixes(self) -> int:
        return max(self.prefix_of) + 1 if self.start else 0

    @property
    def length(self) -> int:
        """Tokens of the longest row, beyond the prefix."""
        return max(len(row.tokens) for row in self.rows) - self.start

    @property
    def positions(self) -> int:
        """Wanted positions of all rows."""
        return sum(row.positions for row in self.rows)

    @property
    def cells(self) -> int:
        """Cells of the token buffer that the request fills."""
        return cells_of(self.prefixes, self.start, len(self.rows), self.length)

    def spans(self) -> Iterator[tuple[AskedRow, int, int]]:
        """(row, begin, end): which of the answered logits are the row's."""
        ends = list(accumulate(row.positions for row in self.rows))
        return zip(self.rows, [0, *ends[:-1]], ends, strict=True)

    def line(self, slot: int) -> str:
        """The request in the protocol of `baseline.serve`."""
        if not self.start:
            return f"rows {slot} {len(self.rows)} {self.length}\n"
        return f"shared {slot} {self.prefixes} {self.start} {len(self.rows)} {self.length}\n"

    def fill(self, tokens: NDArray[np.int32], wanted: NDArray[np.uint8]) -> None:
        """Write one slot's tokens and marks, both one-dimensional."""
        before, count, length = self.prefixes * self.start, len(self.rows), self.length
        cells = tokens[before : before + count * length].reshape(count, length)
        marks = wanted[: count * length].reshape(count, length)
        cells[:], marks[:] = 0, 0
        for cell, mark, row in zip(cells, marks, self.rows, strict=True):
            kept = len(row.tokens) - self.start
            cell[:kept] = row.tokens[self.start :]
            mark[row.first - self.start : kept] = 1
        if self.start:
            prefixes = tokens[:before].reshape(self.prefixes, self.start)
            for prefix, row in zip(self.prefix_of, self.rows, strict=True):
                prefixes[prefix] = row.tokens[: self.start]
            tokens[before + count * length :][:count] = self.prefix_of


def cells_of(prefixes: int, start: int, rows: int, length: int) -> int:
    """Cells of the token buffer that a request of this shape fills: prefixes, padded rows, and each row's prefix."""
    return prefixes * start + rows * length + (rows if start else 0)


def targets_of(rows: Sequence[AskedRow]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(positions, targets) of all that is scored of the rows, as indices into the answered logits and token ids.

    Row by row: the tokens inside the row, then each of its endings.
    """
    positions: list[int] = []
    targets: list[int] = []
    begin = 0
    for row in rows:
        end = begin + row.positions
        positions += [*range(begin, end - 1), *[end - 1] * len(row.endings)]
        targets += [*row.tokens[row.first + 1 :].tolist(), *row.endings]
        begin = end
    return np.array(positions, np.int64), np.array(targets, np.int64)
