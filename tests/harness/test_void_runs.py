"""Runs that must not count: each comes back void, or without a score, with one reason, and leaves no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.conversation import CurvePoint
from harness.launch import REPOSITORY
from harness.run import RunResult, Watcher
from leaderboard.database import Database
from tests.harness.conftest import SubmissionFolder
from tests.harness.tiny_runs import STEPS, TinyRuns, processes_of, wait_until_none

SCHEDULE = """\
from baseline.contract import StepPlan
from baseline.schedule import schedule as planned

def schedule(step, config):
    plan = planned(step, config)
    if step == 3:
        {at_step_3}
    return plan
"""
MODEL = """\
import os
import tempfile
import time

import torch

from baseline.model import GPT

class Mine(GPT):
    calls = 0

    {method}

def build_model(config, ops):
    {before}
    return Mine(config, ops)
"""


def model(method: str = "pass", before: str = "pass") -> dict[str, str]:
    return {"model": MODEL.format(method=method.replace("\n", "\n    "), before=before.replace("\n", "\n    "))}


def schedule(at_step_3: str) -> dict[str, str]:
    """A schedule that does something in the fourth step: after the warm-up, which knows two."""
    return {"schedule": SCHEDULE.format(at_step_3=at_step_3)}


@dataclass(slots=True)
class KillRank:
    """Kills a rank, without a warning, when rank 0 has done this many steps."""

    rank: int
    after_step: int
    folder: Path
    killed_at: float = field(default=0.0)

    def __call__(self, point: CurvePoint) -> None:
        if point.step == self.after_step:
            self.killed_at = time.monotonic()
            next(p for p in processes_of(self.folder) if p.environ().get("RANK") == str(self.rank)).kill()


@pytest.fixture(autouse=True)
def nothing_left(tiny_runs: TinyRuns, private_tmp: Path) -> Iterator[None]:
    """After each test of this file: no process of its runs, no scratch folder, no socket."""
    yield
    assert processes_of(tiny_runs.work_folder) == []
    scratch = tiny_runs.work_folder / "scratch"
    assert not scratch.exists() or list(scratch.iterdir()) == []
    assert list(private_tmp.glob("speedrun-*")) == []


def void(result: RunResult, fault: str) -> str:
    """The reason of a void run, after checking that it is one, and whose doing it was."""
    assert result.run.state == "void"
    assert result.run.fault == fault
    assert result.run.scores is None
    assert result.run.void_reason is not None
    return result.run.void_reason


# ---------------------------------------------------------------------- the machine's doing


def test_a_killed_rank_makes_the_run_void_within_ten_seconds_and_is_named(
    tiny_runs: TinyRuns, session_submission: SubmissionFolder
) -> None:
    kill = KillRank(rank=1, after_step=2, folder=tiny_runs.work_folder)
    result = tiny_runs.perform(session_submission({}), watcher=Watcher(on_step=kill))
    assert time.monotonic() - kill.killed_at < 10
    assert void(result, "machine") == "rank 1 died before it was done"
    assert result.run.at_s("done") is None
    assert [point.step for point in result.curve][:2] == [1, 2]


def test_a_run_that_falls_silent_is_void(tiny_runs: TinyRuns, session_submission: SubmissionFolder) -> None:
    hanging = session_submission(schedule("while True: pass"))
    steps: list[float] = []
    result = tiny_runs.perform(hanging, watcher=Watcher(on_step=lambda _: steps.append(time.monotonic())), limits={"silence_s": 3.0})
    assert time.monotonic() - steps[-1] < 3 + 10
    assert "has said nothing for" in void(result, "machine")
    assert len(result.curve) == 3


def test_a_run_over_the_memory_limit_is_void(tiny_runs: TinyRuns, session_submission: SubmissionFolder) -> None:
    result = tiny_runs.perform(session_submission({}), limits={"memory_bytes": 50 * 2**20})
    assert void(result, "machine").startswith("out of memory: ")
    assert result.run.peak_memory_bytes is not None
    assert result.run.peak_memory_bytes > 50 * 2**20


def test_a_run_over_the_disk_quota_is_void(tiny_runs: TinyRuns, session_submission: SubmissionFolder) -> None:
    write = 'for part in "abc":\n    open(f"{tempfile.gettempdir()}/{part}", "wb").write(bytes(20 * 2**20))\ntime.sleep(30)'
    result = tiny_runs.perform(session_submission(model(before=write)), limits={"scratch_bytes": 32 * 2**20})
    assert void(result, "machine").startswith("disk quota: ")


# ---------------------------------------------------------------------- the entry's doing


def test_a_loss_that_is_not_finite_makes_the_run_void_by_the_entry_and_names_the_step(
    tiny_runs: TinyRuns, session_submission: SubmissionFolder
) -> None:
    result = tiny_runs.perform(session_submission(schedule("plan = StepPlan(1e38, 0.9, 0.0, plan.batch_rows)")))
    assert "the loss is nan at step 5" in void(result, "entry")


def test_an_exception_in_a_slot_makes_the_run_void_with_its_one_line(tiny_runs: TinyRuns, session_submission: SubmissionFolder) -> None:
    result = tiny_runs.perform(
        session_submission({"optimizer": "def build_optimizer(model, config, ops, world):\n    raise ValueError('no\\nluck')\n"})
    )
    reason = void(result, "entry")
    assert reason.endswith(": optimizer.py: line 2: ValueError: no luck")
    assert reason.startswith("rank ")


def test_initial_weights_that_depend_on_the_warm_up_are_refused(tiny_runs: TinyRuns, session_submission: SubmissionFolder) -> None:
    counting = """
@torch.no_grad()
def init_weights(self, generator):
    super().init_weights(generator)
    self.lm_head.add_(Mine.calls)
    Mine.calls += 1
"""
    result = tiny_runs.perform(session_submission(model(counting)))
    assert "the initial weights differ from those of a fresh process" in void(result, "entry")
    assert result.run.at_s("go") is None


def test_final_weights_that_are_a_link_make_the_run_void(tiny_runs: TinyRuns, session_submission: SubmissionFolder) -> None:
    linking = """
def state_dict(self, *args, **kwargs):
    Mine.calls += 1
    if Mine.calls == 2:  # the first was for the initial weights
        os.symlink("elsewhere", "weights/final.safetensors.partial")
    return super().state_dict(*args, **kwargs)
"""
    result = tiny_runs.perform(session_submission(model(linking)))
    assert void(result, "entry") == "the run left no final.safetensors"
    assert len(result.curve) == STEPS


# ---------------------------------------------------------------------- no score


def test_a_model_that_sees_the_future_finishes_without_a_score(tiny_runs: TinyRuns, session_submission: SubmissionFolder) -> None:
    peeking = "def embed(self, tokens, cache=None):\n    x = super().embed(tokens, cache)\n    return x + x.mean(1, keepdim=True)"
    run = tiny_runs.perform(session_submission(model(peeking))).run
    assert run.state == "finished"
    assert run.scores is not None
    assert run.scores.val_bpb is None
    assert [probe.name for probe in run.scores.probes if not probe.passed] == ["causality"]


# ---------------------------------------------------------------------- a killed harness


def test_a_killed_harness_takes_its_runs_with_it_and_leaves_a_readable_database(tiny_runs: TinyRuns, tmp_path: Path) -> None:
    work = tmp_path / "work"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.harness.interrupted_submit", str(tiny_runs.data.folder), str(work)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        text=True,
    ) as harness:
        assert harness.stdout is not None
        trainings = 0
        while trainings < 2:
            trainings += harness.stdout.readline() == "training\n"
        assert any("baseline.train" in process.cmdline() for process in processes_of(work))
        harness.send_signal(signal.SIGKILL)
    assert wait_until_none(work, within_s=10) == []
    database = Database(work / "db")
    (entry,) = (entry for entry in database.entries() if entry.name == "mine")
    assert entry.status == "claimed"
    assert [(run.role, run.state) for run in database.runs(entry.id)] == [("reference", "finished")]
    assert database.curve(entry.id, database.runs(entry.id)[0].id).step == tuple(range(1, STEPS + 1))
    assert database.verdicts(entry.id) == ()
