"""A series: an entry and its reference run in turn, A B A B, on one machine, each run kept as soon as it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SpeedrunError
from harness.prepared import PreparedData
from harness.record import Environment, Run, RunRole
from harness.run import RunJob, RunResult, Watcher, perform
from harness.seeds import derive_seed
from harness.submission import Submission
from harness.track import Track


@dataclass(frozen=True, slots=True)
class Series:
    """What all runs of a series share."""

    track: Track
    data: PreparedData
    environment: Environment
    nonce: str
    work_folder: Path


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a series, before it is made."""

    submission: Submission
    role: RunRole
    pair: int | None
    index: int


class SeriesInterruptedError(SpeedrunError):
    """The person stopped the series; what had finished is kept."""

    exit_code = 5


def paired(entry: Submission, reference: Submission, pairs: int) -> Iterator[Planned]:
    """Reference, entry, reference, entry, …; each run has its own seed index."""
    for pair in range(pairs):
        yield Planned(reference, "reference", pair, 2 * pair)
        yield Planned(entry, "entry", pair, 2 * pair + 1)


def perform_series(
    series: Series, planned: Iterator[Planned], keep: Callable[[RunResult], None], watch: Callable[[Planned, RunJob], Watcher]
) -> list[Run]:
    """Make every run in order, handing each to `keep` at once. A void run does not end the series; an interruption does."""
    runs = []
    for plan in planned:
        job = job_of(series, plan)
        result = perform(job, watch(plan, job))
        keep(result)
        runs.append(result.run)
        if result.interrupted:
            raise SeriesInterruptedError("interrupted: the run in flight is void")
    return runs


def job_of(series: Series, plan: Planned) -> RunJob:
    """The job of one planned run. Its seed follows from what the run records: submission, baseline, ruleset, nonce, index."""
    track = series.track
    return RunJob(
        run_id=f"{plan.submission.name}-{series.nonce[:8]}-{plan.index:02d}",
        track=track,
        submission=plan.submission,
        data=series.data,
        seed=derive_seed(plan.submission.digest, track.baseline_digest, track.ruleset.id, series.nonce, plan.index),
        role=plan.role,
        pair=plan.pair,
        environment=series.environment,
        work_folder=series.work_folder,
    )
