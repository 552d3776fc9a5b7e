"""What the evaluator's two halves exchange: token rows to score, the scores that a model gives them, and the results.

The half without a model makes `ExampleItem`s; the half with one returns a `RowScore` for each of their rows; the half without
a model judges those into `Outcome`s, `TaskResult`s and the `CoreResult`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["multiple_choice", "schema", "language_modeling"]


@dataclass(frozen=True, slots=True, eq=False)
class TokenRow:
    """One prompt as the model sees it, and the tokens of it that are scored.

    The scored tokens are `tokens[start:end]`, predicted by the logits at positions `start - 1` to `end - 2`. Always
    `1 <= start <= end <= len(tokens)`, and `end == len(tokens)`. `start == end` is a row without a scored token (see `regions`).
    """

    tokens: NDArray[np.int32]
    """(n,) token ids, read-only. The first is BOS, unless the row was cut on the left to the model's length."""
    start: int
    end: int

    @property
    def key(self) -> bytes:
        """16 bytes that are equal for rows with equal tokens and equal region, on every machine and in every process."""
        digest = hashlib.blake2b(np.array([self.start, self.end], dtype="<i4").tobytes(), digest_size=16)
        digest.update(np.ascontiguousarray(self.tokens, dtype="<i4").tobytes())
        return digest.digest()


@dataclass(frozen=True, slots=True, eq=False)
class ExampleItem:
    """One example of one task: a row per choice (a single one for language modelling) and which of them is right."""

    task: str
    """Label of the task, as in the bundle's table."""
    example: int
    """Position after the shuffle and the limit, from 0; it seeds the draw of the shots."""
    line: int
    """Line of the task's file that holds the example, from 1."""
    kind: Kind
    rows: tuple[TokenRow, ...]
    gold: int
    """Index of the right row. 0 for language modelling, where the only row is right when every scored token is the argmax."""


@dataclass(frozen=True, slots=True)
class RowScore:
    """What a model says of one `TokenRow`."""

    mean_loss: float
    """Mean cross-entropy over the scored tokens, nats. NaN for a row without a scored token."""
    all_greedy: bool
    """Every scored token is the argmax of its logits. Whatever it is for a row without a scored token, it counts as False."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One judged example."""

    task: str
    example: int
    correct: bool
    choice: int | None
    """Index of the row that the model prefers; None for language modelling."""
    mean_losses: tuple[float, ...]
    """Mean loss of each row, nats."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task's score. Accuracies are fractions, not percent."""

    label: str
    examples: int
    accuracy: float
    centered: float
    """(accuracy - b) / (1 - b), b the historical random baseline: 0 is guessing, 1 is perfect. CORE is made of these."""
    centered_corrected: float
    """The same with DCLM's later baselines. A second figure; no published threshold refers to it."""
    stderr_binomial: float
    """Standard error of `centered` over the draw of examples, from the binomial variance."""
    stderr_bootstrap: float
    """Standard error of `centered` over the draw of examples, from resampled examples."""
    seconds: float
    """Wall time that the engine spent on the task."""


@dataclass(frozen=True, slots=True)
class CoreResult:
    """All tasks' scores, and CORE where they are complete."""

    tasks: tuple[TaskResult, ...]
    """In the bundle's order."""
    mean_centered: float
    """Unweighted mean of `centered` over `tasks`."""
    mean_centered_corrected: float
    stderr: float
    """Standard error of `mean_centered`, propagated from the examples' outcomes."""
    stderr_bootstrap: float
    """The same by resampling examples."""
    complete: bool
    """All 22 tasks, every example of each."""

    @property
    def core(self) -> float | None:
        """CORE; None for a partial evaluation, which has no such number."""
        return self.mean_centered if self.complete else None

    @property
    def core_corrected(self) -> float | None:
        """The mean by the corrected baselines; None for a partial evaluation."""
        return self.mean_centered_corrected if self.complete else None
