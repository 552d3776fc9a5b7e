"""How to enter, and what a page that is not there says."""

from __future__ import annotations

from dataclasses import dataclass

from leaderboard.site.archive import Archive
from leaderboard.site.page import Frame, Link, Page, frame


@dataclass(frozen=True, slots=True)
class EnterPage:
    """Context of `enter.html`."""

    frame: Frame
    smallest: str
    """Name of the track on which to try things first."""


@dataclass(frozen=True, slots=True)
class MissingPage:
    """Context of `404.html`."""

    frame: Frame
    boards: tuple[Link, ...]


def publish(archive: Archive) -> list[Page]:
    enter = frame(archive, "How to enter", "From an idea to a record, in five commands.", "enter.html")
    missing = frame(archive, "No such page", "There is no page at this address.")
    cheapest = min(archive.tracks, key=lambda track: track.reference_usd_per_hour)
    return [
        Page("enter.html", "enter.html", EnterPage(enter, cheapest.name)),
        Page("404.html", "404.html", MissingPage(missing, missing.boards)),
    ]
