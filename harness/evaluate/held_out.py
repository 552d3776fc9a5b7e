"""Bits per byte of a served model on the held-out rows. The softmax is done here, in the process that keeps the targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baseline.data.bits_per_byte import ByteLoss, byte_loss
from harness.evaluate.asked import AskedRow, Request
from harness.evaluate.crew import Crew
from harness.evaluate.engine import Engine
from harness.evaluate.logit_memory import TokenScores
from harness.evaluate.model_server import Capacity, ModelServer, Place, ServedModel
from harness.evaluate.probes import TOLERANCE, Due, Prober, draw
from harness.prepared import HeldOut
from harness.record import Probe, ProbeName

ROWS_PER_REQUEST = 16
PROBED_ROWS: dict[ProbeName, int] = {"determinism": 1, "causality": 4, "batch_independence": 4, "unchanged_parameters": 2}
"""Rows for each probe. For determinism the row's whole batch is asked again."""

OnRows = Callable[[int], None]
"""Called with the number of rows scored so far."""


@dataclass(frozen=True, slots=True)
class HeldOutScore:
    """What came of the held-out rows."""

    loss: ByteLoss
    probes: tuple[Probe, ...]

    @property
    def bits_per_byte(self) -> float | None:
        """None for a model that failed a probe."""
        honest = all(probe.passed for probe in self.probes) and math.isfinite(self.loss.nats)
        return self.loss.bits_per_byte if honest else None


def evaluate_held_out(
    model: ServedModel, dtype: str, held_out: HeldOut, crew: Crew, place: Place, on_rows: OnRows = lambda rows: None
) -> HeldOutScore:
    """Score the rows on fresh servers, with probes hidden among them. `dtype` is what the model computes in. Raises VoidRun."""
    rng = np.random.default_rng()
    prober = Prober(draw_probed_rows(rng, len(held_out.rows)), rng, TOLERANCE[dtype])
    with crew.start(model, capacity_for(held_out.rows.shape[1] - 1), place) as servers:
        loss = score_held_out(servers, held_out.rows, held_out.token_bytes, prober, on_rows)
    return HeldOutScore(loss, prober.probes())


def capacity_for(length: int) -> Capacity:
    """What a server needs to hold for rows of `length` tokens that are all scored."""
    return Capacity(tokens=ROWS_PER_REQUEST * length, positions=ROWS_PER_REQUEST * length)


def draw_probed_rows(rng: np.random.Generator, rows: int) -> Due:
    """Which of the held-out rows are probed, and how."""
    return draw(rng, range(rows), PROBED_ROWS)


def score_held_out(
    servers: Sequence[ModelServer],
    rows: NDArray[np.uint16],
    token_bytes: NDArray[np.integer],
    prober: Prober,
    on_rows: OnRows = lambda rows: None,
) -> ByteLoss:
    """Score every row (N, T+1), a batch at a time; targets without bytes (special tokens) count nothing."""
    losses = np.zeros((len(rows), rows.shape[1] - 1), np.float32)
    scored = 0

    def collect(request: Request, found: TokenScores, seconds: float) -> None:
        nonlocal scored
        losses[[row.index for row in request.rows]] = found.losses.reshape(len(request.rows), -1)
        scored += len(request.rows)
        on_rows(scored)

    Engine(servers, prober, collect).run(_requests(rows))
    prober.look_back("unchanged_parameters", servers[0])
    score = ByteLoss()
    for begin in range(0, len(rows), ROWS_PER_REQUEST):  # in the rows' order, so that the sum does not depend on the servers' speed
        batch = slice(begin, begin + ROWS_PER_REQUEST)
        score += byte_loss(losses[batch], rows[batch, 1:].astype(np.int64), token_bytes)
    return score


def _requests(rows: NDArray[np.uint16]) -> list[Request]:
    asked = [AskedRow(index, row[:-1].astype(np.int32), 0, (int(row[-1]),)) for index, row in enumerate(rows)]
    return [Request(tuple(asked[begin : begin + ROWS_PER_REQUEST])) for begin in range(0, len(asked), ROWS_PER_REQUEST)]
