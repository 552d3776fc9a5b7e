"""One page per entry: what it changes, how it was judged, and every run that was made for it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from harness.record import Component, Entry, Run
from leaderboard.site import wording
from leaderboard.site.archive import Archive, Dossier
from leaderboard.site.charts import Chart
from leaderboard.site.judgement import Judgement, judgement
from leaderboard.site.losses import LossLine, losses
from leaderboard.site.page import Amount, Frame, Link, Page, entry_path, frame, kept_folder, track_path
from leaderboard.site.pages.board import time_amount
from leaderboard.site.runs import Machine, PhaseRow, RunRow, machines, phase_rows, run_rows


@dataclass(frozen=True, slots=True)
class AuthorLine:
    name: str
    agent: bool
    url: str
    """Empty when none was given."""


@dataclass(frozen=True, slots=True)
class Step:
    """A change of status."""

    status: str
    at: str
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class ComponentRow:
    name: str
    summary: str
    off: str
    """How it is turned off in an ablation."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A text of the submission, or the difference of two."""

    name: str
    text: str
    lines: str
    href: str
    """Of the raw file; empty for a difference."""


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Context of `entry.html`."""

    frame: Frame
    id: str
    title: str
    status: str
    authors: tuple[AuthorLine, ...]
    created: str
    licence: str
    track: Link
    version: str
    outdated: bool
    """Whether the track has moved on to another version."""
    parent: Link | None
    summary: tuple[str, ...]
    """Paragraphs."""
    figures: tuple[tuple[str, Amount], ...]
    """What the headline judgement found; empty when there is none."""
    steps: tuple[Step, ...]
    judgements: tuple[Judgement, ...]
    """Newest first."""
    slots: str
    components: tuple[ComponentRow, ...]
    config_changes: tuple[tuple[str, str, str], ...]
    """Field, the baseline's value, the entry's value."""
    diff_lines: int
    sources: tuple[SourceFile, ...]
    differences: tuple[SourceFile, ...]
    """Unified diffs against the parent's files; empty when the parent is not in the database."""
    chart: Chart | None
    runs: tuple[RunRow, ...]
    phases: tuple[PhaseRow, ...]
    machines: tuple[Machine, ...]
    digests: tuple[tuple[str, str], ...]
    files: tuple[Link, ...]


def publish(archive: Archive) -> list[Page]:
    return [Page(entry_path(dossier.entry), "entry.html", _context(archive, dossier)) for dossier in archive.dossiers]


def _context(archive: Archive, dossier: Dossier) -> EntryPage:
    entry, track = dossier.entry, archive.track(dossier.entry.track)
    sources = archive.results.submission(entry.id)
    parent = _parent(archive, entry)
    folder = kept_folder(entry)
    return EntryPage(
        frame=frame(archive, entry.title, " ".join(entry.summary.split())[:160] or entry.title, track_path(track.name)),
        id=entry.id,
        title=entry.title,
        status=entry.status,
        authors=tuple(AuthorLine(a.name, a.kind == "agent", a.url or "") for a in entry.authors),
        created=wording.day(entry.created_at),
        licence=entry.licence,
        track=Link(track_path(track.name), track.name),
        version=entry.track_version,
        outdated=entry.track_version != track.version,
        parent=_parent_link(entry, parent),
        summary=tuple(part.strip() for part in entry.summary.split("\n\n") if part.strip()),
        figures=_figures(dossier),
        steps=tuple(Step(change.status, wording.minute(change.at), change.reason, change.by) for change in entry.history),
        judgements=tuple(judgement(archive, verdict) for verdict in reversed(dossier.verdicts)),
        slots=wording.listed(list(entry.slots)) or "none",
        components=tuple(ComponentRow(c.name, c.summary, _off(c)) for c in entry.components),
        config_changes=tuple((name, old, new) for name, (old, new) in sorted(entry.config_changes.items())),
        diff_lines=entry.diff_lines,
        sources=tuple(_source(name, text, f"{folder}/submission/{name}.txt") for name, text in sources.items()),
        differences=_differences(archive.results.submission(parent.id), sources) if parent else (),
        chart=losses([_line(archive, entry, run) for run in dossier.runs if run.at_s("go") is not None]),
        runs=run_rows(entry, dossier.runs),
        phases=phase_rows(dossier.runs),
        machines=machines(dossier.runs),
        digests=tuple(entry.digests.model_dump().items()),
        files=_files(dossier, folder),
    )


def _parent(archive: Archive, entry: Entry) -> Entry | None:
    """The newest entry of the parent's name on the same track version."""
    place = (entry.parent, entry.track, entry.track_version)
    found = [d.entry for d in archive.dossiers if (d.entry.name, d.entry.track, d.entry.track_version) == place and d.entry.id != entry.id]
    return found[-1] if found else None


def _parent_link(entry: Entry, parent: Entry | None) -> Link | None:
    if parent:
        return Link(entry_path(parent), parent.title)
    return Link("", entry.parent) if entry.parent else None


def _figures(dossier: Dossier) -> tuple[tuple[str, Amount], ...]:
    verdict = dossier.headline
    if verdict is None:
        return ()
    figures = [("Mean time", time_amount(verdict.mean_timed_s))]
    if verdict.superiority:
        test = verdict.superiority
        note = f"{wording.interval(test.low, test.high)} at {wording.percent(test.level)}"
        figures.append(("Time over the reference's", Amount(wording.ratio(test.ratio), note)))
    if verdict.validity and verdict.validity.metric == "core":
        figures.append(("CORE", Amount(wording.core(verdict.validity.mean), f"target {verdict.validity.target:g}")))
    if verdict.mean_val_bpb is not None:
        goal = f"target {verdict.validity.target:g}" if verdict.validity and verdict.validity.metric == "val_bpb" else ""
        figures.append(("Val bpb", Amount(wording.bpb(verdict.mean_val_bpb), goal)))
    if verdict.cost:
        figures.append(
            ("One run", Amount(wording.usd(verdict.cost.run_usd), f"at {wording.usd(verdict.cost.reference_usd_per_hour)} an hour"))
        )
    return tuple(figures)


def _off(component: Component) -> str:
    settings = [f"{name} = {value}" for name, value in sorted(component.off.items())]
    return "; ".join(settings + ([f"the {component.off_slot} slot falls back to the parent's"] if component.off_slot else []))


def _source(name: str, text: str, href: str) -> SourceFile:
    return SourceFile(name, text, wording.count(len(text.splitlines()), "line"), href)


def _differences(old: dict[str, str], new: dict[str, str]) -> tuple[SourceFile, ...]:
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, "").splitlines(), new.get(name, "").splitlines()
        lines = list(difflib.unified_diff(before, after, f"parent/{name}", f"entry/{name}", lineterm=""))
        if lines:
            changed = sum(line.startswith(("+", "-")) for line in lines[2:])
            found.append(SourceFile(name, "\n".join(lines), wording.count(changed, "changed line"), ""))
    return tuple(found)


def _line(archive: Archive, entry: Entry, run: Run) -> LossLine:
    go_ns = next(event.at_ns for event in run.events if event.name == "go")
    curve = archive.results.curve(entry.id, run.id)
    return LossLine(run.id, "reference" if run.role == "reference" else "entry", run.state == "void", go_ns, curve)


def _files(dossier: Dossier, folder: str) -> tuple[Link, ...]:
    names = ["entry.json", *(f"verdicts/{verdict.id}.json" for verdict in dossier.verdicts)]
    return tuple(Link(f"{folder}/{name}", name) for name in names)
