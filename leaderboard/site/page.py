"""What all pages share: their frame, and the small pieces that tables are made of."""

from __future__ import annotations

from dataclasses import dataclass

from harness.record import Author, Entry
from leaderboard.site import wording
from leaderboard.site.archive import Archive

SITE_NAME = "Time to GPT-2"


@dataclass(frozen=True, slots=True)
class Link:
    """A place in this site, relative, or an https address."""

    href: str
    text: str


@dataclass(frozen=True, slots=True)
class Amount:
    """A figure in a table."""

    text: str
    note: str = ""
    """A second line, in small print."""
    sort: float | None = None
    """What the column is sorted by; None sorts last."""


NOTHING = Amount(wording.DASH)


@dataclass(frozen=True, slots=True)
class Frame:
    """Head, navigation and footer of a page."""

    title: str
    description: str
    """One sentence for search engines and previews."""
    here: str
    """Path of the page in the navigation that this one belongs to; empty for none."""
    boards: tuple[Link, ...]
    """One per track."""
    until: str
    """ISO date of the newest result."""


@dataclass(frozen=True, slots=True)
class Page:
    """One file of the site: a template filled with one context."""

    path: str
    template: str
    context: object
    """A frozen dataclass; the template sees it as `page` and sees nothing else."""


def frame(archive: Archive, title: str, description: str, here: str = "") -> Frame:
    boards = tuple(Link(track_path(track.name), track.name) for track in archive.tracks)
    return Frame(title=title, description=description, here=here, boards=boards, until=wording.day(archive.newest()))


def track_path(name: str) -> str:
    return f"track-{name}.html"


def entry_path(entry: Entry) -> str:
    return f"entry-{entry.id}.html"


def entry_link(archive: Archive, entry_id: str) -> Link:
    """To the entry's page; without address when it is not in this database."""
    dossier = archive.dossier(entry_id)
    return Link(entry_path(dossier.entry), dossier.entry.title) if dossier else Link("", entry_id)


def kept_folder(entry: Entry) -> str:
    """Where the copies of the entry's documents lie in the site."""
    return f"data/records/{entry.track}/{entry.id}"


def by_line(authors: tuple[Author, ...]) -> str:
    return wording.listed([author.name + (" (agent)" if author.kind == "agent" else "") for author in authors]) or "unknown"
