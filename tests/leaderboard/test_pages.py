"""What the pages say: ranks, verdicts, every run, and what is not known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from leaderboard.site.build import build_site
from leaderboard.site.pages.rules import render as render_rules
from tests.leaderboard import samples
from tests.leaderboard.html_reader import read_page

REPOSITORY = Path(__file__).parents[2]


def entry_page(results, name, track="gpt2"):
    return next(f"entry-{e.id}.html" for e in results.entries(track) if e.name == name and e.track_version == f"{track}-v1")


def table_rows(site, page, caption):
    """Texts of the body cells of the table with this caption."""
    html = (site / page).read_text()
    table = next(t for t in re.findall(r"<table.*?</table>", html, re.S) if re.search(caption, t.split("</caption>")[0]))
    body = table.split("<tbody>")[1]
    strip = re.compile(r"<[^>]+>")
    return [
        [" ".join(strip.sub(" ", cell).split()) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S)]
        for row in re.findall(r"<tr.*?</tr>", body, re.S)
    ]


# ---------------------------------------------------------------------- boards


def test_a_board_ranks_the_valid_entries_by_time(site):
    rows = table_rows(site, "track-gpt2.html", "gpt2-v1")
    ranked = [row for row in rows if row[0] != "–"]
    times = [float(row[2].split()[0].replace(",", "")) for row in ranked]
    assert [row[0] for row in ranked] == ["1", "2", "3", "4"]
    assert times == sorted(times)
    assert ranked[0][1] == "Fused loss"


def test_a_flagged_entry_has_a_row_without_a_rank(site):
    row = next(row for row in table_rows(site, "track-gpt2.html", "gpt2-v1") if row[1] == "Too good")
    assert row[0] == "–"
    assert row[3] == "flagged"


def test_valid_and_better_are_two_columns(site):
    row = next(row for row in table_rows(site, "track-gpt2.html", "gpt2-v1") if row[1] == "Narrow block")
    assert row[4:6] == ["valid", "undecided"]


def test_an_older_version_of_a_track_has_its_own_table_below(site):
    html = (site / "track-gpt2.html").read_text()
    assert html.index('id="table-gpt2-v1"') < html.index('id="table-gpt2-v0"')
    assert [row[1] for row in table_rows(site, "track-gpt2.html", "gpt2-v0")] == ["First try"]


def test_reported_figures_are_apart_and_only_on_their_track(site, pages):
    rows = table_rows(site, "track-gpt2.html", "reported elsewhere")
    assert len(rows) == 7
    assert rows[0][0] == "2026-03-14"
    assert "0.2571 0.2512 to 0.2676" in [row[4] for row in rows]
    assert "Reported elsewhere" not in pages["track-nano.html"].text


def test_a_provisional_track_says_so_on_its_board_and_on_the_first_page(pages):
    for name in ("index.html", "track-gpu1.html"):
        assert "sigma is a guess" in pages[name].text
    assert "provisional" not in pages["track-nano.html"].text


# ---------------------------------------------------------------------- entry pages


def test_an_entry_page_shows_every_run_void_ones_with_their_reason(site, results):
    rows = table_rows(site, entry_page(results, "fused_loss"), "Runs of the entry")
    assert len(rows) == 7
    (void,) = [row for row in rows if row[4].startswith("void")]
    assert "rank 3 was lost: node preempted" in void[4]
    assert [row[1] for row in rows].count("reference") == 3


def test_the_phases_of_a_run_add_up_to_its_wall_time(site, results):
    rows = table_rows(site, entry_page(results, "fused_loss"), "Seconds of each phase")
    assert len(rows) == 6
    for row in rows:
        *parts, wall = (float(cell.replace(",", "")) for cell in row[1:])
        assert sum(parts) == pytest.approx(wall, abs=0.04)


def test_an_entry_page_says_its_verdicts_in_words(pages, results):
    text = pages[entry_page(results, "fused_loss")].text.replace("\u00a0", " ")
    entry = next(e for e in results.entries("gpt2") if e.name == "fused_loss")
    (verdict,) = results.verdicts(entry.id)
    assert f"z = {verdict.validity.z:.2f}" in text
    assert f"it took {verdict.superiority.ratio:.3f} of the reference's time" in text
    assert "% faster" in text
    assert "would have been seen four times in five" in text
    assert f"speedrun verify {entry.id}" in text


def test_an_entry_page_shows_its_source_and_its_difference_from_the_parent(site, results, pages):
    page = entry_page(results, "fused_loss")
    assert "def build_model(config, ops):" in pages[page].text
    assert "--- parent/config.py +++ entry/config.py" in pages[page].text
    assert "Built on Long windows" in pages[page].text
    assert "parent/" not in pages[entry_page(results, "baseline")].text


def test_an_entry_page_has_its_status_time_line_in_order(pages, results):
    text = pages[entry_page(results, "fused_loss")].text
    places = [text.index(f"became {word}") for word in ("claimed", "checked", "reproduced", "record")]
    assert places == sorted(places)


# ---------------------------------------------------------------------- other pages


def test_the_first_page_shows_the_best_time_and_the_newest_changes(pages):
    text = pages["index.html"].text.replace("\u00a0", " ")
    assert "The record on this board is 1 h 30 min" in text
    assert "Too good on gpt2 flagged" in text


def test_the_first_page_says_when_the_best_time_is_only_reported(archive, tmp_path):
    build_site(archive, samples.TRACKS, samples.RULES, tmp_path / "site")
    text = read_page(tmp_path / "site" / "index.html").text.replace("\u00a0", " ")
    assert "another board has accepted since is 1 h 39 min" in text
    assert "Nobody has repeated it here yet." in text


def test_what_did_not_work_comes_with_effect_and_scale(site):
    rows = table_rows(site, "findings.html", "did not pay")
    assert len(rows) == 6
    assert ["Multi-token prediction", "hurts", "memory +13.0 GB", "nanochat depth 12", "reported elsewhere", "2026-01-12"] in rows


def test_the_cost_page_goes_from_43000_dollars_to_the_newest_record(site):
    rows = table_rows(site, "cost.html", "oldest first")
    assert rows[0][2] == "$43,000"
    assert rows[1][2] == "$73"
    assert rows[-1][1] == "Fused loss"


def test_the_rules_are_rendered_and_their_html_is_shown_not_obeyed(pages):
    page = pages["rules.html"]
    assert "r1-the-clock" in page.ids
    assert "<script>alert(1)</script>" in page.text
    assert "the design" in page.text
    assert "docs/design.md" not in page.links
    assert "https://arxiv.org/abs/2406.11794" in page.links


@pytest.mark.parametrize("target", ["javascript:alert(1)", "data:text/html,x", "http://example.org", "//example.org", "../x"])
def test_a_link_in_the_rules_leads_to_https_or_nowhere(target):
    _, _, html = render_rules(f"# R\n\n[text]({target})\n")
    assert "href" not in html
    assert "text" in html
