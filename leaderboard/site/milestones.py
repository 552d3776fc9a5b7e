"""How time and price fell: the record's progression by date, and dollars by milestone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import altair as alt

from leaderboard.site import wording
from leaderboard.site.archive import Milestone
from leaderboard.site.charts import ON_TOP, WIDE, Chart, Key, Plot, drawn, framed
from leaderboard.site.svg import POINTS, Ink


def progression(milestones: Sequence[Milestone]) -> Chart:
    """Hours to GPT-2 grade by date, reported and measured here as two lines. Needs one milestone with a full date."""
    dated = sorted((m for m in milestones if is_day(m.date)), key=lambda m: m.date)
    first, last = dated[0], min(dated, key=lambda m: m.hours)
    points = [{"date": m.date, "hours": m.hours, "origin": _origin(m), **_ends(m, dated)} for m in dated]
    keys = [Key("muted", "reported elsewhere, not re-run here")] if any(m.reported for m in dated) else []
    keys += [Key("accent", "records verified on this board")] if any(not m.reported for m in dated) else []
    return Chart(
        name="progression",
        title="Time to GPT-2 grade on eight H100s",
        description=f"From {wording.hours(first.hours)} on {first.date} to {wording.hours(last.hours)} on {last.date}.",
        note="Hours, logarithmic. Each line falls when a faster run was accepted.",
        keys=tuple(keys),
        **drawn("progression", points, lambda width, height: _progression_plot(points, width, height), narrow_height=240),
        columns=("Date", "What", "Hours", "Where"),
        rows=tuple((m.date, m.title, wording.hours(m.hours), "reported elsewhere" if m.reported else "this board") for m in dated),
    )


def _progression_plot(points: list[dict[str, Any]], width: int, height: int) -> Plot:
    span = [min(p["hours"] for p in points) * 0.82, max(p["hours"] for p in points) * 1.18]
    x = (
        alt.X("date:T")
        .scale(type="utc")
        .axis(title=None, format="%b %Y", tickCount={"interval": "month", "step": _month_step(points, width)})
    )
    ticks = [t for t in (0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 6, 8) if span[0] <= t <= span[1]]
    y = alt.Y("hours:Q").scale(type="log", domain=span, nice=False).axis(values=ticks, format="~r", title="hours", **ON_TOP)
    colour = alt.Color("origin:N").scale(domain=["elsewhere", "here"], range=[Ink.MUTED, Ink.ACCENT]).legend(None)
    base = alt.Chart(POINTS).encode(x=x, y=y, color=colour)
    line = base.mark_line(interpolate="step-after", strokeWidth=2)
    dots = base.mark_point(size=50, filled=True, opacity=1)
    first = base.mark_text(align="left", dx=-4, dy=-14, fontSize=13, fontWeight=600).encode(text="first:N")
    last = base.mark_text(align="left", dx=9, fontSize=13, fontWeight=600).encode(text="last:N")
    return framed(line + dots + first + last, width, height, left=34, right=64)


def _month_step(points: list[dict[str, Any]], width: int) -> int:
    """Months between the ticks of the time axis, so that their labels do not touch."""
    days = (date.fromisoformat(points[-1]["date"]) - date.fromisoformat(points[0]["date"])).days
    return max(1, round(days / 30 / (9 if width == WIDE else 3)))


def _ends(milestone: Milestone, among: Sequence[Milestone]) -> dict[str, str]:
    """The labels of the first and the last point of each line; points between have none, so that labels do not collide."""
    line = [m for m in among if m.reported == milestone.reported]
    text = wording.hours(milestone.hours)
    return {"first": text if milestone == line[0] and len(line) > 1 else "", "last": text if milestone == line[-1] else ""}


def _origin(milestone: Milestone) -> str:
    return "elsewhere" if milestone.reported else "here"


def is_day(text: str) -> bool:
    try:
        return bool(date.fromisoformat(text))
    except ValueError:
        return False


# ---------------------------------------------------------------------- the price of GPT-2


def price(milestones: Sequence[Milestone]) -> Chart:
    """Dollars for a model of GPT-2 grade, one row per milestone, oldest on top. Needs at least one."""
    rows = sorted(milestones, key=lambda m: m.date)
    points = [
        {"row": str(i), "when": m.date, "usd": m.cost_usd, "origin": _origin(m), **_beside(m.cost_usd, rows)} for i, m in enumerate(rows)
    ]
    low = min(rows, key=lambda m: m.cost_usd)
    keys = [Key("muted", "reported elsewhere")] if any(m.reported for m in rows) else []
    keys += [Key("accent", "measured on this board")] if any(not m.reported for m in rows) else []
    height = 34 * len(points) + 10
    return Chart(
        name="price",
        title="What a model of GPT-2 grade cost",
        description=f"From {wording.usd(rows[0].cost_usd)} in {rows[0].date[:4]} to {wording.usd(low.cost_usd)} on {low.date}.",
        note="US dollars, logarithmic: each grid line is ten times the one before.",
        keys=tuple(keys),
        **drawn("price", points, lambda width, _: _price_plot(points, width, height), narrow_height=height),
        columns=("Date", "What", "US dollars", "Hours"),
        rows=tuple((m.date, m.title, wording.usd(m.cost_usd), wording.hours(m.hours)) for m in rows),
    )


def _beside(usd: float, among: Sequence[Milestone]) -> dict[str, str]:
    """The label of a price: after its point, or before it where it would leave the frame."""
    far = usd**2 > max(m.cost_usd for m in among) * min(m.cost_usd for m in among)
    return {"before": wording.usd(usd) if far else "", "after": "" if far else wording.usd(usd)}


def _price_plot(points: list[dict[str, Any]], width: int, height: int) -> Plot:
    ticks = [10.0**n for n in range(-3, 7)]
    inside = [t for t in ticks if min(p["usd"] for p in points) / 10 < t < max(p["usd"] for p in points) * 10]
    x = alt.X("usd:Q").scale(type="log", domain=[inside[0], inside[-1]], nice=False).axis(values=inside, format="$~s", title=None)
    names = "{" + ", ".join(f"'{p['row']}': '{p['when']}'" for p in points) + "}[datum.value]"
    y = alt.Y("row:N", sort=[p["row"] for p in points])
    y = y.axis(labelExpr=names, title=None, ticks=False, domain=False, labelPadding=10)
    colour = alt.Color("origin:N").scale(domain=["elsewhere", "here"], range=[Ink.MUTED, Ink.ACCENT]).legend(None)
    base = alt.Chart(POINTS).encode(x=x, y=y, color=colour)
    guides = base.mark_rule().encode(x2=alt.X2Datum(inside[0]), color=alt.value(Ink.RULE))
    dots = base.mark_point(size=80, filled=True, opacity=1)
    after = base.mark_text(align="left", dx=10, fontSize=13, fontWeight=600).encode(text="after:N")
    before = base.mark_text(align="right", dx=-10, dy=-11, fontSize=13, fontWeight=600).encode(text="before:N")
    return framed(guides + dots + after + before, width, height, left=86, right=34, top=8)
