"""One board per track: the current version's table first, older versions below, figures from elsewhere apart."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from harness.record import Calibration, ReportedEntry
from leaderboard.site import wording
from leaderboard.site.archive import Archive, Dossier, Placed
from leaderboard.site.page import NOTHING, Amount, Frame, Link, Page, by_line, entry_link, entry_path, frame, track_path
from leaderboard.site.track import TrackInfo


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One entry of a track."""

    rank: str
    """Empty for an entry without rank."""
    link: Link
    status: str
    valid: str
    better: str
    time: Amount
    ratio: Amount
    """Time over that of the reference that ran beside it, with its interval."""
    against: Link | None
    val_bpb: Amount
    core: Amount
    cost: Amount
    runs: Amount
    authors: str
    date: str


@dataclass(frozen=True, slots=True)
class VersionTable:
    """The results of one version of the track."""

    version: str
    current: bool
    rows: tuple[BoardRow, ...]
    calibration: tuple[str, ...]
    """Sentences about the baseline seeds behind this version's sigma; empty when there was no calibration."""


@dataclass(frozen=True, slots=True)
class ReportedRow:
    """A figure from elsewhere."""

    date: str
    title: str
    summary: str
    time: Amount
    cost: Amount
    core: Amount
    val_bpb: Amount
    runs: str
    authors: str
    accepted: str
    source: Link


@dataclass(frozen=True, slots=True)
class TrackPage:
    """Context of `track.html`."""

    frame: Frame
    name: str
    title: str
    description: str
    facts: tuple[tuple[str, str], ...]
    """Terms and their values, for a definition list."""
    provisional: tuple[str, ...]
    """What has not been measured yet, one line each."""
    versions: tuple[VersionTable, ...]
    reported: tuple[ReportedRow, ...]


def publish(archive: Archive) -> list[Page]:
    return [Page(track_path(track.name), "track.html", _context(archive, track)) for track in archive.tracks]


def _context(archive: Archive, track: TrackInfo) -> TrackPage:
    title = f"{track.name}: {track.title}"
    return TrackPage(
        frame=frame(archive, title, f"{track.description} Target: {wording.target(track.metric, track.target)}.", track_path(track.name)),
        name=track.name,
        title=track.title,
        description=track.description,
        facts=(
            ("Target", wording.target(track.metric, track.target)),
            ("Hardware", track.hardware),
            ("Data", track.data),
            ("Version", track.version),
            ("Reference price", f"{wording.usd(track.reference_usd_per_hour)} an hour"),
        ),
        provisional=track.provisional,
        versions=tuple(_version(archive, track, version) for version in archive.versions(track)),
        reported=tuple(_reported(entry) for entry in reversed(archive.reported) if entry.track == track.name),
    )


def _version(archive: Archive, track: TrackInfo, version: str) -> VersionTable:
    calibration = next((c for c in archive.calibrations if (c.track, c.track_version) == (track.name, version)), None)
    return VersionTable(
        version=version,
        current=version == track.version,
        rows=tuple(_row(archive, placed) for placed in archive.table(track.name, version)),
        calibration=_calibration(calibration) if calibration else (),
    )


def _calibration(c: Calibration) -> tuple[str, ...]:
    name = wording.metric_name(c.metric)
    return (
        f"{wording.count(len(c.runs), 'baseline seed')} on {wording.day(c.decided_at)}: "
        f"mean {name} {wording.metric(c.metric, c.mean)}, standard deviation {c.sd:.2g}.",
        f"Pinned sigma, the upper 80{wording.NBSP}% bound: {c.pinned_sigma:.3g}.",
        f"Mean time {wording.seconds(c.mean_timed_s)}, coefficient of variation {wording.percent(c.timed_cv)}.",
    )


def _row(archive: Archive, placed: Placed) -> BoardRow:
    dossier, entry = placed.dossier, placed.dossier.entry
    verdict = dossier.headline
    validity, superiority = (verdict.validity, verdict.superiority) if verdict else (None, None)
    core = validity.mean if validity and validity.metric == "core" else None
    return BoardRow(
        rank=str(placed.rank or ""),
        link=Link(entry_path(entry), entry.title),
        status=entry.status,
        valid=validity.verdict if validity else "not judged",
        better=superiority.verdict if superiority else "not judged",
        time=time_amount(dossier.seconds),
        ratio=Amount(
            wording.ratio(superiority.ratio),
            f"{wording.interval(superiority.low, superiority.high)} at {wording.percent(superiority.level)}",
            superiority.ratio,
        )
        if superiority
        else NOTHING,
        against=entry_link(archive, superiority.against) if superiority else None,
        val_bpb=_score(verdict.mean_val_bpb if verdict else None, "val_bpb"),
        core=_score(core, "core"),
        cost=Amount(wording.usd(verdict.cost.run_usd), sort=verdict.cost.run_usd) if verdict and verdict.cost else NOTHING,
        runs=_run_counts(dossier),
        authors=by_line(entry.authors),
        date=wording.day(entry.created_at),
    )


def time_amount(seconds: float | None) -> Amount:
    """Seconds, with hours and minutes below from two minutes on."""
    if seconds is None:
        return NOTHING
    return Amount(wording.seconds(seconds), wording.duration(seconds) if seconds >= 120 else "", seconds)


def _score(value: float | None, metric: str) -> Amount:
    return NOTHING if value is None else Amount(wording.metric(metric, value), sort=value)


def _run_counts(dossier: Dossier) -> Amount:
    own = [run for run in dossier.runs if run.role != "reference"]
    void = sum(run.state == "void" for run in own)
    return Amount(str(len(own) - void), f"and {void} void" if void else "", len(own) - void)


def _reported(entry: ReportedEntry) -> ReportedRow:
    core = NOTHING
    if entry.core:
        spread = f"{wording.core(min(entry.core))} to {wording.core(max(entry.core))}" if len(entry.core) > 1 else ""
        core = Amount(wording.core(fmean(entry.core)), spread, fmean(entry.core))
    return ReportedRow(
        date=entry.date,
        title=entry.title,
        summary=entry.summary,
        time=NOTHING if entry.hours is None else Amount(wording.hours(entry.hours), sort=entry.hours),
        cost=NOTHING if entry.cost_usd is None else Amount(wording.usd(entry.cost_usd), sort=entry.cost_usd),
        core=core,
        val_bpb=_score(entry.val_bpb, "val_bpb"),
        runs=wording.DASH if entry.runs is None else str(entry.runs),
        authors=by_line(entry.authors),
        accepted="accepted" if entry.accepted else "not accepted",
        source=Link(entry.source.url or "", entry.source.title),
    )
