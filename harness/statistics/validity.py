"""Does a set of scores reach the target? A group-sequential one-sided z-test with a pinned sigma.

Sigma is pinned because 3 to 10 runs estimate it badly: one lucky trio with a small spread would pass a
t-test. The looks and bounds come from the track's ruleset as a `SequentialPlan`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.statistics.distributions import (
    chi_squared_quantile,
    chi_squared_upper_tail,
    normal_quantile,
    normal_upper_tail,
    t_upper_tail,
)
from harness.statistics.looks import Looks, look_at

SMALLEST_P = 1e-300
"""Below this a p-value has no finite normal quantile in double precision."""


@dataclass(frozen=True, slots=True)
class SequentialPlan:
    """When the test may decide, and at which z. The same `bound` at each look is Pocock's design."""

    looks: Looks
    bound: float
    """Valid at a look iff z ≥ bound."""
    futility: tuple[float, ...]
    """Not valid at a look, the last one excepted, iff z < its value. Advice to stop: the error rate holds for those who go on."""
    guard_p: float
    """If the spread of the runs exceeds the pinned sigma at this p, a t-test replaces the z-test."""


@dataclass(frozen=True, slots=True)
class TargetTest:
    """Outcome of `judge_target`. All figures are over the first `runs` runs, those that the verdict rests on."""

    verdict: Literal["valid", "not valid", "undecided"]
    runs: int
    mean: float
    sigma: float
    """The pinned sigma, or the sample's own where the spread guard tripped."""
    z: float
    """Positive is beyond the target. Where the guard tripped: the normal quantile of the t-test's p."""
    bound: float
    p_value: float
    """One-sided, of this z alone; below the plan's overall level because the looks share it."""
    method: str


def judge_target(values: Sequence[float], *, target: float, sigma: float, lower_is_better: bool, plan: SequentialPlan) -> TargetTest:
    """Judge the scores `values`, in the order run, at the largest look they have reached.

    `valid` iff z ≥ bound there. `not valid` iff z is below that look's futility value, or at the last look.
    `undecided` otherwise, and always before the first look. Runs beyond a look wait for the next one.
    Raises ValueError without values or with a sigma that is not positive.
    """
    if not values or sigma <= 0:
        raise ValueError(f"judge_target needs at least one value and a positive sigma; got {len(values)} values, sigma {sigma}")
    look = look_at(plan.looks, len(values))
    judged = values[: look or len(values)]
    beyond = _beyond_target(statistics.fmean(judged), target, lower_is_better)
    spread = spread_p(judged, sigma) if len(judged) > 1 else 1.0
    guarded = spread < plan.guard_p
    used_sigma = statistics.stdev(judged) if guarded else sigma
    z = beyond * math.sqrt(len(judged)) / used_sigma
    if guarded:
        z = _normal_equivalent(z, len(judged) - 1)
    return TargetTest(
        verdict=_verdict(z, look, plan),
        runs=len(judged),
        mean=statistics.fmean(judged),
        sigma=used_sigma,
        z=z,
        bound=plan.bound,
        p_value=normal_upper_tail(z),
        method=_method(len(values), look, plan, spread if guarded else None),
    )


@dataclass(frozen=True, slots=True)
class FixedTest:
    """Outcome of a z-test whose number of runs was fixed beforehand."""

    z: float
    p_value: float
    established: bool


def fixed_test(mean: float, runs: int, *, target: float, sigma: float, lower_is_better: bool, alpha: float = 0.01) -> FixedTest:
    """Judge a published mean of `runs` runs: established iff its one-sided p ≤ alpha. Only for a number of runs fixed beforehand."""
    z = _beyond_target(mean, target, lower_is_better) * math.sqrt(runs) / sigma
    p = normal_upper_tail(z)
    return FixedTest(z=z, p_value=p, established=p <= alpha)


def spread_p(values: Sequence[float], sigma: float) -> float:
    """One-sided p of a sample variance this large if `sigma` were true: chi-squared with n − 1 degrees of freedom. Needs two values."""
    df = len(values) - 1
    return chi_squared_upper_tail(df * statistics.variance(values) / sigma**2, df)


def pinned_sigma(values: Sequence[float]) -> float:
    """Upper 80 % one-sided confidence bound of sigma from calibration runs: sd · √((n − 1) / χ²(0.2; n − 1)).

    The bound, not the sample's sd: a sigma pinned too small would let invalid entries pass for as long as it stands.
    Needs two values.
    """
    df = len(values) - 1
    return statistics.stdev(values) * math.sqrt(df / chi_squared_quantile(0.2, df))


def _beyond_target(mean: float, target: float, lower_is_better: bool) -> float:
    """Distance on the good side of the target; negative on the bad side."""
    return target - mean if lower_is_better else mean - target


def _normal_equivalent(t: float, df: int) -> float:
    """The z with the same upper tail as t, kept finite."""
    return -normal_quantile(min(max(t_upper_tail(t, df), SMALLEST_P), 1 - 1e-16))


def _verdict(z: float, look: int | None, plan: SequentialPlan) -> Literal["valid", "not valid", "undecided"]:
    if look is None:
        return "undecided"
    if z >= plan.bound:
        return "valid"
    if look == plan.looks[-1] or z < plan.futility[plan.looks.index(look)]:
        return "not valid"
    return "undecided"


def _method(runs: int, look: int | None, plan: SequentialPlan, guard: float | None) -> str:
    looks = ", ".join(str(n) for n in plan.looks)
    test = "one-sided z-test with pinned sigma"
    if guard is not None:
        test = f"one-sided t-test, stated as a z (spread beyond the pinned sigma, chi-squared p {guard:.2g})"
    if look is None:
        return f"{test}; looks at {looks} runs, none reached with {runs}"
    return f"{test}; look at {look} of {looks} runs, {runs} done"
