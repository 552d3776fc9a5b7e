"""Everything that the pages show, loaded once; and who ranks where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from harness.record import Calibration, CostPoint, Entry, Finding, ReportedEntry, Run, Verdict
from leaderboard.documents import DatabaseError
from leaderboard.results import Results, utc
from leaderboard.site.track import TrackInfo

RANKED_STATUS = ("claimed", "checked", "reproduced", "record")
"""A refuted, withdrawn or flagged entry keeps its page and its row, without a rank."""


class SiteError(DatabaseError):
    """The results cannot be shown. The message says what is wrong and what to do, on one line."""


@dataclass(frozen=True, slots=True)
class Milestone:
    """A time or a price that somebody reached."""

    date: str
    """ISO date, or only the year or month."""
    title: str
    hours: float
    cost_usd: float
    reported: bool
    """Taken from elsewhere, not measured on this board."""


@dataclass(frozen=True, slots=True)
class Dossier:
    """An entry with all that is kept about it."""

    entry: Entry
    runs: tuple[Run, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def headline(self) -> Verdict | None:
        """The judgement that the board shows: the newest verification that settled the claim, else the newest judgement."""
        settled = [verdict for verdict in self.verdicts if verdict.outcome in ("reproduced", "refuted")]
        newest = settled or list(self.verdicts)
        return newest[-1] if newest else None

    @property
    def seconds(self) -> float | None:
        """Mean timed seconds of the headline judgement."""
        return self.headline.mean_timed_s if self.headline else None

    @property
    def counts(self) -> bool:
        """Whether the entry has a rank: shown to be valid, and not refuted, withdrawn or flagged."""
        validity = self.headline.validity if self.headline else None
        return self.entry.status in RANKED_STATUS and validity is not None and validity.verdict == "valid" and self.seconds is not None


@dataclass(frozen=True, slots=True)
class Placed:
    """An entry in a table. The rank counts from 1; None for one that has none."""

    rank: int | None
    dossier: Dossier


@dataclass(frozen=True, slots=True)
class Archive:
    """The whole results database, as the pages need it."""

    results: Results
    """For curves and submissions, which only an entry's own page needs."""
    tracks: tuple[TrackInfo, ...]
    dossiers: tuple[Dossier, ...]
    calibrations: tuple[Calibration, ...]
    findings: tuple[Finding, ...]
    reported: tuple[ReportedEntry, ...]
    cost_history: tuple[CostPoint, ...]
    rules: str
    """RULES.md."""

    def track(self, name: str) -> TrackInfo:
        return next(track for track in self.tracks if track.name == name)

    def dossier(self, entry_id: str) -> Dossier | None:
        return next((dossier for dossier in self.dossiers if dossier.entry.id == entry_id), None)

    def versions(self, track: TrackInfo) -> list[str]:
        """The track's current version, then older ones that have entries, newest first."""
        newest = {d.entry.track_version: d.entry.created_at for d in self.dossiers if d.entry.track == track.name}
        older = sorted((version for version in newest if version != track.version), key=lambda v: (utc(newest[v]), v), reverse=True)
        return [track.version, *older]

    def table(self, track: str, version: str) -> list[Placed]:
        """Entries of one track version: the ranked ones by time, then the others by time of creation."""
        here = [d for d in self.dossiers if (d.entry.track, d.entry.track_version) == (track, version)]
        ranked = sorted((d for d in here if d.counts), key=lambda d: (d.seconds or 0.0, d.entry.id))
        return [Placed(i, d) for i, d in enumerate(ranked, start=1)] + [Placed(None, d) for d in here if not d.counts]

    def records(self, track: str) -> list[Dossier]:
        """Entries that are records, in the order in which they became it."""
        found = [d for d in self.dossiers if d.entry.track == track and d.entry.status == "record" and d.seconds is not None]
        return sorted(found, key=lambda d: (record_date(d), d.entry.id))

    def milestones(self) -> list[Milestone]:
        """The accepted figures from elsewhere, then this board's records, on the track that has both."""
        elsewhere = [r for r in self.reported if r.accepted and (r.hours or 0) > 0 and (r.cost_usd or 0) > 0]
        tracks = {r.track for r in elsewhere}
        return [Milestone(r.date, r.title, r.hours or 0.0, r.cost_usd or 0.0, reported=True) for r in elsewhere] + [
            Milestone(record_date(d), d.entry.title, (d.seconds or 0.0) / 3600, d.headline.cost.run_usd, reported=False)
            for track in sorted(tracks)
            for d in self.records(track)
            if d.headline and d.headline.cost
        ]

    def newest(self) -> datetime:
        """The time of the newest thing that is kept; 1970 for an empty database. Stands where others have the build time."""
        moments = [change.at for d in self.dossiers for change in d.entry.history]
        moments += [verdict.decided_at for d in self.dossiers for verdict in d.verdicts]
        moments += [calibration.decided_at for calibration in self.calibrations]
        days = [f.date for f in self.findings] + [r.date for r in self.reported] + [point.date for point in self.cost_history]
        return max([utc(moment) for moment in moments] + [_midnight(text) for text in days], default=datetime(1970, 1, 1, tzinfo=UTC))


def load(results: Results, tracks: Sequence[TrackInfo], rules: str) -> Archive:
    """Read it all. DatabaseError for a broken document, SiteError for an entry on a track that is not given."""
    known = {track.name for track in tracks}
    entries = results.entries()
    for entry in entries:
        if entry.track not in known:
            raise SiteError(f"entry {entry.id}: track {entry.track!r} is unknown; add the track, or take the entry out of the database")
    return Archive(
        results=results,
        tracks=tuple(tracks),
        dossiers=tuple(Dossier(entry, results.runs(entry.id), results.verdicts(entry.id)) for entry in entries),
        calibrations=results.calibrations(),
        findings=results.findings(),
        reported=results.reported(),
        cost_history=results.cost_history(),
        rules=rules,
    )


def record_date(dossier: Dossier) -> str:
    """ISO date on which the entry became a record."""
    return next(utc(change.at).date().isoformat() for change in reversed(dossier.entry.history) if change.status == "record")


def _midnight(text: str) -> datetime:
    """The start of an ISO date, month or year; 1970 for anything else."""
    for padded in (text, f"{text}-01", f"{text}-01-01"):
        try:
            return datetime.combine(date.fromisoformat(padded), datetime.min.time(), tzinfo=UTC)
        except ValueError:
            continue
    return datetime(1970, 1, 1, tzinfo=UTC)
