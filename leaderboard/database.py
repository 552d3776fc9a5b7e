"""The results database: append-only folders of JSON and parquet under one root.

    records/<track>/<entry-id>/entry.json
                               submission/*
                               runs/<run-id>/run.json, curve.parquet
                               verdicts/<verdict-id>.json
    calibrations/<track>/<version>/calibration.json
                                   runs/<run-id>/run.json, curve.parquet
    findings/<id>.json
    history/reported/<id>.json
    history/cost.json

Only an entry's status is ever rewritten, by appending to its history. Everything else is written once: writing the same
again changes nothing, and writing something else under a taken id is a DatabaseError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import TypeAdapter

from harness.record import Calibration, CostPoint, Entry, Finding, ReportedEntry, Run, StatusChange, Verdict
from leaderboard import layout
from leaderboard.atomic import exclusive, publish_folder, write_file
from leaderboard.curve import Curve, decode_curve, encode_curve
from leaderboard.documents import DatabaseError, decode, encode, same_field
from leaderboard.results import utc


class _Identified(Protocol):
    id: str


T = TypeVar("T", bound=_Identified)

ENTRY = TypeAdapter(Entry)
RUN = TypeAdapter(Run)
VERDICT = TypeAdapter(Verdict)
CALIBRATION = TypeAdapter(Calibration)
FINDING = TypeAdapter(Finding)
REPORTED = TypeAdapter(ReportedEntry)
COST_HISTORY = TypeAdapter(tuple[CostPoint, ...])


class Database:
    """One root folder. Reading needs no lock; writers exclude each other. Every problem is a DatabaseError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # ------------------------------------------------------------------ entries

    def entries(self, track: str | None = None) -> tuple[Entry, ...]:
        folders = [folder for place in self._tracks("records", track) for folder in layout.folders(place)]
        return tuple(sorted((self._entry_at(folder) for folder in folders), key=lambda e: (utc(e.created_at), e.id)))

    def has_entry(self, entry_id: str) -> bool:
        return self._find(entry_id) is not None

    def entry(self, entry_id: str) -> Entry:
        return self._entry_at(self.entry_folder(entry_id))

    def entry_folder(self, entry_id: str) -> Path:
        """Where the entry's documents lie. DatabaseError when there is no such entry."""
        found = self._find(entry_id)
        if found is None:
            raise DatabaseError(f"{self.root}: has no entry {entry_id!r}; `speedrun board build` lists the entries it has")
        return found

    def submission(self, entry_id: str) -> dict[str, str]:
        return layout.read_texts(self.entry_folder(entry_id) / "submission")

    def add_entry(self, entry: Entry, files: dict[str, str]) -> None:
        """Keep an entry with a text copy of its submission (relative name -> text).

        An entry that is already there with the same digests and files stays as it is, with its status history.
        """
        folder = self.root / "records" / entry.track / entry.id
        with self._writing(folder):
            taken = self._find(entry.id)
            if taken is not None:
                same = taken == folder and self._entry_at(taken).digests == entry.digests and self.submission(entry.id) == files
                _refuse_unless(same, taken, "entry")
                return
            contents = {f"submission/{layout.checked_name(name)}": text.encode() for name, text in files.items()}
            publish_folder(folder, {"entry.json": encode(ENTRY, entry), **contents})

    def set_status(self, entry_id: str, change: StatusChange) -> Entry:
        """Append to the entry's history and return the entry as it now is."""
        folder = self.entry_folder(entry_id)
        with self._writing(folder):
            entry = self._entry_at(folder)
            changed = entry.model_copy(update={"history": (*entry.history, change)})
            write_file(folder / "entry.json", encode(ENTRY, changed))
        return changed

    # ------------------------------------------------------------------ runs and verdicts of an entry

    def runs(self, entry_id: str) -> tuple[Run, ...]:
        return self._runs_in(self.entry_folder(entry_id))

    def curve(self, entry_id: str, run_id: str) -> Curve:
        return decode_curve(self.entry_folder(entry_id) / "runs" / layout.checked_slug(run_id) / "curve.parquet")

    def add_run(self, entry_id: str, run: Run, curve: Curve) -> None:
        """Keep a run, whatever its role and however it ended."""
        folder = self.entry_folder(entry_id) / "runs" / run.id
        with self._writing(folder):
            if folder.exists():
                same = self._run_at(folder) == run and decode_curve(folder / "curve.parquet").packed() == curve.packed()
                _refuse_unless(same, folder, "run")
                return
            publish_folder(folder, {"run.json": encode(RUN, run), "curve.parquet": encode_curve(curve)})

    def verdicts(self, entry_id: str) -> tuple[Verdict, ...]:
        found = self._all_in(self.entry_folder(entry_id) / "verdicts", VERDICT)
        return tuple(sorted(found, key=lambda v: (utc(v.decided_at), v.id)))

    def add_verdict(self, entry_id: str, verdict: Verdict) -> None:
        self._write_once(self.entry_folder(entry_id) / "verdicts" / f"{verdict.id}.json", VERDICT, verdict)

    # ------------------------------------------------------------------ calibrations

    def calibrations(self, track: str | None = None) -> tuple[Calibration, ...]:
        folders = [folder for place in self._tracks("calibrations", track) for folder in layout.folders(place)]
        found = (self._calibration_at(folder) for folder in folders)
        return tuple(sorted(found, key=lambda c: (c.track, utc(c.decided_at), c.track_version)))

    def calibration(self, track: str, version: str) -> Calibration | None:
        folder = self._calibration_folder(track, version)
        return self._calibration_at(folder) if folder.exists() else None

    def calibration_runs(self, track: str, version: str) -> tuple[Run, ...]:
        return self._runs_in(self._calibration_folder(track, version))

    def calibration_curve(self, track: str, version: str, run_id: str) -> Curve:
        return decode_curve(self._calibration_folder(track, version) / "runs" / layout.checked_slug(run_id) / "curve.parquet")

    def add_calibration(self, calibration: Calibration, runs: Sequence[tuple[Run, Curve]]) -> None:
        """Keep a calibration with all its runs, in one step. `calibration.runs` must name exactly the runs given."""
        folder = self._calibration_folder(calibration.track, calibration.track_version)
        if sorted(run.id for run, _ in runs) != sorted(calibration.runs):
            raise DatabaseError(f"{folder}: field runs: does not name the runs given; list every run's id once")
        files = {"calibration.json": encode(CALIBRATION, calibration)}
        for run, curve in runs:
            files |= {f"runs/{run.id}/run.json": encode(RUN, run), f"runs/{run.id}/curve.parquet": encode_curve(curve)}
        with self._writing(folder):
            if folder.exists():
                _refuse_unless(self._calibration_at(folder) == calibration, folder, "calibration")
                return
            publish_folder(folder, files)

    # ------------------------------------------------------------------ findings and history

    def findings(self) -> tuple[Finding, ...]:
        return tuple(sorted(self._all_in(self.root / "findings", FINDING), key=lambda f: (f.date, f.id)))

    def add_finding(self, finding: Finding) -> None:
        self._write_once(self.root / "findings" / f"{finding.id}.json", FINDING, finding)

    def reported(self) -> tuple[ReportedEntry, ...]:
        return tuple(sorted(self._all_in(self.root / "history" / "reported", REPORTED), key=lambda r: (r.date, r.id)))

    def add_reported(self, entry: ReportedEntry) -> None:
        self._write_once(self.root / "history" / "reported" / f"{entry.id}.json", REPORTED, entry)

    def cost_history(self) -> tuple[CostPoint, ...]:
        path = self.root / "history" / "cost.json"
        points = decode(COST_HISTORY, path) if path.exists() else ()
        return tuple(sorted(points, key=lambda point: point.date))

    def documents(self) -> dict[str, bytes]:
        return layout.kept_files(self.root, ("records", "calibrations", "findings", "history"))

    # ------------------------------------------------------------------ places

    def _tracks(self, room: str, track: str | None) -> list[Path]:
        return layout.folders(self.root / room) if track is None else [self.root / room / layout.checked_slug(track)]

    def _find(self, entry_id: str) -> Path | None:
        name = layout.checked_slug(entry_id)
        return next((folder for place in self._tracks("records", None) for folder in layout.folders(place) if folder.name == name), None)

    def _calibration_folder(self, track: str, version: str) -> Path:
        return self.root / "calibrations" / layout.checked_slug(track) / layout.checked_slug(version)

    # ------------------------------------------------------------------ reading one document

    def _entry_at(self, folder: Path) -> Entry:
        entry = _identified(decode(ENTRY, folder / "entry.json"), folder / "entry.json", folder.name)
        same_field(folder / "entry.json", "track", entry.track, folder.parent.name)
        return entry

    def _run_at(self, folder: Path) -> Run:
        return _identified(decode(RUN, folder / "run.json"), folder / "run.json", folder.name)

    def _runs_in(self, folder: Path) -> tuple[Run, ...]:
        runs = (self._run_at(place) for place in layout.folders(folder / "runs"))
        return tuple(sorted(runs, key=lambda run: (utc(run.started_at), run.id)))

    def _calibration_at(self, folder: Path) -> Calibration:
        path = folder / "calibration.json"
        calibration = decode(CALIBRATION, path)
        same_field(path, "track", calibration.track, folder.parent.name)
        same_field(path, "track_version", calibration.track_version, folder.name)
        return calibration

    def _all_in(self, folder: Path, kind: TypeAdapter[T]) -> list[T]:
        return [_identified(decode(kind, path), path, path.stem) for path in layout.documents_in(folder)]

    # ------------------------------------------------------------------ writing

    def _write_once(self, path: Path, kind: TypeAdapter[T], document: T) -> None:
        with self._writing(path):
            if path.exists():
                _refuse_unless(decode(kind, path) == document, path, "document")
                return
            write_file(path, encode(kind, document))

    @contextmanager
    def _writing(self, target: Path) -> Iterator[None]:
        """The only writer's place, with the file system's errors in the reader's words."""
        try:
            with exclusive(self.root):
                yield
        except OSError as error:
            raise DatabaseError(
                f"{target}: cannot be written ({error.strerror}); make {self.root} writable, or choose another --db"
            ) from None


def _identified(document: T, path: Path, name: str) -> T:
    same_field(path, "id", document.id, name)
    return document


def _refuse_unless(same: bool, path: Path, kind: str) -> None:
    if not same:
        raise DatabaseError(f"{path}: field id: another {kind} is kept under this id; kept results never change, choose a new id")
