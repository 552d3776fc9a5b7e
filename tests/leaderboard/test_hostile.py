"""Free texts come from strangers: none of them becomes markup, a script or a formula."""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree

import pytest

from harness.record import Author, StatusChange
from leaderboard.database import Database
from leaderboard.site.build import build_site
from tests.leaderboard import samples
from tests.leaderboard.html_reader import broken_links, read_page

ATOM = "{http://www.w3.org/2005/Atom}"
HOSTILE = "<script>alert(1)</script>\" onload='x' {{ 7*7 }} </title>"


@pytest.fixture(scope="module")
def hostile_site(tmp_path_factory):
    """A database whose every free text is an attack."""
    root = tmp_path_factory.mktemp("hostile")
    db = Database(root / "db")
    entry = samples.add_judged_entry(
        db,
        samples.NANO,
        "evil",
        factor=1.0,
        day=1,
        status=("claimed",),
        title=HOSTILE,
        summary=HOSTILE + "\n\n" + HOSTILE,
        licence=HOSTILE,
        authors=(Author(name=HOSTILE),),
        config_changes={HOSTILE: (HOSTILE, HOSTILE)},
        parent="evil_parent",
    )
    db.set_status(entry.id, StatusChange(status="checked", at=entry.created_at, reason=HOSTILE + "\x07", by=HOSTILE))
    run, curve = samples.make_run(samples.NANO, "evil", 9, void=HOSTILE)
    db.add_run(
        entry.id,
        run.model_copy(update={"environment": run.environment.model_copy(update={"cpu": HOSTILE, "packages": {HOSTILE: HOSTILE}})}),
        curve,
    )
    other = samples.make_entry(samples.NANO, "files", day=2, title="=HYPERLINK(1)")
    db.add_entry(other, {"evil.html": HOSTILE, "model.py": HOSTILE})
    db.add_finding(samples.make_finding(idea=HOSTILE, summary=HOSTILE, scale=HOSTILE, environment=HOSTILE, code=HOSTILE))
    db.add_reported(samples.make_reported(title=HOSTILE, summary=HOSTILE))
    tracks = [samples.TRACKS[0], samples.TRACKS[2]]
    build_site(db, tracks, f"# {HOSTILE}\n\n## {HOSTILE}\n\n{HOSTILE}", root / "site")
    return root / "site"


def test_hostile_text_stays_text(hostile_site):
    for path in hostile_site.glob("*.html"):
        page = read_page(path)
        assert page.problems == [], path.name
        assert [script.get("src") for script in page.named("script")] == ["static/sort.js"]
        assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
        assert "49" not in page.text or "{{ 7*7 }}" in page.text
    entry = next(hostile_site.glob("entry-evil-*.html"))
    assert read_page(entry).text.count("<script>alert(1)</script>") >= 8


def test_links_still_resolve_with_hostile_text(hostile_site):
    assert broken_links(hostile_site) == []


def test_a_submission_is_served_as_plain_text(hostile_site):
    names = [path.name for path in hostile_site.rglob("submission/*")]
    assert "evil.html.txt" in names
    assert all(name.endswith(".txt") for name in names)


def test_the_feed_survives_hostile_text(hostile_site):
    feed = ElementTree.parse(hostile_site / "feed.xml").getroot()
    assert any("<script>" in (title.text or "") for title in feed.iter(f"{ATOM}title"))


def test_csv_cells_cannot_become_formulas(hostile_site):
    with (hostile_site / "data" / "entries.csv").open(newline="") as file:
        titles = [row["title"] for row in csv.DictReader(file)]
    assert "'=HYPERLINK(1)" in titles
    assert json.loads((hostile_site / "data" / "entries.json").read_text())[-1]["title"] == "=HYPERLINK(1)"
