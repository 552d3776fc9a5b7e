"""Packing: best fit among the next documents, no padding, and every token accounted for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline.data.packing import Packer

BOS = 0
lengths = st.lists(st.integers(1, 40), max_size=120)


def documents_of(sizes: Iterable[int]) -> list[list[int]]:
    """Documents that begin with BOS and whose other tokens occur nowhere else."""
    documents, following = [], 1
    for size in sizes:
        documents.append([BOS, *range(following, following + size - 1)])
        following += size - 1
    return documents


def pack(documents: list[list[int]], row_length: int, buffer_documents: int, refill: int = 1) -> tuple[list[list[int]], Packer]:
    packer = Packer((np.array(document, dtype=np.uint16) for document in documents), buffer_documents, refill)
    rows = []
    row = np.zeros(row_length, dtype=np.uint16)
    while packer.fill(row):
        rows.append(row.tolist())
    return rows, packer


def by_definition(documents: list[list[int]], row_length: int, buffer_documents: int, refill: int) -> tuple[list[list[int]], int, int]:
    """The rule as it is said, by scanning: (rows, cropped tokens, tail tokens)."""
    upcoming = list(documents)
    buffer: list[list[int]] = []
    rows: list[list[int]] = []
    row: list[int] = []
    cropped = 0
    while True:
        while upcoming and len(buffer) < buffer_documents:
            buffer += upcoming[:refill]
            del upcoming[:refill]
        if not buffer:
            return rows, cropped, len(row)
        space = row_length - len(row)
        fitting = [document for document in buffer if len(document) <= space]
        # max and min return the first of equals, which is the oldest
        chosen = max(fitting, key=len) if fitting else min(buffer, key=len)
        buffer.pop(next(index for index, document in enumerate(buffer) if document is chosen))
        row += chosen[:space]
        cropped += max(0, len(chosen) - space)
        if len(row) == row_length:
            rows.append(row)
            row = []


@given(lengths, st.integers(2, 24), st.integers(1, 30), st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_it_does_what_the_rule_says(sizes: list[int], row_length: int, buffer_documents: int, refill: int) -> None:
    documents = documents_of(sizes)
    rows, packer = pack(documents, row_length, buffer_documents, refill)
    assert (rows, packer.cropped_tokens, packer.tail_tokens) == by_definition(documents, row_length, buffer_documents, refill)


@given(lengths, st.integers(2, 24), st.integers(1, 30), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_every_row_is_full_and_begins_with_bos(sizes: list[int], row_length: int, buffer_documents: int, refill: int) -> None:
    rows, _ = pack(documents_of(sizes), row_length, buffer_documents, refill)
    assert all(len(row) == row_length and row[0] == BOS for row in rows)


@given(lengths, st.integers(2, 24), st.integers(1, 30), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_every_token_is_in_one_row_or_counted_and_documents_stay_in_one_piece(
    sizes: list[int], row_length: int, buffer_documents: int, refill: int
) -> None:
    documents = documents_of(sizes)
    rows, packer = pack(documents, row_length, buffer_documents, refill)
    assert packer.documents == len(documents)
    assert packer.tokens == sum(sizes) == len(rows) * row_length + packer.cropped_tokens + packer.tail_tokens

    placed = [token for row in rows for token in row if token != BOS]
    assert len(placed) == len(set(placed))
    whole = {tuple(document) for document in documents}
    prefixes = {tuple(document[:end]) for document in documents for end in range(1, len(document) + 1)}
    for row in rows:
        starts = [index for index, token in enumerate(row) if token == BOS]
        segments = [tuple(row[start:end]) for start, end in zip(starts, [*starts[1:], row_length], strict=True)]
        assert all(segment in whole for segment in segments[:-1])  # only the last of a row may be cropped
        assert segments[-1] in prefixes


def test_the_longest_that_fits_comes_first_and_the_oldest_of_equals() -> None:
    short, first, second, long = documents_of([2, 4, 4, 9])
    rows, _ = pack([short, first, second, long], 10, 4)
    assert rows[0][:9] == long
    rows, _ = pack([short, first, second], 10, 4)
    assert rows[0] == [*first, *second, *short]


def test_when_none_fits_the_shortest_is_cropped_and_its_rest_is_gone() -> None:
    documents = documents_of([6, 5, 4])
    rows, packer = pack(documents, 8, 3)
    assert rows == [[*documents[0], *documents[2][:2]]]
    assert packer.cropped_tokens == 2
    assert packer.tail_tokens == 5


def test_a_document_longer_than_a_row_fills_it_only_when_nothing_shorter_is_left() -> None:
    long, short = documents_of([30, 5])
    rows, packer = pack([long, short], 10, 2)
    assert rows[0] == [*short, *long[:5]]
    assert packer.cropped_tokens == 25


def test_only_documents_in_the_buffer_are_candidates() -> None:
    documents = documents_of([3, 3, 10])
    assert pack(documents, 10, 2)[0][0][:3] == documents[0]
    assert pack(documents, 10, 3)[0][0] == documents[2]


def test_documents_come_in_by_whole_batches_when_fewer_than_the_buffer_wait() -> None:
    documents = documents_of([3, 3, 4, 10])
    assert pack(documents, 10, 1, refill=4)[0][0] == documents[3]
    assert pack(documents, 10, 3, refill=2)[0][0] == documents[3]
    assert pack(documents, 10, 3, refill=3)[0][0][:4] == documents[2]


def test_no_documents_make_no_rows() -> None:
    rows, packer = pack([], 10, 5)
    assert (rows, packer.tokens, packer.tail_tokens) == ([], 0, 0)


def test_a_document_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="document 1 has no tokens"):
        pack([[BOS], []], 4, 2)
