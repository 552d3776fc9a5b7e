"""Whole evaluations of one model: CORE with its probes, from the bundle to the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.evaluate.core.bundle import Bundle
from harness.evaluate.core.items import CoreResult, Outcome
from harness.evaluate.core.prepare import CACHE_FOLDER, prepare, silent
from harness.evaluate.core.prepare import Progress as OnPrepared
from harness.evaluate.core.prepared import PreparedTask
from harness.evaluate.core.result import core_result
from harness.evaluate.core.tasks import Task
from harness.evaluate.core.tokenizer import Tokenizer
from harness.evaluate.core_scores import CoreRows, CoreScores, OnRows, silent_scoring
from harness.evaluate.crew import Crew
from harness.evaluate.model_server import Capacity, Place, ServedModel
from harness.evaluate.probes import FOREIGN_TOKENS, Prober
from harness.record import Probe


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to evaluate."""

    served: ServedModel
    tokenizer: Tokenizer
    tolerance: float
    """Largest difference of two of its logits that rounding may explain; see `probes.TOLERANCE`."""
    max_length: int | None
    """Most tokens of a row; longer ones lose their beginning."""


@dataclass(frozen=True, slots=True)
class CoreQuestions:
    """What is asked."""

    bundle: Bundle
    tasks: tuple[Task, ...]
    limit: int | None = None
    """Examples of each task; with a limit there is no CORE."""
    cache: Path = CACHE_FOLDER


@dataclass(frozen=True, slots=True)
class Watching:
    """What a person sees meanwhile."""

    on_prepared: OnPrepared = silent
    on_scored: OnRows = silent_scoring


@dataclass(frozen=True, slots=True)
class CoreEvaluation:
    """What came of it. A model that failed a probe has outcomes, to see why, and no result."""

    probes: tuple[Probe, ...]
    outcomes: dict[str, list[Outcome]]
    """Label of the task -> its outcomes, in the order of the examples."""
    result: CoreResult | None


def evaluate_core(
    subject: Subject, questions: CoreQuestions, crew: Crew, place: Place, fresh_place: Place, watching: Watching | None = None
) -> CoreEvaluation:
    """Ask all questions, and probe the model while it answers. Raises VoidRun, MachineLacks and UsageProblem as its parts do.

    The process in which some rows are asked once more works in `fresh_place`, where it finds nothing of the others.
    """
    watching = watching or Watching()
    prepared = prepare(
        questions.bundle,
        questions.tasks,
        subject.tokenizer,
        limit=questions.limit,
        max_length=subject.max_length,
        cache=questions.cache,
        progress=watching.on_prepared,
    )
    capacity = capacity_for(prepared, crew.capacity(subject.served.vocab_size))
    with crew.start(subject.served, capacity, place) as servers, crew.alone().start(subject.served, capacity, fresh_place) as (fresh,):
        rows = CoreRows.of(prepared)  # while the servers start
        rng = np.random.default_rng()
        prober = Prober(rows.draw_probed_rows(rng), rng, subject.tolerance, subject.max_length)
        scores = CoreScores(rows, watching.on_scored)
        scores.score(servers, capacity, prober)
        prober.look_back("fresh_process", fresh)
    probes, outcomes = prober.probes(), scores.outcomes()
    honest = all(probe.passed for probe in probes)
    return CoreEvaluation(probes, outcomes, core_result(outcomes, scores.seconds()) if honest else None)


def capacity_for(prepared: Sequence[PreparedTask], usual: Capacity) -> Capacity:
    """The usual capacity, or more where a single row needs more, with what a probe puts behind it."""
    longest = max(int(task.row_lengths.max()) for task in prepared) + FOREIGN_TOKENS
    scored = max(int((task.columns.lengths - task.columns.starts).max()) for task in prepared) + FOREIGN_TOKENS
    return replace(usual, tokens=max(usual.tokens, longest), positions=max(usual.positions, scored))
