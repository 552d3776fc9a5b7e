"""What a model of GPT-2 grade cost, from 2019 on."""

from __future__ import annotations

from dataclasses import dataclass

from leaderboard.site import wording
from leaderboard.site.archive import Archive, Dossier, Milestone, record_date
from leaderboard.site.charts import Chart
from leaderboard.site.milestones import price
from leaderboard.site.page import Amount, Frame, Link, Page, entry_path, frame


@dataclass(frozen=True, slots=True)
class CostRow:
    """One price."""

    date: str
    title: str
    hours: Amount
    hardware: str
    usd: Amount
    share: str
    """Times cheaper than the first row."""
    source: Link


@dataclass(frozen=True, slots=True)
class CostPage:
    """Context of `cost.html`."""

    frame: Frame
    first: CostRow | None
    last: CostRow | None
    """The cheapest."""
    rows: tuple[CostRow, ...]
    """Oldest first; figures from elsewhere, then this board's records."""
    chart: Chart | None


@dataclass(frozen=True, slots=True)
class _Price:
    milestone: Milestone
    hardware: str
    source: Link


def publish(archive: Archive) -> list[Page]:
    prices = [
        _Price(Milestone(p.date, p.title, p.hours, p.cost_usd, reported=True), p.hardware, Link(p.source.url or "", p.source.title))
        for p in archive.cost_history
    ]
    prices += [_own(archive, d) for track in sorted({r.track for r in archive.reported}) for d in archive.records(track) if _has_cost(d)]
    rows = tuple(_row(price, prices[0].milestone.cost_usd) for price in prices)
    milestones = [price.milestone for price in prices if price.milestone.cost_usd > 0]
    cheapest = min(range(len(prices)), key=lambda i: prices[i].milestone.cost_usd, default=None)
    context = CostPage(
        frame=frame(archive, "The cost of GPT-2", "How the price of a model of GPT-2 grade fell from $43,000.", "cost.html"),
        first=rows[0] if rows else None,
        last=None if cheapest is None else rows[cheapest],
        rows=rows,
        chart=price(milestones) if milestones else None,
    )
    return [Page("cost.html", "cost.html", context)]


def _has_cost(dossier: Dossier) -> bool:
    return dossier.headline is not None and dossier.headline.cost is not None


def _own(archive: Archive, dossier: Dossier) -> _Price:
    entry, verdict = dossier.entry, dossier.headline
    usd = verdict.cost.run_usd if verdict and verdict.cost else 0.0
    milestone = Milestone(record_date(dossier), entry.title, (dossier.seconds or 0.0) / 3600, usd, reported=False)
    return _Price(milestone, archive.track(entry.track).hardware, Link(entry_path(entry), "this board"))


def _row(price: _Price, first_usd: float) -> CostRow:
    point = price.milestone
    times = first_usd / point.cost_usd if point.cost_usd > 0 else 0.0
    return CostRow(
        date=point.date,
        title=point.title,
        hours=Amount(wording.hours(point.hours), sort=point.hours),
        hardware=price.hardware,
        usd=Amount(wording.usd(point.cost_usd), sort=point.cost_usd),
        share=f"{times:,.0f}" if times >= 2 else "1" if times else wording.DASH,
        source=price.source,
    )
