"""What did not work, what worked, and how large an effect could have been seen."""

from __future__ import annotations

from dataclasses import dataclass

from harness.record import Effect, Finding
from leaderboard.site import wording
from leaderboard.site.archive import Archive
from leaderboard.site.page import Frame, Link, Page, entry_link, frame

_ORDER = ("no effect found", "not worth its cost", "hurts", "mixed", "helps")
_QUANTITIES = {
    "val_bpb": "val bpb",
    "core": "CORE",
    "time": "time",
    "step_time": "step time",
    "memory": "memory",
    "throughput": "throughput",
    "parameters": "parameters",
}


@dataclass(frozen=True, slots=True)
class FindingView:
    """One idea that was tried."""

    id: str
    idea: str
    summary: str
    verdict: str
    kind: str
    """Measured here, or reported from elsewhere."""
    scale: str
    track: Link | None
    effects: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    """What the source states beside the effect, as terms and values."""
    unstated: str
    """What it does not state, in words; empty when it states all."""
    code: Link | None
    source: Link
    author: str
    date: str
    tags: tuple[str, ...]
    document: str
    """Path of the raw document."""


@dataclass(frozen=True, slots=True)
class FindingsPage:
    """Context of `findings.html`."""

    frame: Frame
    failed: tuple[FindingView, ...]
    """What did not work, newest first."""
    others: tuple[FindingView, ...]
    """What helped, or helped in part."""


def publish(archive: Archive) -> list[Page]:
    views = [_view(archive, finding) for finding in reversed(archive.findings)]
    views.sort(key=lambda view: _ORDER.index(view.verdict))
    context = FindingsPage(
        frame=frame(
            archive, "Things that didn't work", "Ideas that were tried for the speedrun, with their effects and scales.", "findings.html"
        ),
        failed=tuple(view for view in views if view.verdict not in ("helps", "mixed")),
        others=tuple(view for view in views if view.verdict in ("helps", "mixed")),
    )
    return [Page("findings.html", "findings.html", context)]


def _view(archive: Archive, finding: Finding) -> FindingView:
    stated = (
        ("Smallest effect that could be seen", effect_words(finding.detectable) if finding.detectable else ""),
        ("Runs", "" if finding.runs is None else str(finding.runs)),
        ("Environment", finding.environment or ""),
    )
    return FindingView(
        id=finding.id,
        idea=finding.idea,
        summary=finding.summary,
        verdict=finding.verdict,
        kind="measured here" if finding.kind == "measured" else "reported elsewhere",
        scale=finding.scale,
        track=Link(f"track-{finding.track}.html", finding.track) if finding.track in {t.name for t in archive.tracks} else None,
        effects=tuple(effect_words(effect) for effect in finding.effects) or ("no figure given",),
        facts=tuple((term, value) for term, value in stated if value),
        unstated=wording.listed([term[0].lower() + term[1:] for term, value in stated if not value]),
        code=entry_link(archive, finding.code) if finding.code else None,
        source=Link(finding.source.url or "", finding.source.title),
        author=finding.author,
        date=finding.date,
        tags=finding.tags,
        document=f"data/findings/{finding.id}.json",
    )


def effect_words(effect: Effect) -> str:
    """`val bpb +0.00040 (−0.00020 to +0.00100 at 95 %)`, `memory +13.0 GB`, `throughput +1.0 %`."""
    words = f"{_QUANTITIES[effect.quantity]} {_value(effect, effect.value)}"
    if effect.low is None or effect.high is None:
        return words
    level = f" at {wording.percent(effect.level)}" if effect.level is not None else ""
    return f"{words} ({_value(effect, effect.low)} to {_value(effect, effect.high)}{level})"


def _value(effect: Effect, value: float) -> str:
    if effect.unit == "bytes":
        return f"{wording.signed(value / 1e9, 1)}{wording.NBSP}GB"
    if effect.unit == "ratio":
        return f"{wording.signed(value * 100, 1)}{wording.NBSP}%"
    if effect.unit == "seconds":
        return f"{wording.signed(value, 3)}{wording.NBSP}s"
    if effect.unit == "count":
        return ("−" if value < 0 else "+") + wording.large(abs(value))
    return wording.signed(value, 5 if effect.unit == "bpb" else 4)
