"""Charts: the numbers given, axes with units, words and a table for those who do not see them, the same on every build."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from leaderboard.curve import Curve
from leaderboard.site.archive import Milestone
from leaderboard.site.losses import CURVE_POINTS, LossLine, losses
from leaderboard.site.milestones import is_day, price, progression

MILESTONES = [
    Milestone("2019", "GPT-2", 168.0, 43_000.0, reported=True),
    Milestone("2026-01-29", "first", 3.04, 73.0, reported=True),
    Milestone("2026-03-14", "last reported", 1.65, 40.0, reported=True),
    Milestone("2026-09-13", "own", 1.5, 36.0, reported=False),
]


def curve_of(count: int, *, scale: float = 1.0, last: float | None = None) -> Curve:
    values = [scale * (3 + 7 / (1 + i / 20)) for i in range(count)]
    if last is not None:
        values[-1] = last
    return Curve(tuple(range(count)), tuple(values), tuple(10**9 * (5 + i) for i in range(count)))


def line(run: str, role: str = "entry", *, void: bool = False, curve: Curve | None = None) -> LossLine:
    return LossLine(run, role, void, 5 * 10**9, curve or curve_of(900))


def drawings():
    chart = losses([line("a"), line("b"), line("r", "reference"), line("v", void=True, curve=curve_of(300))])
    return {"progression": progression(MILESTONES), "price": price(MILESTONES), "losses": chart}


@pytest.fixture(scope="module")
def charts():
    return drawings()


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


def test_drawing_again_gives_the_same_bytes(charts):
    for name, chart in drawings().items():
        assert (chart.wide, chart.narrow) == (charts[name].wide, charts[name].narrow)


@pytest.mark.parametrize("name", ["progression", "price", "losses"])
def test_a_chart_has_words_a_note_and_a_whole_table(charts, name):
    chart = charts[name]
    assert chart.title
    assert chart.description.endswith(".")
    assert chart.note
    assert len(chart.rows) >= 3
    assert all(len(row) == len(chart.columns) for row in chart.rows)


@pytest.mark.parametrize("name", ["progression", "price", "losses"])
def test_colours_come_from_the_stylesheet_and_nothing_is_styled_inline(charts, name):
    for svg in (charts[name].wide, charts[name].narrow):
        colours = set(re.findall(r'(?:fill|stroke)="([^"]+)"', svg))
        assert colours <= {"none", "var(--ink-soft)", "var(--chart-muted)", "var(--rule)", "var(--accent)"}
        assert not re.search(r"style=|font-family|<script|<image|href|NaN|undefined", svg)


@pytest.mark.parametrize("name", ["progression", "price", "losses"])
def test_the_narrow_drawing_fits_a_phone_in_the_same_text_size(charts, name):
    wide, narrow = (ElementTree.fromstring(svg) for svg in (charts[name].wide, charts[name].narrow))
    assert (wide.get("width"), narrow.get("width")) == ("720", "320")
    sizes = [{element.get("font-size") for element in root.iter("text")} for root in (wide, narrow)]
    assert sizes[0] == sizes[1] <= {"12px", "13px"}


def test_axes_name_their_units(charts):
    assert "hours" in texts(charts["progression"].wide)
    assert {"$10", "$100", "$1k", "$10k", "$100k"} <= set(texts(charts["price"].wide))
    assert {"nats per token", "time on the clock (min)"} <= set(texts(charts["losses"].wide))


def test_the_progression_draws_full_dates_and_labels_the_ends(charts):
    chart = charts["progression"]
    assert [row[0] for row in chart.rows] == ["2026-01-29", "2026-03-14", "2026-09-13"]
    shown = [text.replace("\u00a0", " ") for text in texts(chart.wide)]
    assert {"3.04 h", "1.65 h", "1.50 h"} <= set(shown)
    assert [key.ink for key in chart.keys] == ["muted", "accent"]


def test_every_price_is_labelled(charts):
    assert {"$43,000", "$73", "$40", "$36"} <= set(texts(charts["price"].wide))
    assert {"$43,000", "$73", "$40", "$36"} <= set(texts(charts["price"].narrow))


def test_one_milestone_is_enough():
    assert "3.04" in progression(MILESTONES[1:2]).description
    assert price(MILESTONES[:1]).rows[0][2] == "$43,000"


@pytest.mark.parametrize(("text", "whole"), [("2019", False), ("2026-03", False), ("2026-03-14", True), ("soon", False)])
def test_only_a_full_date_has_a_place_on_the_time_axis(text, whole):
    assert is_day(text) is whole


def test_a_long_curve_is_thinned_to_means(charts):
    path = max((element.get("d") for element in ElementTree.fromstring(charts["losses"].wide).iter("path")), key=len)
    assert len(re.findall(r"[ML]", path)) <= CURVE_POINTS


def test_void_runs_are_broken_lines_and_counted(charts):
    dashes = [element.get("stroke-dasharray") for element in ElementTree.fromstring(charts["losses"].wide).iter("path")]
    assert dashes.count("4,3") == 1
    assert "void runs (1)" in charts["losses"].note
    assert [key.text.replace("\u00a0", " ") for key in charts["losses"].keys] == ["this entry, 2 seeds", "reference, 1 seed"]


def test_the_table_of_losses_has_the_means_of_each_tenth():
    chart = losses([line("a"), line("b", curve=curve_of(900, scale=3.0)), line("r", "reference")])
    first = [sum(curve_of(900, scale=s).loss[:90]) / 90 for s in (1.0, 3.0)]
    assert chart.rows[0][1] == f"{sum(first) / 2:.3f}"
    assert len(chart.rows) == 10


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_loss_is_left_out_of_drawing_and_words(bad):
    chart = losses([line("a", curve=curve_of(50, last=bad)), line("b", curve=curve_of(50))])
    assert "nan" not in (chart.wide + chart.description + str(chart.rows)).lower()
    assert "inf" not in (chart.wide + chart.description + str(chart.rows)).lower().replace("infinite", "")


def test_without_a_finished_run_there_is_no_chart():
    assert losses([]) is None
    assert losses([line("v", void=True), line("r", "reference")]) is None
    assert losses([line("a", curve=Curve((), (), ()))]) is None
    assert losses([line("a", curve=curve_of(3, last=float("nan")))]) is not None


def test_a_run_that_is_all_nan_has_no_chart():
    nan = float("nan")
    assert losses([line("a", curve=Curve((0, 1), (nan, nan), (6 * 10**9, 7 * 10**9)))]) is None


def test_the_unit_of_time_follows_the_length():
    short = losses([line("a", curve=curve_of(60))])
    assert "time on the clock (s)" in texts(short.wide)
