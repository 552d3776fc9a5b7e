"""The first page: the game in half a minute, how the record fell, the three tracks, and what changed last."""

from __future__ import annotations

from dataclasses import dataclass

from leaderboard.results import utc
from leaderboard.site import wording
from leaderboard.site.archive import Archive, Milestone, SiteError
from leaderboard.site.charts import Chart
from leaderboard.site.milestones import is_day, progression
from leaderboard.site.page import SITE_NAME, Frame, Link, Page, entry_path, frame, track_path
from leaderboard.site.track import TrackInfo

LATEST = 6


@dataclass(frozen=True, slots=True)
class Best:
    """The lowest time that is known for GPT-2 grade."""

    time: str
    usd: str
    reported: bool
    """From elsewhere, not re-run here."""


@dataclass(frozen=True, slots=True)
class TrackCard:
    """A track in one glance."""

    link: Link
    title: str
    description: str
    hardware: str
    target: str
    provisional: tuple[str, ...]
    """What has not been measured yet, one line each."""
    entries: str
    best: Link | None
    """The fastest ranked entry."""
    best_time: str


@dataclass(frozen=True, slots=True)
class Change:
    """A step in an entry's life."""

    date: str
    link: Link
    track: str
    status: str


@dataclass(frozen=True, slots=True)
class HomePage:
    """Context of `home.html`."""

    frame: Frame
    best: Best | None
    chart: Chart | None
    tracks: tuple[TrackCard, ...]
    changes: tuple[Change, ...]
    """The newest ones, newest first."""
    findings: str
    """How many ideas are on record as not having worked."""


def publish(archive: Archive) -> list[Page]:
    if not archive.tracks:
        raise SiteError("no tracks were given; a board needs at least one")
    milestones = archive.milestones()
    failed = sum(finding.verdict != "helps" for finding in archive.findings)
    context = HomePage(
        frame=frame(archive, SITE_NAME, "Who trains a model of GPT-2 grade fastest, judged and verified run by run.", "index.html"),
        best=_best(milestones),
        chart=progression(milestones) if any(is_day(m.date) for m in milestones) else None,
        tracks=tuple(_card(archive, track) for track in archive.tracks),
        changes=_changes(archive),
        findings=wording.count(failed, "idea"),
    )
    return [Page("index.html", "home.html", context)]


def _best(milestones: list[Milestone]) -> Best | None:
    if not milestones:
        return None
    best = min(milestones, key=lambda m: m.hours)
    return Best(time=wording.duration(round(best.hours * 60) * 60), usd=wording.usd(best.cost_usd), reported=best.reported)


def _card(archive: Archive, track: TrackInfo) -> TrackCard:
    placed = archive.table(track.name, track.version)
    first = placed[0].dossier if placed and placed[0].rank else None
    return TrackCard(
        link=Link(track_path(track.name), track.name),
        title=track.title,
        description=track.description,
        hardware=track.hardware,
        target=wording.target(track.metric, track.target),
        provisional=track.provisional,
        entries=wording.count(len(placed), "entry"),
        best=Link(entry_path(first.entry), first.entry.title) if first else None,
        best_time=wording.seconds(first.seconds) if first and first.seconds else "",
    )


def _changes(archive: Archive) -> tuple[Change, ...]:
    steps = [(utc(change.at), d.entry, change.status) for d in archive.dossiers for change in d.entry.history]
    steps.sort(key=lambda step: (step[0], step[1].id), reverse=True)
    return tuple(
        Change(date=wording.day(at), link=Link(entry_path(entry), entry.title), track=entry.track, status=status)
        for at, entry, status in steps[:LATEST]
    )
