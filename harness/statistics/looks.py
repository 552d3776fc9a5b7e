"""Looks: the numbers of runs (or pairs), ascending and fixed beforehand, at which a verdict may be drawn."""

from __future__ import annotations

Looks = tuple[int, ...]


def look_at(looks: Looks, runs: int) -> int | None:
    """The largest look that `runs` runs have reached; None before the first."""
    return max((look for look in looks if look <= runs), default=None)


def look_after(looks: Looks, runs: int) -> int | None:
    """The next look that needs more than `runs` runs; None after the last."""
    return min((look for look in looks if look > runs), default=None)
