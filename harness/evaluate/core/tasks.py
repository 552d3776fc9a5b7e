"""The table of the 22 tasks, read from `bundle.toml`: what each file must be, and how its examples are asked and counted."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageProblem
from harness.evaluate.core.items import Kind

TABLE = Path(__file__).with_name("bundle.toml")


@dataclass(frozen=True, slots=True)
class Task:
    """One task: a file of examples, and how it is asked. Field for field a `[[task]]` of `bundle.toml`."""

    label: str
    file: str
    """Path below the bundle's `eval_data/`, with forward slashes. Two tasks may read the same file."""
    kind: Kind
    shots: int
    """Solved examples before the question."""
    delimiter: str
    """Between a question and its answer."""
    rows: int
    """Examples, one on each line."""
    bytes: int
    sha256: str
    random_baseline: float
    """Percent; the historical one, which CORE is centred with."""
    corrected_baseline: float
    """Percent; DCLM's later one."""


def read_table(path: Path = TABLE) -> tuple[Task, ...]:
    """The tasks of a table, in its order. Raises TypeError for a field that is missing or unknown."""
    return tuple(Task(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["task"])


CORE_TASKS = read_table()
"""The 22 tasks in the historical order."""


def select(labels: Iterable[str], tasks: tuple[Task, ...] = CORE_TASKS) -> tuple[Task, ...]:
    """The named tasks, in the table's order. Raises UsageProblem for a name that is not in it."""
    wanted = set(labels)
    if unknown := sorted(wanted - {task.label for task in tasks}):
        raise UsageProblem(f"CORE has no task {unknown[0]}", where="--tasks", mend=f"one of: {', '.join(task.label for task in tasks)}")
    return tuple(task for task in tasks if task.label in wanted)
