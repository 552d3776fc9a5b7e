"""Is one program faster than another? A t interval on the log time ratios of interleaved pairs.

Pairs, because a node drifts: over 20 identical consecutive 8×H100 runs (nanochat PR 807) the wall time has a
lag-1 autocorrelation of 0.86, and pairing cuts its standard deviation from 6.5 s to 2.5 s.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.statistics.distributions import noncentrality_for_power, t_quantile
from harness.statistics.looks import Looks, look_at


@dataclass(frozen=True, slots=True)
class PairedPlan:
    """When the test may decide, and the interval's level there."""

    looks: Looks
    """Numbers of complete pairs."""
    level: float
    """Of the two-sided interval at each look. Higher than the overall level, because each look is a chance to be wrong."""


@dataclass(frozen=True, slots=True)
class RatioTest:
    """Outcome of `judge_ratios`. All figures are over the first `pairs` pairs, those that the verdict rests on."""

    verdict: Literal["better", "not better", "undecided"]
    pairs: int
    ratio: float
    """Geometric mean; below 1 is faster."""
    low: float
    high: float
    level: float
    detectable: float | None
    """See `detectable_ratio`."""


def judge_ratios(ratios: Sequence[float], *, plan: PairedPlan, final: bool) -> RatioTest:
    """Judge time ratios (new over old, in the order run) at the largest look they have reached.

    `better` iff the interval lies below 1. `not better` iff it lies at or above 1, or if no more pairs will come:
    at the last look, or at any number of pairs with `final`, which says that the submitter's plan is complete.
    So `not better` means "not shown to be faster"; `detectable` says what would have been shown.
    `undecided` otherwise. Before the first look nothing is `better`.
    Raises ValueError with fewer than two ratios, or one that is not positive.
    """
    if len(ratios) < 2 or min(ratios) <= 0:
        raise ValueError(f"judge_ratios needs at least two positive ratios; got {list(ratios)}")
    look = look_at(plan.looks, len(ratios))
    logs = [math.log(ratio) for ratio in ratios[: look or len(ratios)]]
    n, mean, sd = len(logs), statistics.fmean(logs), statistics.stdev(logs)
    half = t_quantile((1 + plan.level) / 2, n - 1) * sd / math.sqrt(n)
    low, high = math.exp(mean - half), math.exp(mean + half)
    return RatioTest(
        verdict=_verdict(low, high, look, plan, final),
        pairs=n,
        ratio=math.exp(mean),
        low=low,
        high=high,
        level=plan.level,
        detectable=detectable_ratio(sd, n, level=plan.level),
    )


def detectable_ratio(sd: float, pairs: int, *, level: float, power: float = 0.8) -> float | None:
    """The ratio that `pairs` pairs with this sd of the log ratio show as better with probability `power`; None below two pairs.

    From the noncentral t distribution, for one look at `pairs` pairs.
    """
    if pairs < 2:
        return None
    shift = noncentrality_for_power(power, t_quantile((1 + level) / 2, pairs - 1), pairs - 1)
    return math.exp(-shift * sd / math.sqrt(pairs))


def log_ratio_sd(ratios: Sequence[float]) -> float:
    """Sample standard deviation of the log ratios: about the relative spread of one pair. Needs two ratios."""
    return statistics.stdev(math.log(ratio) for ratio in ratios)


def _verdict(low: float, high: float, look: int | None, plan: PairedPlan, final: bool) -> Literal["better", "not better", "undecided"]:
    if look is not None and high < 1:
        return "better"
    if final or look == plan.looks[-1] or (look is not None and low >= 1):
        return "not better"
    return "undecided"
