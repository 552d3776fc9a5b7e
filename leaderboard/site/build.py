"""Builds the site: database in, folder of files out. The same database gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from leaderboard.results import Results
from leaderboard.site.archive import Archive, load
from leaderboard.site.feed import feed
from leaderboard.site.folder import replace_folder
from leaderboard.site.page import Page, entry_path, kept_folder, track_path
from leaderboard.site.pages import board, cost, enter, entry, findings, home, rules
from leaderboard.site.tables import tables
from leaderboard.site.track import TrackInfo

PUBLISHERS: tuple[Callable[[Archive], list[Page]], ...] = (
    home.publish,
    board.publish,
    entry.publish,
    findings.publish,
    cost.publish,
    rules.publish,
    enter.publish,
)
"""Every kind of page."""

_HERE = resources.files("leaderboard.site")


@dataclass(frozen=True, slots=True)
class SiteReport:
    """What was built."""

    out: Path
    pages: int
    files: int
    """All files, pages among them."""
    size_bytes: int


def build_site(results: Results, tracks: Sequence[TrackInfo], rules: str, out: Path) -> SiteReport:
    """Build the whole site into the folder `out`, which is replaced in one step.

    `rules` is the text of RULES.md. Raises DatabaseError for a broken document, and its subclass SiteError for an entry on
    an unknown track, for `out` holding files that are not a site, and for a place that cannot be written.
    """
    archive = load(results, tracks, rules)
    pages = [page for publish in PUBLISHERS for page in publish(archive)]
    files = {**render(pages), **static_files(), **_data(archive)}
    replace_folder(out, files)
    return SiteReport(out=out, pages=len(pages), files=len(files), size_bytes=sum(len(content) for content in files.values()))


def render(pages: Sequence[Page]) -> dict[str, bytes]:
    """Path -> HTML. A template that asks for something its context does not have is an error."""
    environment = Environment(
        loader=FileSystemLoader(str(_HERE / "templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return {page.path: environment.get_template(page.template).render(page=page.context).encode() for page in pages}


def static_files() -> dict[str, bytes]:
    """Stylesheet, script and icon."""
    return {f"static/{item.name}": item.read_bytes() for item in sorted((_HERE / "static").iterdir(), key=lambda item: item.name)}


def _data(archive: Archive) -> dict[str, bytes]:
    """The feed, the index, the tables, and copies of all kept documents."""
    files = {"feed.xml": feed(archive), "index.json": _index(archive)}
    for table in tables(archive):
        files |= table.files()
    for path, content in archive.results.documents().items():
        files[f"data/{_served_name(path)}"] = content
    return files


def _served_name(path: str) -> str:
    """Submissions are served as plain text, whatever their files are called: a browser must never run one."""
    return f"{path}.txt" if "/submission/" in path else path


def _index(archive: Archive) -> bytes:
    """Where everything is, for programs."""
    index = {
        "schema_version": 1,
        "results_until": archive.newest().date().isoformat(),
        "tracks": [
            {
                "name": t.name,
                "version": t.version,
                "metric": t.metric,
                "target": t.target,
                "page": track_path(t.name),
                "provisional": t.provisional,
            }
            for t in archive.tracks
        ],
        "entries": [
            {
                "id": d.entry.id,
                "title": d.entry.title,
                "track": d.entry.track,
                "track_version": d.entry.track_version,
                "status": d.entry.status,
                "mean_timed_s": d.seconds,
                "page": entry_path(d.entry),
                "document": f"{kept_folder(d.entry)}/entry.json",
                "runs": [f"{kept_folder(d.entry)}/runs/{run.id}/run.json" for run in d.runs],
                "verdicts": [f"{kept_folder(d.entry)}/verdicts/{verdict.id}.json" for verdict in d.verdicts],
            }
            for d in archive.dossiers
        ],
        "tables": {table.name: sorted(table.files()) for table in tables(archive)},
        "feed": "feed.xml",
    }
    return json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"
