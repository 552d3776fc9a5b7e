"""What all charts share. They are SVG, drawn at build time by Vega-Lite through Altair; colours and fonts come from the stylesheet.

Every chart has a title, units on its axes, a sentence for those who do not see it, and its numbers as a table.
It is drawn twice, for wide and for narrow screens, so that its text keeps a legible size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
from markupsafe import Markup

from leaderboard.site.svg import Ink, to_svg

WIDE, NARROW = 720, 320
"""Widths of the two drawings in CSS pixels."""

Plot = alt.LayerChart

ON_TOP: dict[str, Any] = {
    "titleAngle": 0,
    "titleAlign": "left",
    "titleAnchor": "end",
    "titleX": -30,
    "titleY": -14,
    "titleBaseline": "bottom",
}
"""The title of a vertical axis, lying above it."""


@dataclass(frozen=True, slots=True)
class Key:
    """One line of a chart's legend."""

    ink: Literal["accent", "muted"]
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure: two drawings of the same numbers, what they show in words, and the numbers."""

    name: str
    """Unique on its page; begins the ids of its parts."""
    title: str
    description: str
    """The text alternative."""
    note: str
    """Shown below the chart."""
    keys: tuple[Key, ...]
    wide: Markup
    narrow: Markup
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """The data table; the first cell of each row is its header."""


def drawn(
    name: str, points: Sequence[Mapping[str, object]], plot: Callable[[int, int], Plot], *, narrow_height: int, wide_height: int = 320
) -> dict[Literal["wide", "narrow"], Markup]:
    """Both drawings of `points`. `plot(width, height)` describes a chart of `svg.POINTS`."""
    return {
        "wide": to_svg(plot(WIDE, wide_height), points, f"{name}-wide"),
        "narrow": to_svg(plot(NARROW, narrow_height), points, f"{name}-narrow"),
    }


def framed(chart: Plot, width: int, height: int, *, left: int, right: int, top: int = 34, bottom: int = 30) -> Plot:
    """Fixed margins: the layout then does not depend on the fonts of the machine that builds the site."""
    framed: Plot = (
        chart.properties(
            width=width - left - right,
            height=height,
            autosize=alt.AutoSizeParams(type="none"),
            padding={"left": left, "right": right, "top": top, "bottom": bottom},
        )
        .configure(background="transparent")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=Ink.TEXT,
            titleColor=Ink.TEXT,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            gridColor=Ink.RULE,
            domainColor=Ink.RULE,
            tickColor=Ink.RULE,
            labelFlush=False,
            labelOverlap=False,
        )
    )
    return framed
