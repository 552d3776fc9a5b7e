"""Which ranks are consistent with a table of intervals? Entries whose intervals overlap share a range of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval of a quantity where lower is better, such as a time ratio to a common reference."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RankRange:
    """Ranks from `first` to `last`, both counted from 1; equal when the rank is certain."""

    first: int
    last: int


def rank_ranges(intervals: Sequence[Interval]) -> list[RankRange]:
    """The range of ranks of each entry, in the order given: behind all that are surely better, before all that are surely worse."""
    return [
        RankRange(
            first=1 + sum(other.high < one.low for other in intervals),
            last=len(intervals) - sum(other.low > one.high for other in intervals),
        )
        for one in intervals
    ]
