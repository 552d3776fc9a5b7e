"""Tasks of a bundle to rows of tokens: in worker processes, and kept on disk under a name that says from what they were made."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache as cached
from pathlib import Path

from harness.errors import MachineLacks
from harness.evaluate.core import cuts, examples, prepared, prompts, regions, rows
from harness.evaluate.core.bundle import DEFAULT_FOLDER, Bundle
from harness.evaluate.core.prepared import PreparedTask, read_prepared, write_prepared
from harness.evaluate.core.rows import tokenize_task
from harness.evaluate.core.tasks import Task
from harness.evaluate.core.tokenizer import Tokenizer

CACHE_FOLDER = DEFAULT_FOLDER / "prepared"
"""Holds the questions and the right answers, so it is hidden from the model like the bundle."""
DECIDING_MODULES = (cuts, examples, prepared, prompts, regions, rows)
"""A change of their source is a change of what is cached."""
WORTH_A_PROCESS = 4096
"""Examples below which starting workers takes longer than the work."""

Progress = Callable[[str, int, int], None]
"""(label of a task that is ready, examples ready so far, examples in all)."""


def silent(label: str, done: int, total: int) -> None:
    """Report nothing."""


def prepare(
    bundle: Bundle,
    tasks: Sequence[Task],
    tokenizer: Tokenizer,
    *,
    limit: int | None = None,
    max_length: int | None = None,
    cache: Path = CACHE_FOLDER,
    workers: int | None = None,
    progress: Progress = silent,
) -> list[PreparedTask]:
    """The tasks' rows, in the order of `tasks`, from the cache or made now by `workers` processes (all cores by default).

    `limit` keeps that many examples of each task (the result is then not CORE), `max_length` the last so many tokens of each row.
    Every file of `tasks` is verified first, also when the rows are cached. Raises MachineLacks for a bundle that is missing, damaged
    or malformed and UsageProblem for a limit that leaves too few examples for the shots.
    """
    bundle.verify(tuple(tasks))
    jobs = [
        _Job(bundle, task, tokenizer, limit, max_length, cache / f"{task.label}-{_key(task, tokenizer, limit, max_length)}.npz")
        for task in tasks
    ]
    ready = {job.path: read_prepared(job.path) for job in jobs}
    missing = [job for job in jobs if ready[job.path] is None]
    total, done = sum(job.examples for job in jobs), 0

    def report(job: _Job) -> None:
        nonlocal done
        done += job.examples
        progress(job.task.label, done, total)

    for job in jobs:
        if ready[job.path] is not None:
            report(job)
    if workers == 1 or sum(job.examples for job in missing) < WORTH_A_PROCESS:
        for job in missing:
            _make(job)
            report(job)
    else:
        _make_in_processes(missing, workers or os.cpu_count() or 1, report)
    return [ready[job.path] or _written(job.path) for job in jobs]


@dataclass(frozen=True, slots=True)
class _Job:
    """One task to tokenize into one file."""

    bundle: Bundle
    task: Task
    tokenizer: Tokenizer
    limit: int | None
    max_length: int | None
    path: Path

    @property
    def examples(self) -> int:
        return self.task.rows if self.limit is None else min(self.task.rows, self.limit)


def _make(job: _Job) -> None:
    in_file_order = job.bundle.examples(job.task)
    write_prepared(job.path, tokenize_task(job.task, in_file_order, job.tokenizer, limit=job.limit, max_length=job.max_length))


def _make_in_processes(jobs: Sequence[_Job], workers: int, report: Callable[[_Job], None]) -> None:
    """The longest job first, so that none is left over at the end. Processes are spawned: a fork of a threaded parent may hang."""
    by_work = sorted(jobs, key=lambda job: job.task.bytes * (1 + job.task.shots), reverse=True)
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_make, job): job for job in by_work}
        try:
            for finished in as_completed(running):
                finished.result()
                report(running[finished])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _written(path: Path) -> PreparedTask:
    task = read_prepared(path)
    if task is None:
        raise MachineLacks("was just written and cannot be read back", where=str(path), mend="check the disk")
    return task


def _key(task: Task, tokenizer: Tokenizer, limit: int | None, max_length: int | None) -> str:
    """32 digits over everything that the rows depend on."""
    material = {"task": asdict(task), "tokenizer": tokenizer.digest, "limit": limit, "max_length": max_length, "code": _code_digest()}
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()[:32]


@cached
def _code_digest() -> str:
    sources = [Path(str(module.__file__)).read_bytes() for module in DECIDING_MODULES]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()
