"""A series: reference and entry in turn, each run kept as it ends, seeds of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.environment import read_environment
from harness.launch import REPOSITORY
from harness.prepared import PreparedData
from harness.run import RunJob, RunResult, Watcher
from harness.seeds import derive_seed, draw_nonce
from harness.series import Planned, Series, SeriesInterruptedError, job_of, paired, perform_series
from harness.submission import Submission
from harness.track import Track
from tests.harness.tiny_runs import write_tiny_submission


@pytest.fixture
def series(tiny_track: Track, prepared_data: PreparedData, tmp_path: Path) -> Series:
    return Series(tiny_track, prepared_data, read_environment(REPOSITORY), draw_nonce(), tmp_path / "work")


@pytest.fixture
def entry(tmp_path: Path) -> Submission:
    return write_tiny_submission(tmp_path / "mine", {})


@pytest.fixture
def reference(tmp_path: Path) -> Submission:
    return write_tiny_submission(tmp_path / "theirs", {})


def failing(error: BaseException) -> Callable[[Planned, RunJob], Watcher]:
    """Watchers that fail before a run starts its processes: quick void runs."""

    def fail(phase: str) -> None:
        raise error

    return lambda planned, job: Watcher(on_phase=fail)


def test_reference_and_entry_take_turns(entry: Submission, reference: Submission) -> None:
    planned = list(paired(entry, reference, 3))
    assert [plan.role for plan in planned] == ["reference", "entry"] * 3
    assert [plan.submission for plan in planned] == [reference, entry] * 3
    assert [plan.pair for plan in planned] == [0, 0, 1, 1, 2, 2]


def test_every_run_has_its_own_seed_and_id(series: Series, entry: Submission, reference: Submission) -> None:
    jobs = [job_of(series, plan) for plan in paired(entry, reference, 5)]
    assert [job.seed.index for job in jobs] == list(range(10))
    assert len({job.seed.value for job in jobs}) == 10
    assert len({job.run_id for job in jobs}) == 10


def test_a_seed_follows_from_what_the_run_records(series: Series, entry: Submission, reference: Submission) -> None:
    for plan in paired(entry, reference, 2):
        job = job_of(series, plan)
        track = job.track
        assert job.seed == derive_seed(job.submission.digest, track.baseline_digest, track.ruleset.id, series.nonce, plan.index)


def test_another_series_has_other_seeds_and_ids(series: Series, entry: Submission, reference: Submission) -> None:
    other = replace(series, nonce=draw_nonce())
    for plan in paired(entry, reference, 2):
        assert job_of(series, plan).seed.value != job_of(other, plan).seed.value
        assert job_of(series, plan).run_id != job_of(other, plan).run_id


def test_void_runs_are_kept_and_do_not_end_the_series(series: Series, entry: Submission, reference: Submission) -> None:
    kept: list[RunResult] = []
    runs = perform_series(series, paired(entry, reference, 2), kept.append, failing(OSError("no space left")))
    assert [result.run for result in kept] == runs
    assert [(run.role, run.pair, run.state) for run in runs] == [
        ("reference", 0, "void"),
        ("entry", 0, "void"),
        ("reference", 1, "void"),
        ("entry", 1, "void"),
    ]
    assert {run.void_reason for run in runs} == {"the harness could not go on: no space left"}
    assert {run.fault for run in runs} == {"machine"}


def test_an_interruption_ends_the_series_and_the_run_in_flight_is_kept_as_void(
    series: Series, entry: Submission, reference: Submission
) -> None:
    kept: list[RunResult] = []
    with pytest.raises(SeriesInterruptedError) as interrupted:
        perform_series(series, paired(entry, reference, 2), kept.append, failing(KeyboardInterrupt()))
    assert interrupted.value.exit_code == 5
    assert [(result.run.state, result.run.void_reason, result.run.fault) for result in kept] == [("void", "interrupted", "machine")]
