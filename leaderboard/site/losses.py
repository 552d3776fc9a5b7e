"""Loss curves of all seeds of an entry, over those of the reference that ran beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import altair as alt

from leaderboard.curve import Curve
from leaderboard.site import wording
from leaderboard.site.charts import ON_TOP, WIDE, Chart, Key, Plot, drawn, framed
from leaderboard.site.svg import POINTS, Ink

CURVE_POINTS = 160
"""A curve is drawn with at most this many points; each is the mean of the logged steps around it."""
SETTLING = 0.1
"""The first share of a run whose loss may lie above the frame, so that the rest can be told apart."""
ROLES: dict[str, tuple[Literal["accent", "muted"], str]] = {"entry": ("accent", "this entry"), "reference": ("muted", "reference")}
"""Role of a line -> its ink and its name."""


@dataclass(frozen=True, slots=True)
class LossLine:
    """One run's curve, from the start of its clock."""

    run: str
    role: Literal["entry", "reference"]
    void: bool
    go_ns: int
    curve: Curve


def losses(lines: Sequence[LossLine]) -> Chart | None:
    """Training loss against time on the clock, all seeds of the entry over all of its reference. None without a finished entry run."""
    ordered = sorted(filter(None, map(_finite, lines)), key=lambda line: (line.role == "entry", line.run))
    finished = [line for line in ordered if line.role == "entry" and not line.void]
    if not finished:
        return None
    unit, per_unit = _time_unit(ordered)
    points = [point for line in ordered for point in _thinned(line, per_unit)]
    settled = [loss for line in ordered for loss in line.curve.loss[int(len(line.curve.loss) * SETTLING) :]]
    domain = [min(point["loss"] for point in points) * 0.985, max(settled)]
    sides = {role: side for role in ROLES if (side := [line for line in ordered if line.role == role and not line.void])}
    last = finished[0].curve.loss[-1]
    return Chart(
        name="losses",
        title="Training loss by time on the clock",
        description=f"Loss falls to {last:.3f} nats per token at the end of the first seed. The table has the means of all seeds.",
        note=_note(sum(line.void for line in ordered)),
        keys=tuple(Key(ROLES[role][0], f"{ROLES[role][1]}, {wording.count(len(side), 'seed')}") for role, side in sides.items()),
        **drawn("losses", points, lambda width, height: _loss_plot(domain, unit, width, height), narrow_height=250),
        columns=("Share of the steps", *(f"{role}, mean loss" for role in sides)),
        rows=_loss_rows(list(sides.values())),
    )


def _time_unit(lines: Sequence[LossLine]) -> tuple[str, float]:
    """Name of the unit for the longest line, and its seconds."""
    longest = max(line.curve.at_ns[-1] - line.go_ns for line in lines) / 1e9
    return ("s", 1.0) if longest < 180 else ("min", 60.0) if longest < 3 * 3600 else ("h", 3600.0)


def _note(void: int) -> str:
    note = f"Each point is the mean of the logged steps around it; the first {SETTLING:.0%} of a run may lie above the frame."
    return note + (f" Broken lines are void runs ({void})." if void else "")


def _loss_plot(domain: list[float], unit: str, width: int, height: int) -> Plot:
    x = alt.X("at:Q").axis(title=f"time on the clock ({unit})", tickCount=4 if width < WIDE else 8, grid=False)
    y = alt.Y("loss:Q").scale(domain=domain, nice=False, clamp=False).axis(title="nats per token", tickCount=5, **ON_TOP)
    base = alt.Chart(POINTS).encode(
        x=x,
        y=y,
        detail="run:N",
        order="at:Q",
        color=alt.Color("role:N").scale(domain=["reference", "entry"], range=[Ink.MUTED, Ink.ACCENT]).legend(None),
        strokeDash=alt.StrokeDash("void:N").scale(domain=[False, True], range=[[1, 0], [4, 3]]).legend(None),
    )
    line = base.mark_line(strokeWidth=1.4, opacity=0.85, clip=True)
    return framed(alt.LayerChart(layer=[line]), width, height, left=44, right=14, bottom=46)


def _finite(line: LossLine) -> LossLine | None:
    """The line without the steps whose loss is no number; None when none is left."""
    rows = [row for row in zip(line.curve.step, line.curve.loss, line.curve.at_ns, strict=True) if math.isfinite(row[1])]
    return replace(line, curve=Curve(*zip(*rows, strict=True))) if rows else None


def _thinned(line: LossLine, per_unit: float) -> list[dict[str, Any]]:
    """Means over runs of neighbouring steps, at the time of the last of them."""
    size = -(-len(line.curve.step) // CURVE_POINTS)
    starts = range(0, len(line.curve.step), size)
    found = []
    for start in starts:
        part = line.curve.loss[start : start + size]
        at = line.curve.at_ns[min(start + size, len(line.curve.step)) - 1] - line.go_ns
        place = {"at": round(at / 1e9 / per_unit, 4), "loss": round(sum(part) / len(part), 4)}
        found.append({**place, "run": line.run, "role": line.role, "void": line.void})
    return found


def _loss_rows(sides: Sequence[Sequence[LossLine]]) -> tuple[tuple[str, ...], ...]:
    """Mean loss of each side in each tenth of its steps."""
    rows = []
    for low, high in pairwise(range(0, 101, 10)):
        means = []
        for side in sides:
            parts = [_tenth(line.curve.loss, low, high) for line in side]
            values = [loss for part in parts for loss in part]
            means.append(f"{sum(values) / len(values):.3f}" if values else wording.DASH)
        rows.append((f"{low}–{high}{wording.NBSP}%", *means))
    return tuple(rows)


def _tenth(values: Sequence[float], low: int, high: int) -> Sequence[float]:
    return values[len(values) * low // 100 : len(values) * high // 100]
