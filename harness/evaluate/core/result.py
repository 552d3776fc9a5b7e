"""From judged examples to each task's score and CORE, with standard errors.

CORE is a mean over 22 tasks, so one example of a small task weighs as much as hundreds of a large one. Two tasks ask the same
examples (hellaswag with and without shots); what is right in one is often right in the other, and the standard error of CORE
keeps that covariance: tasks that read one file are resampled together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluate.core.items import CoreResult, Outcome, TaskResult
from harness.evaluate.core.tasks import CORE_TASKS, Task

RESAMPLES = 10_000
"""Of the bootstrap: the standard error is then known to 0.7 % of itself."""
BOOTSTRAP_SEED = 20_240_617

Floats = NDArray[np.float64]


def centered(accuracy: float, baseline_percent: float) -> float:
    """0 for guessing, 1 for perfect."""
    return (accuracy - 0.01 * baseline_percent) / (1.0 - 0.01 * baseline_percent)


def core_result(outcomes: Mapping[str, Sequence[Outcome]], seconds: Mapping[str, float], tasks: Sequence[Task] = CORE_TASKS) -> CoreResult:
    """The scores of all tasks that have outcomes (label -> its outcomes in any order; `seconds` likewise, 0 where absent).

    Raises ValueError for a label that is not in `tasks`, for a task without an outcome, and for an example that is judged twice.
    """
    if unknown := sorted(outcomes.keys() - {task.label for task in tasks}):
        raise ValueError(f"{unknown[0]} is none of the tasks")
    evaluated = [task for task in tasks if task.label in outcomes]
    if not evaluated:
        raise ValueError("no task has outcomes")
    correct = {task.label: _by_example(task, outcomes[task.label]) for task in evaluated}
    groups = [_joint(group, correct) for group in _by_file(evaluated)]
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    resampled = {label: column for group in groups for label, column in group.resample(generator).items()}
    results = tuple(_task_result(task, correct[task.label], resampled[task.label], seconds.get(task.label, 0.0)) for task in evaluated)
    scale = {task.label: 1.0 / (1.0 - 0.01 * task.random_baseline) / len(evaluated) for task in evaluated}
    variance = sum(group.variance(scale) for group in groups)
    total = np.sum([resampled[label] * factor for label, factor in scale.items()], axis=0)
    return CoreResult(
        tasks=results,
        mean_centered=math.fsum(result.centered for result in results) / len(results),
        mean_centered_corrected=math.fsum(result.centered_corrected for result in results) / len(results),
        stderr=math.sqrt(variance),
        stderr_bootstrap=float(total.std()),
        complete=len(evaluated) == len(tasks) and all(correct[task.label].keys() == set(range(task.rows)) for task in tasks),
    )


@dataclass(frozen=True, slots=True)
class _JointTasks:
    """Tasks that ask the same examples: how often each pattern of right and wrong occurs."""

    labels: tuple[str, ...]
    patterns: Floats
    """(patterns, tasks) of 0 and 1."""
    counts: NDArray[np.int64]
    """(patterns,) examples that show the pattern."""

    def resample(self, generator: np.random.Generator) -> dict[str, Floats]:
        """label -> accuracies (RESAMPLES,). Drawing examples with replacement is drawing patterns from a multinomial."""
        n = int(self.counts.sum())
        draws = generator.multinomial(n, self.counts / n, size=RESAMPLES)
        accuracies = draws @ self.patterns / n
        return {label: accuracies[:, column] for column, label in enumerate(self.labels)}

    def variance(self, scale: Mapping[str, float]) -> float:
        """Of Σ scale · accuracy over the tasks, the covariances between them included."""
        n = int(self.counts.sum())
        value = self.patterns @ np.array([scale[label] for label in self.labels])
        mean = float(self.counts @ value) / n
        return float(self.counts @ (value - mean) ** 2) / n / n


def _task_result(task: Task, correct: Mapping[int, bool], resampled: Floats, seconds: float) -> TaskResult:
    accuracy = sum(correct.values()) / len(correct)
    stretch = 1.0 / (1.0 - 0.01 * task.random_baseline)
    return TaskResult(
        label=task.label,
        examples=len(correct),
        accuracy=accuracy,
        centered=centered(accuracy, task.random_baseline),
        centered_corrected=centered(accuracy, task.corrected_baseline),
        stderr_binomial=stretch * math.sqrt(accuracy * (1.0 - accuracy) / len(correct)),
        stderr_bootstrap=stretch * float(resampled.std()),
        seconds=seconds,
    )


def _by_example(task: Task, outcomes: Iterable[Outcome]) -> dict[int, bool]:
    """Example -> right or wrong."""
    correct: dict[int, bool] = {}
    for outcome in outcomes:
        if outcome.task != task.label:
            raise ValueError(f"an outcome of {outcome.task} stands among those of {task.label}")
        if outcome.example in correct:
            raise ValueError(f"{task.label} example {outcome.example} is judged twice")
        correct[outcome.example] = outcome.correct
    if not correct:
        raise ValueError(f"{task.label} has no outcome")
    return correct


def _by_file(tasks: Iterable[Task]) -> list[list[Task]]:
    files: dict[str, list[Task]] = {}
    for task in tasks:
        files.setdefault(task.file, []).append(task)
    return list(files.values())


def _joint(tasks: Sequence[Task], correct: Mapping[str, Mapping[int, bool]]) -> _JointTasks:
    """Pair the outcomes by example: one shuffle orders the file for all its tasks. Raises ValueError when they cannot be paired."""
    examples = sorted(correct[tasks[0].label])
    for task in tasks:
        if sorted(correct[task.label]) != examples:
            raise ValueError(f"{task.label} and {tasks[0].label} read one file and were judged on different examples of it")
    table = np.array([[correct[task.label][example] for task in tasks] for example in examples], dtype=np.float64)
    patterns, counts = np.unique(table, axis=0, return_counts=True)
    return _JointTasks(tuple(task.label for task in tasks), patterns, counts.astype(np.int64))
