"""A task's rows in compact columns, and the file that keeps them.

Written out, the rows of CORE are hundreds of millions of token ids. Few-shot prompts repeat each other, so a row is kept as BOS,
a list of pieces that many examples share, what the rows of its example share beyond these, and its own tail.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from baseline.data.durable import whole_file
from harness.evaluate.core.items import ExampleItem, Kind, TokenRow
from harness.evaluate.core.regions import Ids, Quirks

UINT16_MAX = int(np.iinfo(np.uint16).max)


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Several sequences of integers, one after another."""

    values: NDArray[np.integer]
    """All of them, (sum of lengths,)."""
    ends: NDArray[np.integer]
    """Where each ends, (count,)."""

    @classmethod
    def of(cls, sequences: Sequence[Ids]) -> Ragged:
        """Pack sequences; values that fit are kept in 16 bits."""
        values = np.concatenate([np.empty(0, np.int32), *sequences])
        narrow = not len(values) or (values.min() >= 0 and values.max() <= UINT16_MAX)
        return cls(values.astype(np.uint16 if narrow else np.int32), np.cumsum([len(s) for s in sequences], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> NDArray[np.integer]:
        return self.values[self.ends[index - 1] if index else 0 : self.ends[index]]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The arrays of a task: N examples, R rows."""

    pieces: Ragged
    """Token ids of each piece."""
    stems: Ragged
    """N lists of indices into `pieces`: what the rows of an example begin with, after BOS."""
    shared: Ragged
    """N lists of token ids that follow the stem in every row of the example."""
    tails: Ragged
    """R lists of token ids: the rest of each row."""
    row_ends: NDArray[np.int64]
    """(N,) rows of an example and of all before it."""
    lengths: NDArray[np.int32]
    """(R,) tokens of each row, BOS included, as the model sees it."""
    starts: NDArray[np.int32]
    """(R,) first scored token of each row, as the model sees it."""
    golds: NDArray[np.int32]
    lines: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class PreparedTask(Sequence[ExampleItem]):
    """The examples of one task, in the order of `ExampleItem.example`. Rows are put together when an example is taken out."""

    label: str
    kind: Kind
    bos_id: int
    quirks: Quirks
    columns: Columns

    def __len__(self) -> int:
        """More than the task's shots, so at least 1."""
        return len(self.columns.golds)

    @property
    def row_lengths(self) -> NDArray[np.int32]:
        """(R,) tokens of each row, in the order of the examples and of their options: for planning batches."""
        return self.columns.lengths

    @overload
    def __getitem__(self, index: int) -> ExampleItem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ExampleItem]: ...
    def __getitem__(self, index: int | slice) -> ExampleItem | Sequence[ExampleItem]:
        if isinstance(index, slice):
            return [self._item(at) for at in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.label} has {len(self)} examples, and number {index} is asked for")
        return self._item(index % len(self))

    def __iter__(self) -> Iterator[ExampleItem]:
        return (self._item(at) for at in range(len(self)))

    def _item(self, example: int) -> ExampleItem:
        columns = self.columns
        stem = [columns.pieces[piece] for piece in columns.stems[example]]
        beginning = np.concatenate([[self.bos_id], *stem, columns.shared[example]]).astype(np.int32)
        first = columns.row_ends[example - 1] if example else 0
        rows = tuple(self._row(beginning, row) for row in range(int(first), int(columns.row_ends[example])))
        return ExampleItem(self.label, example, int(columns.lines[example]), self.kind, rows, int(columns.golds[example]))

    def _row(self, beginning: Ids, row: int) -> TokenRow:
        length = int(self.columns.lengths[row])
        tokens = np.concatenate([beginning, self.columns.tails[row]], dtype=np.int32)[-length:]
        tokens.flags.writeable = False
        return TokenRow(tokens, int(self.columns.starts[row]), length)


def write_prepared(path: Path, task: PreparedTask) -> None:
    """Write a task's columns as an `.npz` file, whole or not at all."""
    about = {"label": task.label, "kind": task.kind, "bos_id": task.bos_id, "quirks": asdict(task.quirks)}
    arrays: dict[str, NDArray[np.integer]] = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    for column in fields(Columns):
        value = getattr(task.columns, column.name)
        if isinstance(value, Ragged):
            arrays |= {f"{column.name}.values": value.values, f"{column.name}.ends": value.ends}
        else:
            arrays[column.name] = value
    with whole_file(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_prepared(path: Path) -> PreparedTask | None:
    """The task in a file that `write_prepared` wrote; None when there is none, or when it is damaged (its checksums tell)."""
    try:
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays["about"].tobytes())
        columns = Columns(**{column.name: _column(arrays, column.name) for column in fields(Columns)})
        return PreparedTask(about["label"], about["kind"], about["bos_id"], Quirks(**about["quirks"]), columns)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _column(arrays: Mapping[str, NDArray[np.integer]], name: str) -> Any:
    """An array, or the two arrays of a `Ragged`, under the name of its field."""
    return arrays[name] if name in arrays else Ragged(arrays[f"{name}.values"], arrays[f"{name}.ends"])
