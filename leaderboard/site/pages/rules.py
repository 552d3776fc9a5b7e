"""The rules, from RULES.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from leaderboard.site.archive import Archive
from leaderboard.site.page import Frame, Link, Page, frame


@dataclass(frozen=True, slots=True)
class RulesPage:
    """Context of `rules.html`."""

    frame: Frame
    title: str
    contents: tuple[Link, ...]
    """The second-level headings."""
    text: Markup
    """The rules without their first heading. Raw HTML in them is shown, not obeyed."""


def publish(archive: Archive) -> list[Page]:
    title, contents, text = render(archive.rules)
    context = RulesPage(frame(archive, title, "What an entry may change, and how it is judged.", "rules.html"), title, contents, text)
    return [Page("rules.html", "rules.html", context)]


def render(markdown: str) -> tuple[str, tuple[Link, ...], Markup]:
    """Title, contents and body of a Markdown text. Headings get ids; links into the repository become plain text."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    title = "Rules"
    if len(tokens) > 2 and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        title, tokens = _plain(tokens[1]), tokens[3:]
    contents: list[Link] = []
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            name = _anchor(_plain(inline))
            opening.attrSet("id", name)
            if opening.tag == "h2":
                contents.append(Link(f"#{name}", _plain(inline)))
        if inline.children:
            inline.children = _without_local_links(inline.children)
    return title, tuple(contents), Markup(parser.renderer.render(tokens, parser.options, {}))


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [])


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "section"


def _without_local_links(children: list[Token]) -> list[Token]:
    """A link such as `docs/x.md` leads nowhere on the site."""
    kept, dropped = [], 0
    for child in children:
        if child.type == "link_open" and not str(child.attrGet("href")).startswith(("https://", "#")):
            dropped += 1
        elif child.type == "link_close" and dropped:
            dropped -= 1
        else:
            kept.append(child)
    return kept
