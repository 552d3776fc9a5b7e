"""Which tokens of a prompt are scored, found in the token ids themselves.

multiple choice      what follows the longest beginning that all choices' rows share
schema               the longest ending that all options' rows share
language modelling   what follows the prompt without its continuation

A tokenizer may merge over the place where the continuation begins; then the prompt without it is no beginning of the row, and the
historical evaluator stops. Here the region begins at the first token that differs, so that every byte of the continuation is
scored, and the example is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.evaluate.core.items import Kind

Ids: TypeAlias = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Quirks:
    """How many examples or rows of a task are odd. Where any but `cropped_rows` is not 0, the historical evaluator stops or has no mean."""

    merged_boundaries: int = 0
    """Language-modelling examples with a token over the start of the continuation."""
    unscored_rows: int = 0
    """Rows without a scored token: a choice whose tokens begin all the others, or choices that are all the same."""
    cropped_rows: int = 0
    """Rows cut on the left to the model's length."""
    cropped_regions: int = 0
    """Rows of these whose region was cut too. What is left of it is scored."""


def region_starts(kind: Kind, rows: Sequence[Ids]) -> list[int]:
    """The first scored token of each row; the region reaches to the row's end.

    Language modelling takes two rows, without and with the continuation, and gives the start in the second.
    """
    if kind == "schema":
        shared = common_suffix(rows)
        return [len(row) - shared for row in rows]
    shared = common_prefix(rows)
    return [shared] if kind == "language_modeling" else [shared] * len(rows)


def common_prefix(rows: Sequence[Ids]) -> int:
    """Length of the longest beginning that all rows share."""
    shortest = min(len(row) for row in rows)
    first = rows[0][:shortest]
    return min((_first_difference(first, row[:shortest]) for row in rows[1:]), default=shortest)


def common_suffix(rows: Sequence[Ids]) -> int:
    """Length of the longest ending that all rows share."""
    return common_prefix([row[::-1] for row in rows])


def crop(length: int, start: int, max_length: int | None) -> tuple[int, int]:
    """(length, start) of a row's last `max_length` tokens. A region starts at 1 at least, for nothing predicts the first token."""
    dropped = 0 if max_length is None else max(0, length - max_length)
    return length - dropped, max(1, start - dropped)


def _first_difference(one: Ids, other: Ids) -> int:
    differs = one != other
    return int(differs.argmax()) if differs.any() else len(one)
