"""The board as an Atom feed (RFC 4287): one item per change of an entry's status, newest first."""

from __future__ import annotations

from datetime import datetime
from xml.etree import ElementTree

from harness.record import Entry, StatusChange
from leaderboard.results import utc
from leaderboard.site.archive import Archive
from leaderboard.site.page import SITE_NAME, by_line, entry_path

LENGTH = 50
_ATOM = "http://www.w3.org/2005/Atom"


def feed(archive: Archive) -> bytes:
    """Addresses in it are relative to the feed's own, as the site does not know where it will be published."""
    root = ElementTree.Element("feed", {"xmlns": _ATOM, "xml:lang": "en"})
    _text(root, "id", "urn:speedrun:board")
    _text(root, "title", SITE_NAME)
    _text(root, "subtitle", "Claims, verifications and records")
    _text(root, "updated", _stamp(archive.newest()))
    _link(root, "feed.xml", rel="self")
    _link(root, "index.html", rel="alternate")
    steps = [(utc(change.at), d.entry.id, i, d.entry, change) for d in archive.dossiers for i, change in enumerate(d.entry.history)]
    for _, _, index, entry, change in sorted(steps, key=lambda step: step[:3], reverse=True)[:LENGTH]:
        _item(root, entry, index, change)
    ElementTree.indent(root)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode").encode() + b"\n"


def _item(root: ElementTree.Element, entry: Entry, index: int, change: StatusChange) -> None:
    item = ElementTree.SubElement(root, "entry")
    _text(item, "id", f"urn:speedrun:entry:{entry.id}:{index}")
    _text(item, "title", f"{entry.title}: {change.status} ({entry.track})")
    _text(item, "updated", _stamp(change.at))
    _link(item, entry_path(entry), rel="alternate")
    _text(ElementTree.SubElement(item, "author"), "name", by_line(entry.authors))
    _text(item, "summary", f"{change.reason}, by {change.by}. {entry.summary}")


def _text(parent: ElementTree.Element, name: str, value: str) -> None:
    """XML 1.0 has no control characters, not even escaped."""
    ElementTree.SubElement(parent, name).text = "".join(c for c in value if c in "\t\n" or (c.isprintable() and c != "\ufffe"))


def _link(parent: ElementTree.Element, href: str, rel: str) -> None:
    ElementTree.SubElement(parent, "link", {"rel": rel, "href": href})


def _stamp(moment: datetime) -> str:
    return utc(moment).isoformat(timespec="seconds").replace("+00:00", "Z")
