"""What a reader of results can ask, whether they lie in one folder or in several."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from harness.record import Calibration, CostPoint, Entry, Finding, ReportedEntry, Run, Verdict
from leaderboard.curve import Curve


class Results(Protocol):
    """The read side. Everything comes in a fixed order, oldest first; every method raises DatabaseError on a broken document."""

    def entries(self, track: str | None = None) -> tuple[Entry, ...]:
        """Entries of one track or of all, by time of creation, then id."""
        ...

    def has_entry(self, entry_id: str) -> bool: ...

    def entry(self, entry_id: str) -> Entry:
        """DatabaseError when there is no such entry."""
        ...

    def submission(self, entry_id: str) -> dict[str, str]:
        """The entry's files: relative name -> text, by name."""
        ...

    def runs(self, entry_id: str) -> tuple[Run, ...]:
        """All runs made for the entry, those of its reference and void ones among them, by start."""
        ...

    def curve(self, entry_id: str, run_id: str) -> Curve: ...

    def verdicts(self, entry_id: str) -> tuple[Verdict, ...]:
        """By time of decision; the last one is the newest."""
        ...

    def calibrations(self, track: str | None = None) -> tuple[Calibration, ...]: ...

    def calibration(self, track: str, version: str) -> Calibration | None: ...

    def calibration_runs(self, track: str, version: str) -> tuple[Run, ...]: ...

    def calibration_curve(self, track: str, version: str, run_id: str) -> Curve: ...

    def findings(self) -> tuple[Finding, ...]:
        """By date, then id."""
        ...

    def reported(self) -> tuple[ReportedEntry, ...]:
        """By date, then id."""
        ...

    def cost_history(self) -> tuple[CostPoint, ...]:
        """By date, in the order of the file within one date."""
        ...

    def documents(self) -> dict[str, bytes]:
        """Every kept file: path relative to the root -> content, by path."""
        ...


def utc(moment: datetime) -> datetime:
    """The schema's times are UTC; one without a zone is read so."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
