"""A whole submit and a whole verify at a tiny size, through the library, with real runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.check import CheckReport
from harness.cli.report import phase_words
from harness.identity import entry_id
from harness.run import Watcher
from harness.submission import Submission
from harness.submit import UNSANDBOXED, UNSIGNED, Judged, Place, submit, verify
from harness.track import Track
from leaderboard.database import Database
from leaderboard.merged import MergedDatabase
from tests.harness.tiny_runs import TinyRuns, tiny, write_tiny_submission

PAIRS = 2


def place_in(folder: Path) -> Place:
    database = Database(folder / "db")
    return Place(database, MergedDatabase([database]), folder / "work", "somebody")


@pytest.fixture(scope="module")
def track(tiny_runs: TinyRuns) -> Track:
    """A target that an untrained model reaches, so that the verdicts do not depend on six steps of training."""
    small = tiny(tiny_runs.track)
    return small.model_copy(update={"target": small.target.model_copy(update={"value": 50.0})})


@pytest.fixture(scope="module")
def submitted(tiny_runs: TinyRuns, track: Track, tmp_path_factory: pytest.TempPathFactory) -> tuple[Judged, Place, Submission, Submission]:
    """An untouched copy, submitted beside what it is a copy of."""
    folder = tmp_path_factory.mktemp("submitted")
    entry, reference = (write_tiny_submission(folder / name, {}) for name in ("mine", "theirs"))
    place = place_in(folder)
    reports = [CheckReport(submission, (), None) for submission in (entry, reference)]
    judged = submit(reports[0], reports[1], track, tiny_runs.data, PAIRS, place, lambda planned, job: Watcher())
    return judged, place, entry, reference


def test_an_untouched_copy_is_judged_and_not_called_better(submitted: tuple[Judged, Place, Submission, Submission]) -> None:
    judged, place, _, _ = submitted
    assert judged.entry.status == "checked"
    assert judged.verdict.superiority is not None
    assert judged.verdict.superiority.verdict == "not better"
    assert place.database.verdicts(judged.entry.id) == (judged.verdict,)


def test_every_run_is_kept_with_its_pair_its_seed_and_its_curve(submitted: tuple[Judged, Place, Submission, Submission]) -> None:
    judged, place, _, _ = submitted
    runs = place.database.runs(judged.entry.id)
    assert [(run.role, run.pair, run.seed_index) for run in runs] == [
        ("reference", 0, 0),
        ("entry", 0, 1),
        ("reference", 1, 2),
        ("entry", 1, 3),
    ]
    assert len({run.seed for run in runs}) == 2 * PAIRS
    assert all(len(place.database.curve(judged.entry.id, run.id).step) == run.steps > 0 for run in runs)


def test_a_reference_that_was_not_published_is_kept_for_the_verifier(
    submitted: tuple[Judged, Place, Submission, Submission], track: Track
) -> None:
    judged, place, _, reference = submitted
    assert judged.verdict.superiority is not None
    assert judged.verdict.superiority.against == entry_id(reference, track)
    assert place.database.entry(entry_id(reference, track)).name == "theirs"


def test_the_overhead_of_the_parent_is_printed_with_its_share(submitted: tuple[Judged, Place, Submission, Submission]) -> None:
    judged, _, _, _ = submitted
    words = phase_words(judged.judgement.entry_runs)
    phases = [run.phases for run in judged.judgement.entry_runs if run.phases]
    mean = sum(p.overhead_s for p in phases) / len(phases)
    assert f"The parent's own overhead is {mean:.1f} s" in words


def test_verify_runs_the_stored_files_with_fresh_seeds_and_appends_its_outcome(
    submitted: tuple[Judged, Place, Submission, Submission], track: Track, tiny_runs: TinyRuns, tmp_path: Path
) -> None:
    judged, place, entry, reference = submitted
    for submission in (entry, reference):
        (submission.path / "submission.toml").unlink()
    verified = verify(judged.entry, track, tiny_runs.data, PAIRS, place, lambda planned, job: Watcher(), tmp_path)
    assert verified.verification is not None
    assert verified.verdict.kind == "verify"
    assert verified.verdict.outcome == verified.verification.outcome
    unsandboxed = any(run.sandbox == "none" for run in verified.judgement.entry_runs)
    assert verified.verdict.note.endswith(UNSANDBOXED if unsandboxed else UNSIGNED)
    assert verified.entry.status == "checked"
    first, fresh = ({run.seed for run in j.judgement.entry_runs} for j in (judged, verified))
    assert not first & fresh
    assert [verdict.kind for verdict in place.database.verdicts(judged.entry.id)] == ["submit", "verify"]
