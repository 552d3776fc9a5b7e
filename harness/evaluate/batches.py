"""Rows to requests: identical rows asked once, common beginnings read once, little padding, the longest first."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from harness.errors import VoidRun
from harness.evaluate.asked import AskedRow, Request, cells_of
from harness.evaluate.core.items import TokenRow
from harness.evaluate.model_server import Capacity

PADDING_SHARE = 0.1
"""Of a request's cells, beyond what its fixed costs are worth."""
MIN_SAVED_SHARE = 0.2
"""Of a row's tokens. A common beginning that saves less is not worth the second pass over the model, whose attention has a mask to read."""


class RowTable:
    """The distinct rows among all that are given, numbered."""

    def __init__(self) -> None:
        self._tokens: list[NDArray[np.int32]] = []
        self._firsts: list[int] = []
        self._endings: list[list[int]] = []
        self._numbers: dict[bytes, int] = {}

    def add(self, row: TokenRow) -> tuple[int, int] | None:
        """(index of the asked row, index of its ending) that answer for `row`; None where nothing of it is scored."""
        if row.start >= row.end:
            return None
        tokens, first, ending = row.tokens[: row.end - 1], row.start - 1, int(row.tokens[row.end - 1])
        key = blake2b(first.to_bytes(8, "little") + tokens.tobytes(), digest_size=16).digest()
        index = self._numbers.setdefault(key, len(self._tokens))
        if index == len(self._tokens):
            self._tokens.append(tokens)
            self._firsts.append(first)
            self._endings.append([])
        endings = self._endings[index]
        if ending not in endings:
            endings.append(ending)
        return index, endings.index(ending)

    def __len__(self) -> int:
        return len(self._tokens)

    def rows(self, begin: int = 0) -> list[AskedRow]:
        """The rows from number `begin` on, with all endings that they have by now."""
        return [AskedRow(at, self._tokens[at], self._firsts[at], tuple(self._endings[at])) for at in range(begin, len(self))]


# ---------------------------------------------------------------------- common beginnings


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Rows with a common beginning."""

    rows: tuple[AskedRow, ...]
    start: int
    """Tokens that they have in common, and that end before the first wanted position."""

    @property
    def longest(self) -> int:
        return max(len(row.tokens) for row in self.rows)


def in_groups(rows: Sequence[AskedRow]) -> list[Group]:
    """Rows with common beginnings together, where that saves tokens. In the order of their tokens, neighbours share the most."""
    groups: list[Group] = []
    members: list[AskedRow] = []
    start = 0
    for row in sorted(rows, key=lambda row: row.tokens.astype(">i4").tobytes()):
        if members:
            common = min(start, row.first, common_beginning(members[-1].tokens, row.tokens))
            lost = (len(members) - 1) * (start - common)  # what the others would have to read again
            if common - lost >= MIN_SAVED_SHARE * len(row.tokens):
                members.append(row)
                start = common
                continue
            groups.append(Group(tuple(members), start))
        members, start = [row], row.first
    return [*groups, Group(tuple(members), start)] if members else groups


def common_beginning(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    """Number of tokens at the start of both."""
    shorter = min(len(one), len(other))
    differ = one[:shorter] != other[:shorter]
    at = int(differ.argmax()) if shorter else 0
    return at if shorter and differ[at] else shorter


# ---------------------------------------------------------------------- requests


def plan(rows: Sequence[AskedRow], capacity: Capacity, shares_prefixes: bool) -> list[Request]:
    """Every row in one request, none of them above the capacity unless a single row is."""
    groups = in_groups(rows) if shares_prefixes else []
    shared = [group for group in groups if len(group.rows) > 1]
    apart = {row.index for group in shared for row in group.rows}
    alone = sorted((row for row in rows if row.index not in apart), key=lambda row: len(row.tokens), reverse=True)
    pieces = [piece for group in shared for piece in _fitting(group, capacity)]
    pieces.sort(key=lambda group: (group.start, group.longest), reverse=True)
    return [*_shared_requests(pieces, capacity), *_row_requests(alone, capacity)]


def _fitting(group: Group, capacity: Capacity) -> Iterator[Group]:
    """The group, or parts of it that fit into a request each."""
    room = max(1, capacity.tokens - group.start) // (group.longest - group.start + 1)
    count, positions, begin = 0, 0, 0
    for at, row in enumerate(group.rows):
        count, positions = count + 1, positions + row.positions
        if at > begin and (count > room or positions > capacity.positions):
            yield Group(group.rows[begin:at], group.start)
            begin, count, positions = at, 1, row.positions
    yield Group(group.rows[begin:], group.start)


def _shared_requests(groups: Sequence[Group], capacity: Capacity) -> Iterator[Request]:
    """Groups with about the same length of beginning together, in descending order. The shortest decides where all prefixes end."""
    taken: list[Group] = []
    rows = positions = longest = apart = 0
    for group in groups:
        size, wanted = len(group.rows), sum(row.positions for row in group.rows)
        needed = group.start + size * (group.longest - group.start)
        cells = cells_of(len(taken) + 1, group.start, rows + size, max(longest, group.longest) - group.start)
        fits = cells <= capacity.tokens and positions + wanted <= capacity.positions
        padding = cells - apart - needed
        if taken and not (fits and padding <= capacity.overhead + PADDING_SHARE * cells):
            yield _request(taken)
            taken, rows, positions, longest, apart = [], 0, 0, 0, 0
        taken.append(group)
        rows, positions, longest, apart = rows + size, positions + wanted, max(longest, group.longest), apart + needed
    if taken:
        yield _request(taken)


def _request(groups: Sequence[Group]) -> Request:
    rows = tuple(row for group in groups for row in group.rows)
    prefix_of = tuple(number for number, group in enumerate(groups) for _ in group.rows)
    return Request(rows, min(group.start for group in groups), prefix_of)


def _row_requests(rows: Sequence[AskedRow], capacity: Capacity) -> Iterator[Request]:
    """Rows, the longest first, as many in a request as fit."""
    taken: list[AskedRow] = []
    positions = 0
    for row in rows:
        longest = len(taken[0].tokens) if taken else len(row.tokens)
        positions += row.positions
        if taken and ((len(taken) + 1) * longest > capacity.tokens or positions > capacity.positions):
            yield Request(tuple(taken))
            taken, positions = [], row.positions
        taken.append(row)
    if taken:
        yield Request(tuple(taken))


def halves(request: Request) -> tuple[Request, Request]:
    """The request's rows in two requests. Raises VoidRun for a single row, which cannot be asked in less memory."""
    if len(request.rows) == 1:
        raise VoidRun(f"evaluation: out of memory on one row of {len(request.rows[0].tokens)} tokens", by_entry=True)
    middle = len(request.rows) // 2
    if not request.start:
        return Request(request.rows[:middle]), Request(request.rows[middle:])
    parts = (request.rows[:middle], request.prefix_of[:middle]), (request.rows[middle:], request.prefix_of[middle:])
    one, other = (Request(rows, request.start, tuple(prefix - prefixes[0] for prefix in prefixes)) for rows, prefixes in parts)
    return one, other


# ---------------------------------------------------------------------- the queue


@dataclass(slots=True)
class RequestQueue:
    """Requests for several servers: the one with the most cells next, and none of a size that did not fit before."""

    requests: Iterable[Request]
    _heap: list[tuple[int, int, Request]] = field(default_factory=list, init=False)
    _limit: int = field(default=2**62, init=False)
    _count: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        for request in self.requests:
            self._push(request)

    def take(self) -> Request | None:
        """The next request; None when nothing is left."""
        with self._lock:
            while self._heap:
                request = heapq.heappop(self._heap)[-1]
                if request.cells <= self._limit:
                    return request
                if len(request.rows) == 1:
                    return request
                for half in halves(request):
                    self._push(half)
            return None

    def did_not_fit(self, request: Request) -> None:
        """Ask for its rows again in two requests; nothing larger than these will be asked from now on."""
        with self._lock:
            parts = halves(request)
            self._limit = min(self._limit, max(part.cells for part in parts))
            for part in parts:
                self._push(part)

    def _push(self, request: Request) -> None:
        self._count += 1
        heapq.heappush(self._heap, (-request.cells, self._count, request))
