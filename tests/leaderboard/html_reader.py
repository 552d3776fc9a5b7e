"""Reads a built site as a strict reader would: every tag closed, every id once, every link resolved."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

VOID_TAGS = {"meta", "link", "br", "img", "hr", "input"}


@dataclass
class Document:
    """What one page consists of."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    text: str = ""

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.document, self.open = Document(), []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if len(attributes) != len(attrs):
            self.document.problems.append(f"<{tag}> has an attribute twice")
        self.document.tags.append((tag, attributes))
        if "id" in attributes:
            self.document.ids.append(attributes["id"])
        self.document.links += [attributes[name] for name in ("href", "src") if name in attributes]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID_TAGS:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.document.problems.append(f"</{tag}> closes {self.open[-1:] or 'nothing'}")
        elif self.open:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.document.text += data


def read_page(path: Path) -> Document:
    reader = Reader()
    reader.feed(path.read_text())
    reader.close()
    document = reader.document
    document.problems += [f"<{tag}> is never closed" for tag in reader.open]
    document.problems += [f"id {name} twice" for name in set(document.ids) if document.ids.count(name) > 1]
    document.text = " ".join(document.text.split())
    return document


def broken_links(folder: Path) -> list[str]:
    """Every internal link of every page that leads to no file, or to no id."""
    pages = {path.name: read_page(path) for path in sorted(folder.glob("*.html"))}
    broken = []
    for name, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = unquote(parts.path) or name
            if target.startswith("/") or not (folder / target).is_file():
                broken.append(f"{name}: {link}")
            elif parts.fragment and parts.fragment not in pages[target].ids:
                broken.append(f"{name}: {link} (no such id)")
    return broken
