"""One task's examples to rows of tokens with their scored regions.

Prompts come in pieces (see `cuts`); each distinct piece is tokenized once, and a row's tokens are those of its pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.evaluate.core.cuts import cut, uncut
from harness.evaluate.core.examples import Example
from harness.evaluate.core.items import Kind
from harness.evaluate.core.prepared import Columns, PreparedTask, Ragged
from harness.evaluate.core.prompts import draw_shots, gold_of, in_order, prompts, solved
from harness.evaluate.core.regions import Ids, Quirks, crop, region_starts
from harness.evaluate.core.tasks import Task
from harness.evaluate.core.tokenizer import Tokenizer

EXAMPLES_PER_BATCH = 256
"""Examples whose new pieces are tokenized together: bounds the memory, and gives batching tokenizers something to batch."""
BOS_TOKENS = 1


@dataclass(frozen=True, slots=True)
class _Draft:
    """One example, tokenized and not cropped yet."""

    stem: list[int]
    """Pieces that its rows begin with, after BOS."""
    shared: Ids
    """Tokens that follow in every row."""
    tails: list[Ids]
    lengths: list[int]
    """Tokens of each row, BOS included."""
    starts: list[int]
    merged: bool
    gold: int
    line: int


class _PieceTable:
    """The tokens of each distinct piece of text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._index: dict[str, int] = {}
        self.tokens: list[Ids] = []

    def add(self, pieces: Iterable[str]) -> None:
        """Tokenize those that are new."""
        new = [piece for piece in dict.fromkeys(pieces) if piece not in self._index]
        self._index.update(zip(new, range(len(self.tokens), len(self.tokens) + len(new)), strict=True))
        self.tokens.extend(self._tokenizer.encode_batch(new))

    def indices(self, pieces: Sequence[str]) -> list[int]:
        return [self._index[piece] for piece in pieces]

    def ids(self, indices: Sequence[int]) -> Ids:
        """The tokens of consecutive pieces."""
        if len(indices) == 1:
            return self.tokens[indices[0]]
        return np.concatenate([np.empty(0, np.int32), *(self.tokens[index] for index in indices)])


def tokenize_task(
    task: Task, examples: Sequence[Example], tokenizer: Tokenizer, *, limit: int | None = None, max_length: int | None = None
) -> PreparedTask:
    """The scored examples of a task (`examples` in file order) as token rows. Raises UsageProblem as `prompts.in_order` does."""
    kept = in_order(task, examples, limit)
    cuts = tokenizer.splits_before_spaces
    cutter = cut if cuts else uncut
    shown = [solved(example, task.delimiter, cutter) for example in kept] if task.shots else []
    table, drafts = _PieceTable(tokenizer), list[_Draft]()
    for first in range(0, len(kept), EXAMPLES_PER_BATCH):
        batch = range(first, min(first + EXAMPLES_PER_BATCH, len(kept)))
        texts = [prompts(kept[at], [shown[s] for s in draw_shots(len(kept), at, task.shots)], task.delimiter, cutter) for at in batch]
        if not cuts:
            table = _PieceTable(tokenizer)  # whole prompts do not recur
        table.add(piece for rows in texts for row in rows for piece in row)
        drafts.extend(
            _draft(task.kind, kept[at], [table.indices(row) for row in rows], table, cuts) for at, rows in zip(batch, texts, strict=True)
        )
    return _packed(task, tokenizer.bos_id, drafts, table.tokens if cuts else [], max_length)


def _draft(kind: Kind, example: Example, rows: Sequence[Sequence[int]], table: _PieceTable, share_pieces: bool) -> _Draft:
    """`rows` are the pieces of each prompt, by index. Only what follows the shared pieces is compared token by token."""
    stem = _shared_beginning(rows) if share_pieces and kind != "schema" else []
    rest = [table.ids(row[len(stem) :]) for row in rows]
    starts = region_starts(kind, rest)
    merged = kind == "language_modeling" and starts[0] < len(rest[0])
    if kind == "language_modeling":
        rest = rest[1:]
    shared = starts[0] if kind == "multiple_choice" else 0
    before = BOS_TOKENS + sum(len(table.tokens[piece]) for piece in stem)
    return _Draft(
        stem=stem,
        shared=rest[0][:shared],
        tails=[row[shared:] for row in rest],
        lengths=[before + len(row) for row in rest],
        starts=[before + start for start in starts],
        merged=merged,
        gold=gold_of(example),
        line=example.line,
    )


def _shared_beginning(rows: Sequence[Sequence[int]]) -> list[int]:
    """The pieces that all rows begin with."""
    count = 0
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return list(rows[0][:count])


def _packed(task: Task, bos_id: int, drafts: Sequence[_Draft], pieces: Sequence[Ids], max_length: int | None) -> PreparedTask:
    """Crop the rows, count what is odd, and put everything into columns."""
    uncropped = [(length, start) for draft in drafts for length, start in zip(draft.lengths, draft.starts, strict=True)]
    cropped = [crop(length, start, max_length) for length, start in uncropped]
    pairs = list(zip(uncropped, cropped, strict=True))
    quirks = Quirks(
        merged_boundaries=sum(draft.merged for draft in drafts),
        unscored_rows=sum(start == length for length, start in uncropped),
        cropped_rows=sum(now < length for (length, _), (now, _) in pairs),
        cropped_regions=sum(now < length and start - (length - now) < 1 for (length, start), (now, _) in pairs),
    )
    columns = Columns(
        pieces=Ragged.of(pieces),
        stems=Ragged.of([np.array(draft.stem, np.int32) for draft in drafts]),
        shared=Ragged.of([draft.shared for draft in drafts]),
        tails=Ragged.of([tail for draft in drafts for tail in draft.tails]),
        row_ends=np.cumsum([len(draft.tails) for draft in drafts], dtype=np.int64),
        lengths=np.array([length for length, _ in cropped], np.int32),
        starts=np.array([start for _, start in cropped], np.int32),
        golds=np.array([draft.gold for draft in drafts], np.int32),
        lines=np.array([draft.line for draft in drafts], np.int32),
    )
    return PreparedTask(task.label, task.kind, bos_id, quirks, columns)
