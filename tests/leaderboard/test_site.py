"""The site as a whole: every page is there, linked, sound, and the same on every build."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path

import jinja2
import pytest

from leaderboard.database import Database
from leaderboard.documents import DatabaseError
from leaderboard.site.archive import SiteError, load
from leaderboard.site.build import PUBLISHERS, build_site, render
from leaderboard.site.page import Page
from tests.leaderboard import samples
from tests.leaderboard.html_reader import broken_links, read_page

REPOSITORY = Path(__file__).parents[2]


# ---------------------------------------------------------------------- all pages


def test_every_page_is_there(pages, results):
    kinds = {"index.html", "findings.html", "cost.html", "rules.html", "enter.html", "404.html"}
    boards = {"track-gpt2.html", "track-gpu1.html", "track-nano.html"}
    assert pages.keys() == kinds | boards | {f"entry-{entry.id}.html" for entry in results.entries()}


def test_every_tag_is_closed_and_every_id_is_unique(pages):
    assert {name: page.problems for name, page in pages.items() if page.problems} == {}


def test_every_internal_link_leads_somewhere(site):
    assert broken_links(site) == []


def test_nothing_is_loaded_from_elsewhere(pages):
    loading = [
        attributes.get("href") or attributes.get("src", "")
        for page in pages.values()
        for tag, attributes in page.tags
        if tag in ("link", "script", "img", "iframe", "source", "use")
    ]
    assert {link for link in loading if not link.startswith(("static/", "feed.xml"))} == set()


def test_links_to_elsewhere_are_https(pages):
    schemes = {link.split(":")[0] for page in pages.values() for link in page.links if ":" in link.split("/")[0]}
    assert schemes <= {"https"}


def test_the_policy_forbids_what_the_pages_do_not_use(pages):
    for page in pages.values():
        policy = next(meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert not any("style" in attributes for _, attributes in page.tags)
        assert not page.named("style")
        assert [script.get("src") for script in page.named("script")] == ["static/sort.js"]


def test_every_page_has_one_title_one_heading_and_a_language(pages):
    for page in pages.values():
        assert len(page.named("h1")) == len(page.named("title")) == len(page.named("main")) == 1
        assert page.named("html")[0]["lang"] == "en"
        assert next(meta["content"] for meta in page.named("meta") if meta.get("name") == "description")


def test_headings_skip_no_level(pages):
    for name, page in pages.items():
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert all(b - a <= 1 for a, b in pairwise(levels)), name


def test_every_table_has_a_caption_and_every_header_a_scope(site):
    for path in site.glob("*.html"):
        if path.name == "rules.html":
            continue
        for table in re.findall(r"<table.*?</table>", path.read_text(), re.S):
            assert "<caption" in table
            assert "<th>" not in table
            assert all("scope=" in header for header in re.findall(r"<th[ >][^>]*>", table))


def test_every_row_of_a_table_has_a_cell_for_every_column(site):
    for path in site.glob("*.html"):
        for table in re.findall(r"<table.*?</table>", path.read_text(), re.S):
            head, body = table.split("<tbody>")
            columns = len(re.findall(r"<th[ >]", head.split("</caption>")[-1]))
            for row in re.findall(r"<tr.*?</tr>", body, re.S):
                assert len(re.findall(r"<t[dh][ >]", row)) == columns, f"{path.name}: {row}"


# ---------------------------------------------------------------------- the stylesheet


def _luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_ink_is_legible_on_paper(site, scheme):
    """Contrast of at least 4.5, level AA for text of any size."""
    light, dark = re.findall(r":root \{(.*?)\}", (site / "static" / "board.css").read_text(), re.S)[:2]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", {"light": light, "dark": dark}[scheme]))
    for ink in ("ink", "ink-soft", "accent", "link", "good", "bad", "wait", "chart-muted"):
        for ground in ("paper", "raised"):
            brighter, darker = sorted((_luminance(colours[ink]), _luminance(colours[ground])), reverse=True)
            assert (brighter + 0.05) / (darker + 0.05) >= 4.5, f"--{ink} on --{ground}"


def test_the_stylesheet_loads_nothing_and_moves_nothing(site):
    css = (site / "static" / "board.css").read_text()
    assert not re.search(r"@import|url\(|animation|transition", css)
    assert "scroll-behavior" not in css.split("prefers-reduced-motion: no-preference")[0]


# ---------------------------------------------------------------------- the build itself


def test_a_rebuild_elsewhere_is_the_same_byte_by_byte(site, filled, archive, tmp_path):
    """In another process, with another time zone, hash seed and working folder."""
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from pathlib import Path\n"
        "from leaderboard.database import Database\nfrom leaderboard.merged import MergedDatabase\n"
        "from leaderboard.site.build import build_site\nfrom tests.leaderboard import samples\n"
        f"roots = [Database(Path({str(filled.root)!r})), Database(Path({str(archive.root)!r}))]\n"
        f"build_site(MergedDatabase(roots), samples.TRACKS, samples.RULES, Path({str(tmp_path / 'again')!r}))\n"
    )
    env = {**os.environ, "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "12345", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, cwd=tmp_path)
    first, second = (
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (site, tmp_path / "again")
    )
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_no_page_holds_the_day_of_the_build(pages):
    assert all("Results up to 2026-09-16" in page.text for page in pages.values())


def test_a_template_that_asks_for_too_much_is_an_error(results):
    @dataclass(frozen=True)
    class Bare:
        frame: object

    frame = PUBLISHERS[0](load(results, samples.TRACKS, samples.RULES))[0].context.frame
    with pytest.raises(jinja2.UndefinedError, match="boards"):
        render([Page("x.html", "404.html", Bare(frame))])


def test_every_context_is_documented_frozen_and_used(results):
    archive = load(results, samples.TRACKS, samples.RULES)
    templates = REPOSITORY / "leaderboard" / "site" / "templates"
    for page in (page for publish in PUBLISHERS for page in publish(archive)):
        assert is_dataclass(page.context)
        assert type(page.context).__doc__.startswith(f"Context of `{page.template}`")
        assert type(page.context).__dataclass_params__.frozen
        source = (templates / page.template).read_text() + (templates / "layout.html").read_text()
        assert [f.name for f in fields(page.context) if f"page.{f.name}" not in source] == []


def test_an_empty_database_makes_a_whole_site(tmp_path):
    build_site(Database(tmp_path / "db"), samples.TRACKS, samples.RULES, tmp_path / "site")
    assert broken_links(tmp_path / "site") == []
    assert "No entries yet" in read_page(tmp_path / "site" / "track-gpt2.html").text


def test_an_entry_on_an_unknown_track_stops_the_build(filled, tmp_path):
    with pytest.raises(SiteError, match="track 'gpu1' is unknown"):
        build_site(filled, [samples.TRACKS[0], samples.TRACKS[2]], samples.RULES, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_board_needs_a_track(tmp_path):
    with pytest.raises(SiteError, match="no tracks"):
        build_site(Database(tmp_path / "db"), [], "", tmp_path / "site")


def test_a_broken_document_stops_the_build_and_leaves_the_old_site(tmp_path):
    db = Database(tmp_path / "db")
    db.add_finding(samples.make_finding())
    build_site(db, samples.TRACKS, samples.RULES, tmp_path / "site")
    before = (tmp_path / "site" / "index.html").read_bytes()
    (db.root / "findings" / "halved-window.json").write_text("{")
    with pytest.raises(DatabaseError, match=r"halved-window\.json"):
        build_site(db, samples.TRACKS, samples.RULES, tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_bytes() == before
