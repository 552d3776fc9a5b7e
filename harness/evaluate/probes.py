"""Checks of a served model as a black box, hidden among the scored rows. A model that fails one gets no score.

What a probe compares with are the very logits that were scored, of rows that nobody can predict. So a model that behaves while it
is being probed, and otherwise not, is caught as well.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.evaluate.asked import AskedRow, Request
from harness.evaluate.model_server import Answer, ModelServer
from harness.record import Probe, ProbeName

DURING_SCORING: tuple[ProbeName, ...] = ("determinism", "causality", "batch_independence")
AFTERWARDS: tuple[ProbeName, ...] = ("unchanged_parameters", "fresh_process")
WHAT: dict[ProbeName, str] = {
    "determinism": "the same batch twice",
    "causality": "logits before changed tokens",
    "batch_independence": "rows alone",
    "decoding": "continuations decoded token by token",
    "unchanged_parameters": "rows again at the end",
    "fresh_process": "rows in a process that has answered nothing else",
}
TOLERANCE = {"float32": 2e-3, "bfloat16": 1.0}
"""Compute dtype -> largest difference of two logits that rounding may explain, where logits are capped at ±15. A bfloat16 of that size is
a multiple of 1/16, and sums taken in another order differ by several of these. SmolLM2-135M, whose logits reach 34 and so are multiples
of 1/4, gives rows of 4 texts alone and together up to 0.5 apart, and 0.75 with a shared prefix."""
SHIFT_SHARE = 1 / 16
"""Share of the tolerance that a mean over many positions may reach: rounding has no direction (there the mean was 0.0004), a leak has."""
SHIFT_POSITIONS = 100
"""Positions from which on that mean is looked at."""
FOREIGN_TOKENS = 8
"""Put behind a row by the causality probe, since little of it may lie behind its first wanted position."""

Due = Mapping[int, Sequence[ProbeName]]
"""Index of a row -> the probes that it is chosen for."""


@dataclass(slots=True)
class Agreement:
    """How far sets of logits are apart that should be equal, over all comparisons of one probe."""

    comparisons: int = 0
    largest: float = 0.0
    shift: float = 0.0
    """Sum of the differences of the logits of the rows' own next tokens."""
    positions: int = 0

    def add(self, scored: NDArray[np.float32], again: NDArray[np.float32], following: NDArray[np.int64]) -> None:
        """Compare logits (n, vocab); `following` (n,) are the tokens that come next in the scored row."""
        with np.errstate(invalid="ignore"):  # infinities: not a number is no agreement
            difference = scored - again
        self.comparisons += 1
        self.positions += len(following)
        self.shift += float(difference[np.arange(len(following)), following].sum(dtype=np.float64))
        self.largest = float(np.maximum(self.largest, np.abs(difference).max()))  # what is no number stays so

    def result(self, name: ProbeName, tolerance: float) -> Probe:
        shift = self.shift / max(self.positions, 1)
        drifted = self.positions >= SHIFT_POSITIONS and not abs(shift) <= tolerance * SHIFT_SHARE
        evidence = f"{WHAT[name]}: {self.comparisons} compared, largest difference {self.largest:.2g}, allowed {tolerance:g}"
        if drifted:
            evidence += f"; logits of the next tokens are shifted by {shift:.2g} on average, allowed {tolerance * SHIFT_SHARE:.2g}"
        return Probe(name=name, passed=bool(self.largest <= tolerance) and not drifted, evidence=evidence)


@dataclass(slots=True)
class Prober:
    """Looks on while rows are scored, and asks again about some of them. The threads of several servers may share one."""

    due: Due
    """Drawn at random, and known to nobody else."""
    rng: np.random.Generator
    tolerance: float
    max_length: int | None = None
    """Most tokens of a row, where the model has such a limit."""
    _agreements: dict[ProbeName, Agreement] = field(init=False)
    _kept: list[tuple[ProbeName, AskedRow, NDArray[np.float32]]] = field(default_factory=list, init=False)
    _seen: int = field(default=0, init=False)
    _not_finite: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._agreements = {name: Agreement() for names in self.due.values() for name in names}

    def see(self, server: ModelServer, answer: Answer, not_finite: int) -> None:
        """Called after an answer was scored, with the number of its positions that have a logit that is not finite."""
        with self._lock:
            self._seen += answer.request.positions
            self._not_finite += not_finite
        for row, begin, end in [span for span in answer.request.spans() if span[0].index in self.due]:
            scored = answer.logits(begin, end)
            for name in self.due[row.index]:
                if name in AFTERWARDS:
                    self._kept.append((name, row, scored))
                elif name == "determinism":
                    self._compare(name, row, scored, server.ask(answer.request).logits(begin, end))
                elif name == "causality":
                    self._causality(server, row, scored)
                elif name == "decoding":
                    self._decoding(server, row, scored)
                else:
                    self._compare(name, row, scored, _alone(server, row.tokens, row.first))

    def sharing_agrees(self, server: ModelServer, requests: Iterable[Request]) -> bool:
        """Whether the rows with the longest common beginning get the same logits with it read once and read anew for each row.

        A model whose cache is wrong is scored without it; that is slower, and no fault.
        """
        longest = max((request for request in requests if request.start), key=lambda request: request.start, default=None)
        if longest is None:
            return True
        count = longest.prefix_of.count(0)
        shared = server.ask(Request(longest.rows[:count], longest.start, longest.prefix_of[:count])).logits()
        apart = np.concatenate([_alone(server, row.tokens, row.first) for row in longest.rows[:count]])
        with np.errstate(invalid="ignore"):
            return bool(np.abs(shared - apart).max() <= self.tolerance)

    def look_back(self, name: ProbeName, server: ModelServer) -> None:
        """One of AFTERWARDS, once everything is scored: ask this server again about rows that were answered in the meantime."""
        for _, row, scored in [kept for kept in self._kept if kept[0] == name]:
            self._compare(name, row, scored, _alone(server, row.tokens, row.first))

    def probes(self) -> tuple[Probe, ...]:
        """The results of all probes that compared anything."""
        evidence = f"{self._not_finite} of {self._seen} positions have a logit that is not finite"
        finite = Probe(name="finite_logits", passed=self._not_finite == 0, evidence=evidence)
        compared = (agreement.result(name, self.tolerance) for name, agreement in self._agreements.items() if agreement.comparisons)
        return (finite, *compared)

    def _causality(self, server: ModelServer, row: AskedRow, scored: NDArray[np.float32]) -> None:
        """Other tokens after a random position must not move any logit up to it."""
        length = len(row.tokens)
        room = FOREIGN_TOKENS if self.max_length is None else min(FOREIGN_TOKENS, self.max_length - length)
        values = np.unique(np.append(row.tokens, [0, 1])).astype(np.int32)
        with self._lock:
            cut = int(self.rng.integers(row.first, length if room else max(length - 1, row.first + 1))) + 1
            foreign = self.rng.integers(len(values), size=length - cut + room)
        foreign[: length - cut] += values[foreign[: length - cut]] == row.tokens[cut:]  # none stays as it was
        changed = np.concatenate([row.tokens[:cut], values[foreign % len(values)]])
        kept = cut - row.first
        self._compare("causality", row, scored[:kept], _alone(server, changed, row.first)[:kept])

    def _decoding(self, server: ModelServer, row: AskedRow, scored: NDArray[np.float32]) -> None:
        """Without the answer in the row: the context alone, then what we take to be likeliest, as long as that is the answer."""
        context = row.tokens[: row.first + 1]
        for at, token in enumerate(following(row)):
            logits = _alone(server, context, len(context) - 1)
            self._compare("decoding", row, scored[at : at + 1], logits, at)
            likeliest = int(logits[0].argmax())
            if likeliest != token:
                break
            context = np.append(context, np.int32(likeliest))

    def _compare(self, name: ProbeName, row: AskedRow, scored: NDArray[np.float32], again: NDArray[np.float32], offset: int = 0) -> None:
        with self._lock:
            self._agreements[name].add(scored, again, following(row)[offset : offset + len(scored)])


def following(row: AskedRow) -> NDArray[np.int64]:
    """The tokens that the wanted positions predict, (positions,); of several endings the first."""
    return np.append(row.tokens[row.first + 1 :], row.endings[0]).astype(np.int64)


def _alone(server: ModelServer, tokens: NDArray[np.int32], first: int) -> NDArray[np.float32]:
    """Logits of one row from position `first` on, asked for as a request of its own."""
    return server.ask(Request((AskedRow(-1, tokens, first),))).logits()


def draw(rng: np.random.Generator, rows: Sequence[int], counts: Mapping[ProbeName, int]) -> dict[int, list[ProbeName]]:
    """Choose `counts` of the rows (indices) for each probe; a row may be chosen for several."""
    due: dict[int, list[ProbeName]] = {}
    for name, count in counts.items():
        for row in rng.choice(rows, min(count, len(rows)), replace=False) if rows else ():
            due.setdefault(int(row), []).append(name)
    return due


def joined(parts: Iterable[Due]) -> dict[int, list[ProbeName]]:
    """All choices together."""
    due: dict[int, list[ProbeName]] = {}
    for part in parts:
        for row, names in part.items():
            due.setdefault(row, []).extend(names)
    return due
