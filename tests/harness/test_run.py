"""A run from staging to scores: real processes, a real socket, real weights, at a tiny size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from harness.record import Run
from harness.run import RunResult, Watcher
from harness.sandbox.available import chosen
from harness.submission import Submission
from tests.harness.conftest import SubmissionFolder
from tests.harness.tiny_runs import STEPS, TINY_CONFIG, TinyRuns, processes_of

EVENTS = ["start", "hello", "ready", "go", "done", "evaluate", "evaluated", "end"]


@dataclass(frozen=True, slots=True)
class Observed:
    """A finished run of the baseline, what a watcher saw of it, and what was there right after it."""

    result: RunResult
    phases: list[str]
    steps: list[int]
    processes: list[psutil.Process]
    scratch: list[Path]
    temporary: list[Path]


@pytest.fixture(scope="module")
def baseline(session_submission: SubmissionFolder) -> Submission:
    return session_submission({})


@pytest.fixture(scope="module")
def observed(tiny_runs: TinyRuns, baseline: Submission, private_tmp: Path) -> Observed:
    phases: list[str] = []
    steps: list[int] = []
    result = tiny_runs.perform(baseline, 0, watcher=Watcher(phases.append, lambda point: steps.append(point.step)))
    scratch = list((tiny_runs.work_folder / "scratch").iterdir())
    return Observed(result, phases, steps, processes_of(tiny_runs.work_folder), scratch, list(private_tmp.glob("speedrun-*")))


@pytest.fixture(scope="module")
def run(observed: Observed) -> Run:
    return observed.result.run


def test_it_finishes(run: Run) -> None:
    assert (run.state, run.void_reason, run.fault) == ("finished", None, None)


def test_its_events_come_in_order(run: Run) -> None:
    assert [event.name for event in run.events] == EVENTS
    times = [event.at_ns for event in run.events]
    assert times == sorted(times)


def test_its_phases_add_up_to_the_wall_time(run: Run) -> None:
    phases = run.phases
    assert phases is not None
    parts = [phases.staging_s, phases.warmup_s, phases.initialise_s, phases.timed_s, phases.evaluation_s, phases.closing_s]
    assert all(part > 0 for part in parts)
    assert sum(parts) == pytest.approx(phases.wall_s, abs=1e-3)


def test_it_trains_every_step_and_keeps_the_curve(observed: Observed) -> None:
    run, curve = observed.result.run, observed.result.curve
    assert [point.step for point in curve] == list(range(1, STEPS + 1)) == observed.steps
    assert run.steps == STEPS
    assert run.tokens == STEPS * TINY_CONFIG["batch_tokens"]
    assert curve[-1].loss < curve[0].loss


def test_it_records_the_sandbox_it_was_in(run: Run) -> None:
    assert run.sandbox == chosen()
    assert (run.sandbox_shortcoming is None) == (run.sandbox == "namespaces")


def test_it_records_what_it_was_built_of(run: Run) -> None:
    assert run.attention == "sdpa"
    assert run.parameters is not None
    assert run.flops_per_token is not None
    assert 0 < run.flops_per_token < 6 * run.parameters + 1e6


def test_its_curve_lies_between_go_and_done(observed: Observed) -> None:
    go, done = observed.result.run.at_s("go"), observed.result.run.at_s("done")
    assert go is not None
    assert done is not None
    assert all(go <= point.at_ns / 1e9 <= done for point in observed.result.curve)


def test_its_scores_are_finite_and_better_than_untrained(run: Run, tiny_runs: TinyRuns) -> None:
    assert run.scores is not None
    assert run.scores.val_bpb is not None
    assert run.scores.val_tokens <= 16 * 256
    untrained = math.log2(2048) * run.scores.val_tokens / run.scores.val_bytes
    assert 0 < run.scores.val_bpb < untrained


def test_its_probes_pass(run: Run) -> None:
    assert run.scores is not None
    assert {probe.name: probe.passed for probe in run.scores.probes} == {
        "finite_logits": True,
        "determinism": True,
        "causality": True,
        "batch_independence": True,
        "unchanged_parameters": True,
    }


def test_it_names_what_went_in_and_what_came_out(run: Run, tiny_runs: TinyRuns, baseline: Submission) -> None:
    assert run.digests.submission == baseline.digest
    assert run.digests.train_rows == tiny_runs.data.train_rows_digest
    assert run.digests.initial_weights is not None
    assert run.digests.final_weights is not None
    assert run.digests.initial_weights != run.digests.final_weights
    assert run.parameters is not None
    assert run.parameters > 3 * 2048 * 64
    assert run.peak_memory_bytes is not None
    assert run.peak_memory_bytes > 100 * 2**20


def test_a_watcher_is_told_of_every_phase(observed: Observed) -> None:
    assert observed.phases == ["staging", "warm-up", "initialise", "training", "evaluation"]


def test_it_leaves_nothing_behind_but_its_console(observed: Observed) -> None:
    assert observed.processes == []
    assert observed.scratch == []
    assert observed.temporary == []
    assert observed.result.console.is_file()


def test_the_same_seed_gives_the_same_weights(observed: Observed, tiny_runs: TinyRuns, baseline: Submission) -> None:
    assert tiny_runs.perform(baseline, 0).run.digests == observed.result.run.digests


@pytest.mark.slow
def test_another_seed_gives_other_weights(observed: Observed, tiny_runs: TinyRuns, baseline: Submission) -> None:
    first, other = observed.result.run.digests, tiny_runs.perform(baseline, 1).run.digests
    assert other.initial_weights not in (None, first.initial_weights)
    assert other.final_weights not in (None, first.final_weights)
