"""Where results go: the entry, its runs and verdicts, from harness objects into the results database."""

from __future__ import annotations

from datetime import UTC, datetime

from harness.check import Explanation
from harness.identity import entry_digest, entry_id, lock_digest
from harness.record import Entry, EntryDigests, StatusChange
from harness.run import RunResult
from harness.submission import Submission
from harness.track import Track
from leaderboard.curve import Curve
from leaderboard.database import Database


def keep_entry(database: Database, submission: Submission, track: Track, explanation: Explanation, by: str) -> Entry:
    """Add the entry as `claimed` unless it is there; returns it as the database has it."""
    identity = entry_id(submission, track)
    if not database.has_entry(identity):
        now = datetime.now(UTC)
        entry = Entry(
            id=identity,
            name=submission.name,
            title=submission.title,
            summary=submission.summary,
            track=track.name,
            track_version=track.version,
            authors=submission.authors,
            licence=submission.licence,
            parent=submission.parent,
            created_at=now,
            slots=submission.slots,
            components=submission.components,
            config_changes=explanation.config_changes,
            diff_lines=explanation.diff_lines,
            digests=EntryDigests(
                entry=entry_digest(submission, track),
                submission=submission.digest,
                baseline=track.baseline_digest,
                track=track.digest,
                lock=lock_digest(),
            ),
            history=(StatusChange(status="claimed", at=now, reason="submitted", by=by),),
        )
        database.add_entry(entry, {name: content.decode() for name, content in submission.files.items()})
    return database.entry(identity)


def curve_of(result: RunResult) -> Curve:
    """The run's curve as the database keeps it."""
    points = result.curve
    return Curve(tuple(p.step for p in points), tuple(p.loss for p in points), tuple(p.at_ns for p in points))


def verdict_id(kind: str, nonce: str) -> str:
    """`<kind>-<first digits of the series' nonce>`: verdicts of the same entry from two machines never share an id."""
    return f"{kind}-{nonce[:8]}"
