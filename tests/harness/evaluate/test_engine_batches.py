"""Rows to requests: nothing is lost, nothing is asked twice, nothing exceeds the capacity, and what is alike is read once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import VoidRun
from harness.evaluate.asked import AskedRow, Request, targets_of
from harness.evaluate.batches import RequestQueue, RowTable, common_beginning, halves, in_groups, plan
from harness.evaluate.core.items import TokenRow
from harness.evaluate.model_server import Capacity

CAPACITY = Capacity(tokens=64, positions=24, overhead=4)


def row(tokens: list[int], start: int) -> TokenRow:
    return TokenRow(np.array(tokens, np.int32), start, len(tokens))


def asked(*rows: TokenRow) -> list[AskedRow]:
    table = RowTable()
    for one in rows:
        table.add(one)
    return table.rows()


@st.composite
def token_rows(draw: st.DrawFn) -> list[AskedRow]:
    """Rows of a small vocabulary, many of them with common beginnings, none longer than the capacity."""
    stems = draw(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=20), min_size=1, max_size=4))
    rows = []
    for _ in range(draw(st.integers(1, 25))):
        tokens = draw(st.sampled_from(stems)) + draw(st.lists(st.integers(0, 3), min_size=1, max_size=12))
        rows.append(row(tokens, draw(st.integers(1, len(tokens) - 1))))
    return asked(*rows)


# ---------------------------------------------------------------------- distinct rows


def test_rows_that_differ_in_the_last_token_alone_are_asked_once() -> None:
    table = RowTable()
    yes, no = row([9, 1, 2, 5], 3), row([9, 1, 2, 6], 3)
    assert [table.add(yes), table.add(no), table.add(yes)] == [(0, 0), (0, 1), (0, 0)]
    (only,) = table.rows()
    assert (only.tokens.tolist(), only.first, only.endings) == ([9, 1, 2], 2, (5, 6))


def test_rows_with_another_region_or_other_tokens_are_rows_of_their_own() -> None:
    assert len(asked(row([9, 1, 2, 5], 3), row([9, 1, 2, 5], 2), row([9, 1, 3, 5], 3))) == 3


def test_a_row_without_a_scored_token_is_not_asked() -> None:
    assert RowTable().add(row([9, 1, 2], 3)) is None


def test_targets_are_the_tokens_inside_and_then_every_ending() -> None:
    rows = asked(row([9, 1, 2, 5], 2), row([9, 1, 2, 6], 2), row([8, 7], 1))
    positions, targets = targets_of(rows)
    assert (positions.tolist(), targets.tolist()) == ([0, 1, 1, 2], [2, 5, 6, 7])


# ---------------------------------------------------------------------- the plan


@given(rows=token_rows(), shares=st.booleans())
@settings(max_examples=300, deadline=None)
def test_every_row_is_asked_once_within_the_capacity(rows: list[AskedRow], shares: bool) -> None:
    requests = plan(rows, CAPACITY, shares)
    assert sorted(one.index for request in requests for one in request.rows) == list(range(len(rows)))
    for request in requests:
        assert request.cells <= CAPACITY.tokens
        assert request.positions <= CAPACITY.positions or len(request.rows) == 1
        assert not request.start or shares


@given(rows=token_rows())
@settings(max_examples=300, deadline=None)
def test_rows_of_one_prefix_do_begin_with_it_and_nothing_wanted_lies_in_it(rows: list[AskedRow]) -> None:
    for request in plan(rows, CAPACITY, True):
        if request.start:
            assert list(dict.fromkeys(request.prefix_of)) == list(range(request.prefixes))
            for prefix in range(request.prefixes):
                members = [one for one, of in zip(request.rows, request.prefix_of, strict=True) if of == prefix]
                assert len({one.tokens[: request.start].tobytes() for one in members}) == 1
            assert all(one.first >= request.start for one in request.rows)


@given(rows=token_rows())
@settings(max_examples=200, deadline=None)
def test_sharing_never_reads_more_tokens_than_the_rows_have(rows: list[AskedRow]) -> None:
    read = sum(group.start + sum(len(one.tokens) - group.start for one in group.rows) for group in in_groups(rows))
    assert read <= sum(len(one.tokens) for one in rows)


def test_choices_of_one_question_share_it() -> None:
    question = list(range(30))
    rows = asked(*(row([*question, 40 + choice, 50, 51], 30) for choice in range(4)))
    (request,) = plan(rows, CAPACITY, True)
    assert (request.start, request.prefixes, len(request.rows), request.length) == (29, 1, 4, 3)


def test_a_short_common_beginning_is_read_anew() -> None:
    rows = asked(*(row([9, 9, *range(number, number + 20)], 21) for number in range(0, 80, 20)))
    assert all(request.start == 0 for request in plan(rows, CAPACITY, True))


def test_the_longest_rows_come_first_and_rows_of_equal_length_together() -> None:
    rows = asked(*(row([number, *range(length)], length) for number in range(4) for length in (30, 8)))
    lengths = [[len(one.tokens) for one in request.rows] for request in plan(rows, CAPACITY, False)]
    assert lengths == [[30, 30], [30, 30], [8, 8, 8, 8]]


@given(st.lists(st.integers(0, 1), max_size=8), st.lists(st.integers(0, 1), max_size=8))
def test_the_common_beginning_is_the_longest(one: list[int], other: list[int]) -> None:
    expected = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert common_beginning(np.array(one, np.int32), np.array(other, np.int32)) == expected


# ---------------------------------------------------------------------- what a request writes


@given(rows=token_rows(), shares=st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_request_writes_its_rows_and_marks(rows: list[AskedRow], shares: bool) -> None:
    """Read back as the server does, each row is its own, padded on the right, with its own positions marked."""
    for request in plan(rows, CAPACITY, shares):
        tokens, wanted = np.full(80, -1, np.int32), np.full(80, 9, np.uint8)
        request.fill(tokens, wanted)
        count, length, before = len(request.rows), request.length, request.prefixes * request.start
        cells, marks = tokens[before:][: count * length].reshape(count, length), wanted[: count * length].reshape(count, length)
        for at, one in enumerate(request.rows):
            prefix = tokens[request.prefix_of[at] * request.start :][: request.start] if request.start else tokens[:0]
            kept = len(one.tokens) - request.start
            assert np.concatenate([prefix, cells[at, :kept]]).tolist() == one.tokens.tolist()
            assert np.flatnonzero(marks[at]).tolist() == list(range(one.first - request.start, kept))
        if request.start:
            assert tokens[before + count * length :][:count].tolist() == list(request.prefix_of)
        assert (tokens[request.cells :] == -1).all()


# ---------------------------------------------------------------------- the queue


def test_the_queue_gives_the_largest_request_first() -> None:
    sizes = [3, 20, 11]
    requests = [Request(tuple(asked(row(list(range(size + 1)), size)))) for size in sizes]
    queue = RequestQueue(requests)
    assert [request.cells for request in iter(queue.take, None)] == [20, 11, 3]


def test_what_did_not_fit_comes_back_in_halves_and_nothing_larger_is_asked_again() -> None:
    rows = asked(*(row([number, *range(10)], 10) for number in range(16)))
    large, other = Request(tuple(rows[:8])), Request(tuple(rows[8:]))
    queue = RequestQueue([large, other])
    first = queue.take()
    assert first is large
    queue.did_not_fit(large)
    rest = list(iter(queue.take, None))
    assert [len(request.rows) for request in rest] == [4, 4, 4, 4]
    assert sorted(one.index for request in rest for one in request.rows) == list(range(16))


@given(rows=token_rows())
@settings(max_examples=100, deadline=None)
def test_halves_are_whole_requests(rows: list[AskedRow]) -> None:
    for request in plan(rows, CAPACITY, True):
        if len(request.rows) > 1:
            parts = halves(request)
            assert [one for part in parts for one in part.rows] == list(request.rows)
            for part in parts:
                assert part.start == request.start
                assert not part.start or list(dict.fromkeys(part.prefix_of)) == list(range(part.prefixes))


def test_a_single_row_that_does_not_fit_ends_the_evaluation() -> None:
    with pytest.raises(VoidRun, match="out of memory on one row of 10 tokens"):
        halves(Request(tuple(asked(row(list(range(11)), 10)))))
