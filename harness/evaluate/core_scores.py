"""CORE's examples to outcomes: each distinct row is asked once, in whatever order is fastest, and the answers find their examples."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import nan

import numpy as np
from numpy.typing import NDArray

from harness.evaluate.asked import AskedRow, Request
from harness.evaluate.batches import RowTable, plan
from harness.evaluate.core.items import ExampleItem, Outcome, RowScore
from harness.evaluate.core.outcome import judge
from harness.evaluate.engine import Engine
from harness.evaluate.logit_memory import TokenScores
from harness.evaluate.model_server import Capacity, ModelServer
from harness.evaluate.probes import Due, Prober, draw, joined
from harness.record import ProbeName

EXAMPLES_PER_PROBE = 100
"""Of a task's examples, so many share one row of each probe that depends on the task."""
MOST_PROBED = 8
"""Rows of one task for one probe."""
OF_EVERY_TASK: tuple[ProbeName, ...] = ("causality", "batch_independence")
"""And, of tasks of language modelling, "decoding"."""
OF_ALL_TASKS: dict[ProbeName, tuple[int, int]] = {
    "determinism": (4, 4000),
    "unchanged_parameters": (8, 400),
    "fresh_process": (8, 400),
}
"""For the probes that need not look at every task: most rows, and how many of all rows share one. For determinism, a row's whole request
is asked again."""

OnRows = Callable[[int, int], None]
"""(distinct rows scored so far, distinct rows in all)"""
Answer = tuple[int, int] | None
"""(index of the asked row, index of its ending) that answer for a row; None where nothing of the row is scored."""

UNSCORED = RowScore(nan, False)


def silent_scoring(done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class CoreRows:
    """The distinct rows of all tasks, and where each example finds its answers."""

    items: tuple[tuple[ExampleItem, ...], ...]
    """Of each task."""
    answers: tuple[tuple[tuple[Answer, ...], ...], ...]
    """Task, example, row."""
    rows: tuple[AskedRow, ...]
    first_rows: tuple[int, ...]
    """Index of the first row of each task; a row that several tasks need is the first one's."""

    @classmethod
    def of(cls, tasks: Sequence[Sequence[ExampleItem]]) -> CoreRows:
        table = RowTable()
        items, answers, first_rows = [], [], []
        for task in tasks:
            first_rows.append(len(table))
            items.append(tuple(task))
            answers.append(tuple(tuple(table.add(row) for row in item.rows) for item in items[-1]))
        return cls(tuple(items), tuple(answers), tuple(table.rows()), tuple(first_rows))

    def requests(self, capacity: Capacity, shares_prefixes: bool) -> list[Request]:
        """Every row in one request; rows of different tasks are not mixed, so that each task's time is known."""
        ends = (*self.first_rows[1:], len(self.rows))
        parts = (self.rows[begin:end] for begin, end in zip(self.first_rows, ends, strict=True))
        return [request for part in parts for request in plan(part, capacity, shares_prefixes)]

    def draw_probed_rows(self, rng: np.random.Generator) -> Due:
        """Which rows are probed, and how: some of every task, those of language modelling also by decoding."""
        counts = {name: min(most, 1 + len(self.rows) // each) for name, (most, each) in OF_ALL_TASKS.items()}
        chosen = [draw(rng, range(len(self.rows)), counts)]
        for items, answers in zip(self.items, self.answers, strict=True):
            rows = sorted({found[0] for example in answers for found in example if found is not None})
            spoken: tuple[ProbeName, ...] = ("decoding",) if items and items[0].kind == "language_modeling" else ()
            count = max(1, min(MOST_PROBED, len(items) // EXAMPLES_PER_PROBE))
            chosen.append(draw(rng, rows, dict.fromkeys((*OF_EVERY_TASK, *spoken), count)))
        return joined(chosen)


@dataclass(slots=True)
class CoreScores:
    """Scores of all rows as they come in, and what follows from them."""

    rows: CoreRows
    on_rows: OnRows = silent_scoring
    _scores: dict[int, tuple[RowScore, ...]] = field(default_factory=dict, init=False)
    """Index of a row -> a score for each of its endings."""
    _seconds: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self._seconds = [0.0] * len(self.rows.items)

    def score(self, servers: Sequence[ModelServer], capacity: Capacity, prober: Prober) -> None:
        """Score all rows. Raises VoidRun as `Engine.run` does."""
        requests = self.rows.requests(capacity, all(server.shares_prefixes for server in servers))
        if not prober.sharing_agrees(servers[0], requests):
            requests = self.rows.requests(capacity, False)
        Engine(servers, prober, self._collect).run(requests)
        self._seconds = [seconds / len(servers) for seconds in self._seconds]
        prober.look_back("unchanged_parameters", servers[0])

    def outcomes(self) -> dict[str, list[Outcome]]:
        """Label of the task -> its outcomes, in the order of the examples."""
        return {
            items[0].task: [judge(item, [self._score_of(found) for found in example]) for item, example in zip(items, answers, strict=True)]
            for items, answers in zip(self.rows.items, self.rows.answers, strict=True)
            if items
        }

    def seconds(self) -> dict[str, float]:
        """Label of the task -> wall time for it, with all servers at work; the tasks' add up to the whole."""
        return {items[0].task: seconds for items, seconds in zip(self.rows.items, self._seconds, strict=True) if items}

    def _collect(self, request: Request, found: TokenScores, seconds: float) -> None:
        losses = found.losses.astype(np.float64)
        begin = 0
        for row in request.rows:
            end = begin + row.positions - 1 + len(row.endings)
            self._scores[row.index] = endings_scores(row, losses[begin:end], found.greedy[begin:end])
            begin = end
        self._seconds[bisect_right(self.rows.first_rows, request.rows[0].index) - 1] += seconds
        self.on_rows(len(self._scores), len(self.rows.rows))

    def _score_of(self, found: Answer) -> RowScore:
        return UNSCORED if found is None else self._scores[found[0]][found[1]]


def endings_scores(row: AskedRow, losses: NDArray[np.float64], greedy: NDArray[np.bool_]) -> tuple[RowScore, ...]:
    """A score for each ending, from what is scored of the row (in the order of `asked.targets_of`): what is inside it counts for all."""
    inside = row.positions - 1
    total, all_greedy = float(losses[:inside].sum()), bool(greedy[:inside].all())
    return tuple(
        RowScore((total + float(loss)) / row.positions, all_greedy and bool(last))
        for loss, last in zip(losses[inside:], greedy[inside:], strict=True)
    )
