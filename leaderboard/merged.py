"""Several results folders read as one, such as the local `runs/` over the committed `leaderboard/`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from harness.record import Calibration, CostPoint, Entry, Finding, ReportedEntry, Run, Verdict
from leaderboard.curve import Curve
from leaderboard.database import Database
from leaderboard.documents import DatabaseError
from leaderboard.results import utc

T = TypeVar("T")


class MergedDatabase:
    """The union of several databases, first one wins: a document of one id is taken from the first root that has it.

    An entry that lies in two roots shows the runs and verdicts of both. Read only.
    """

    def __init__(self, databases: Sequence[Database]) -> None:
        self.databases = tuple(databases)

    def entries(self, track: str | None = None) -> tuple[Entry, ...]:
        found = _first_wins((db.entries(track) for db in self.databases), lambda e: e.id)
        return tuple(sorted(found, key=lambda e: (utc(e.created_at), e.id)))

    def has_entry(self, entry_id: str) -> bool:
        return any(db.has_entry(entry_id) for db in self.databases)

    def entry(self, entry_id: str) -> Entry:
        return self._holders(entry_id)[0].entry(entry_id)

    def submission(self, entry_id: str) -> dict[str, str]:
        return self._holders(entry_id)[0].submission(entry_id)

    def runs(self, entry_id: str) -> tuple[Run, ...]:
        found = _first_wins((db.runs(entry_id) for db in self._holders(entry_id)), lambda run: run.id)
        return tuple(sorted(found, key=lambda run: (utc(run.started_at), run.id)))

    def curve(self, entry_id: str, run_id: str) -> Curve:
        holder = next((db for db in self._holders(entry_id) if any(run.id == run_id for run in db.runs(entry_id))), None)
        if holder is None:
            raise DatabaseError(f"entry {entry_id} has no run {run_id!r}; its page on the board lists its runs")
        return holder.curve(entry_id, run_id)

    def verdicts(self, entry_id: str) -> tuple[Verdict, ...]:
        found = _first_wins((db.verdicts(entry_id) for db in self._holders(entry_id)), lambda verdict: verdict.id)
        return tuple(sorted(found, key=lambda v: (utc(v.decided_at), v.id)))

    def calibrations(self, track: str | None = None) -> tuple[Calibration, ...]:
        found = _first_wins((db.calibrations(track) for db in self.databases), lambda c: f"{c.track} {c.track_version}")
        return tuple(sorted(found, key=lambda c: (c.track, utc(c.decided_at), c.track_version)))

    def calibration(self, track: str, version: str) -> Calibration | None:
        holder = self._calibrator(track, version)
        return holder.calibration(track, version) if holder else None

    def calibration_runs(self, track: str, version: str) -> tuple[Run, ...]:
        holder = self._calibrator(track, version)
        return holder.calibration_runs(track, version) if holder else ()

    def calibration_curve(self, track: str, version: str, run_id: str) -> Curve:
        holder = self._calibrator(track, version)
        if holder is None:
            raise DatabaseError(f"track {track} has no calibration for version {version}; run `speedrun calibrate {track}`")
        return holder.calibration_curve(track, version, run_id)

    def findings(self) -> tuple[Finding, ...]:
        found = _first_wins((db.findings() for db in self.databases), lambda finding: finding.id)
        return tuple(sorted(found, key=lambda f: (f.date, f.id)))

    def reported(self) -> tuple[ReportedEntry, ...]:
        found = _first_wins((db.reported() for db in self.databases), lambda entry: entry.id)
        return tuple(sorted(found, key=lambda r: (r.date, r.id)))

    def cost_history(self) -> tuple[CostPoint, ...]:
        """Of the first root that has one: the line is one document."""
        return next((points for db in self.databases if (points := db.cost_history())), ())

    def documents(self) -> dict[str, bytes]:
        merged: dict[str, bytes] = {}
        for db in reversed(self.databases):
            merged |= db.documents()
        return dict(sorted(merged.items()))

    def _holders(self, entry_id: str) -> list[Database]:
        holders = [db for db in self.databases if db.has_entry(entry_id)]
        if not holders:
            roots = ", ".join(str(db.root) for db in self.databases)
            raise DatabaseError(f"{roots}: no entry {entry_id!r}; `speedrun board build` lists the entries there are")
        return holders

    def _calibrator(self, track: str, version: str) -> Database | None:
        return next((db for db in self.databases if db.calibration(track, version) is not None), None)


def _first_wins(groups: Iterable[Sequence[T]], key: Callable[[T], str]) -> list[T]:
    kept: dict[str, T] = {}
    for group in groups:
        for item in group:
            kept.setdefault(key(item), item)
    return list(kept.values())
