"""From a folder to a judged entry: check, run in turn with the reference, judge, keep. And the same again for a verifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from harness.check import CheckReport, check, explain, load_parent
from harness.environment import read_environment
from harness.errors import UsageProblem
from harness.frozen import require_frozen
from harness.identity import entry_digest, entry_id
from harness.judge import Judgement, judge, verdict_of
from harness.keep import curve_of, keep_entry, verdict_id
from harness.launch import REPOSITORY
from harness.prepared import PreparedData
from harness.record import Entry, StatusChange, Verdict
from harness.run import RunJob, RunResult, Watcher
from harness.seeds import draw_nonce
from harness.series import Planned, Series, paired, perform_series
from harness.submission import Submission
from harness.track import Track
from harness.verification import Verification, judge_verification
from leaderboard.database import Database
from leaderboard.merged import MergedDatabase

UNSANDBOXED = "some of its runs had no sandbox, so the entry's status stays as it is"
UNSIGNED = "unsigned, so the entry's status stays as it is"
Watch = Callable[[Planned, RunJob], Watcher]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a submit or a verify leaves: the entry, its new verdict, and the runs behind it."""

    entry: Entry
    verdict: Verdict
    judgement: Judgement
    verification: Verification | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a series works and writes."""

    database: Database
    """Written to."""
    published: MergedDatabase
    """Read from: `database` over the committed one."""
    work_folder: Path
    by: str


def require_checked(submission: Submission, track: Track) -> CheckReport:
    """The check's report, or its first refusal as an error. Nothing is trained."""
    require_frozen(track.baseline_digest)
    report = check(submission, track)
    if error := report.error():
        raise error
    return report


def submit(report: CheckReport, reference: CheckReport, track: Track, data: PreparedData, pairs: int, place: Place, watch: Watch) -> Judged:
    """Run `pairs` interleaved pairs, keep every run as it ends, judge them, and write the entry with its verdict.

    A reference that is not published yet is kept as an entry too: whoever verifies the claim needs it.
    """
    submission = report.submission
    entry = keep_entry(place.database, submission, track, explain(report, track, load_parent(submission)), place.by)
    if not place.published.has_entry(entry_id(reference.submission, track)):
        words = explain(reference, track, load_parent(reference.submission))
        keep_entry(place.database, reference.submission, track, words, place.by)
    judgement = _run_and_judge(entry, submission, reference.submission, track, data, pairs, place, watch, final=True)
    verdict = _keep_verdict(place, entry, judgement, "submit")
    if entry.status == "claimed" and any(run.state == "finished" for run in judgement.entry_runs):
        reason = "rules and contract hold; trained and judged by the harness"
        entry = place.database.set_status(entry.id, _change("checked", reason, place.by))
    return Judged(entry, verdict, judgement)


def verify(entry: Entry, track: Track, data: PreparedData, pairs: int, place: Place, watch: Watch, scratch: Path) -> Judged:
    """Re-run a published entry beside its reference with fresh seeds, and append the outcome; the entry's status stays as it is."""
    claims = place.published
    claim = _claim(entry, claims)
    submission = restore(entry.id, claims, scratch)
    if entry_digest(submission, track) != entry.digests.entry:
        raise UsageProblem(
            f"{entry.id} was judged on {entry.track_version} with another baseline, track or environment",
            mend="check out the commit of that version to verify it",
        )
    assert claim.superiority is not None
    reference = restore(claim.superiority.against, claims, scratch)
    for restored in (reference, submission):
        require_checked(restored, track)
    place.database.add_entry(entry, claims.submission(entry.id))
    judgement = _run_and_judge(entry, submission, reference, track, data, pairs, place, watch, final=False)
    verification = judge_verification(claim, judgement)
    verdict = _keep_verdict(place, entry, judgement, "verify", verification)
    return Judged(place.database.entry(entry.id), verdict, judgement, verification)


def restore(identity: str, database: MergedDatabase, scratch: Path) -> Submission:
    """The submission of an entry as the database keeps it, in a fresh folder."""
    entry = database.entry(identity)
    folder = scratch / identity
    folder.mkdir(parents=True)
    for name, text in database.submission(identity).items():
        (folder / name).write_bytes(text.encode())
    return Submission.load(folder, expected_name=entry.name)


def _claim(entry: Entry, database: MergedDatabase) -> Verdict:
    """The newest verdict that stands for the entry's claim."""
    claims = [verdict for verdict in database.verdicts(entry.id) if verdict.kind == "submit" and verdict.superiority is not None]
    if not claims:
        raise UsageProblem(f"{entry.id} has no verdict from a paired series", mend="submit it first")
    return claims[-1]


def _run_and_judge(
    entry: Entry,
    submission: Submission,
    reference: Submission,
    track: Track,
    data: PreparedData,
    pairs: int,
    place: Place,
    watch: Watch,
    *,
    final: bool,
) -> Judgement:
    series = Series(track, data, read_environment(REPOSITORY), draw_nonce(), place.work_folder)

    def keep(result: RunResult) -> None:
        place.database.add_run(entry.id, result.run, curve_of(result))

    runs = perform_series(series, paired(submission, reference, pairs), keep, watch)
    return judge(
        [run for run in runs if run.role == "entry"],
        [run for run in runs if run.role == "reference"],
        ruleset=track.ruleset,
        metric=track.target.metric,
        target=track.target.value,
        sigma=track.target.sigma,
        against=entry_id(reference, track),
        price=track.reference_price(),
        final=final,
    )


def _keep_verdict(
    place: Place, entry: Entry, judgement: Judgement, kind: Literal["submit", "verify"], verification: Verification | None = None
) -> Verdict:
    verdict = verdict_of(
        judgement,
        id=verdict_id(kind, judgement.entry_runs[0].nonce),
        kind=kind,
        decided_at=datetime.now(UTC),
        by=place.by,
        outcome=verification.outcome if verification else None,
        note=f"{verification.reason}; {_why_the_status_stays(judgement)}" if verification else "",
    )
    place.database.add_verdict(entry.id, verdict)
    return verdict


def _why_the_status_stays(judgement: Judgement) -> str:
    """`reproduced` takes runs in a sandbox, and a signature of somebody other than the author, which this version cannot read."""
    runs = (*judgement.entry_runs, *judgement.reference_runs)
    return UNSANDBOXED if any(run.sandbox == "none" for run in runs) else UNSIGNED


def _change(status: str, reason: str, by: str) -> StatusChange:
    return StatusChange.model_validate({"status": status, "at": datetime.now(UTC), "reason": reason, "by": by})
