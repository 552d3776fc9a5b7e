"""Two models on the same examples: which answers changed, and whether more than chance would change.

The examples are the same, so the comparison is paired: only those that one model has right and the other wrong say anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from harness.evaluate.core.items import Outcome
from harness.evaluate.core.tasks import CORE_TASKS, Task


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """McNemar's exact test on one task."""

    label: str
    examples: int
    only_first: int
    """Examples that the first model alone has right."""
    only_second: int
    p_value: float
    """Two-sided: the chance of a split at least as uneven, were each changed answer as likely to go either way. 1 when none changed."""
    centered_difference: float
    """Second minus first, in units of `TaskResult.centered`."""
    stderr: float
    """Standard error of `centered_difference` over the draw of examples."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Second model minus first, on the tasks that both have."""

    tasks: tuple[TaskComparison, ...]
    difference: float
    """Mean of the tasks' centred differences; the difference in CORE where all 22 tasks are complete."""
    stderr: float
    """Standard error of `difference` over the draw of examples, tasks on the same examples taken together."""
    p_value: float
    """Two-sided, by the normal distribution. Says nothing of what another training seed would do. 1 when nothing changed."""


def compare(
    first: Mapping[str, Sequence[Outcome]], second: Mapping[str, Sequence[Outcome]], tasks: Sequence[Task] = CORE_TASKS
) -> Comparison:
    """Pair the outcomes (label -> outcomes) of two models by task and example.

    Raises ValueError when the two hold different tasks or examples.
    """
    if first.keys() != second.keys() or not first:
        raise ValueError("the two evaluations hold different tasks")
    compared = [task for task in tasks if task.label in first]
    changes = {task.label: _changes(task, first[task.label], second[task.label]) for task in compared}
    results = tuple(_compare_task(task, changes[task.label]) for task in compared)
    difference = math.fsum(result.centered_difference for result in results) / len(results)
    stderr = math.sqrt(_variance(compared, changes)) / len(results)
    p_value = float(2.0 * stats.norm.sf(abs(difference) / stderr)) if stderr else (0.0 if difference else 1.0)
    return Comparison(results, difference, stderr, p_value)


def _changes(task: Task, first: Sequence[Outcome], second: Sequence[Outcome]) -> dict[int, int]:
    """Example -> 1 where only the second model is right, -1 where only the first is, 0 otherwise."""
    before = {outcome.example: outcome.correct for outcome in first}
    after = {outcome.example: outcome.correct for outcome in second}
    if before.keys() != after.keys() or not before:
        raise ValueError(f"the two evaluations hold different examples of {task.label}")
    return {example: int(after[example]) - int(before[example]) for example in before}


def _compare_task(task: Task, changes: Mapping[int, int]) -> TaskComparison:
    gained, lost = sum(change > 0 for change in changes.values()), sum(change < 0 for change in changes.values())
    p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    mean = (gained - lost) / len(changes)
    variance = ((gained + lost) / len(changes) - mean**2) / len(changes)
    stretch = 1.0 / (1.0 - 0.01 * task.random_baseline)
    return TaskComparison(task.label, len(changes), lost, gained, p_value, stretch * mean, stretch * math.sqrt(variance))


def _variance(tasks: Sequence[Task], changes: Mapping[str, Mapping[int, int]]) -> float:
    """Of the sum of centred differences. Changes on one file's examples add up example by example before they are squared."""
    total = 0.0
    for file in dict.fromkeys(task.file for task in tasks):
        sums: dict[int, float] = {}
        for task in (task for task in tasks if task.file == file):
            weight = 1.0 / (1.0 - 0.01 * task.random_baseline) / len(changes[task.label])
            for example, change in changes[task.label].items():
                sums[example] = sums.get(example, 0.0) + weight * change
        mean = math.fsum(sums.values()) / len(sums)
        total += math.fsum((value - mean) ** 2 for value in sums.values())
    return total
