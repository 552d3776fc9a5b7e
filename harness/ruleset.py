"""The numbers that decide: looks, bounds and levels of a track's verdicts, under an id that every verdict carries.

A track file holds them in its `[ruleset]` table; nothing here has a default, so a track file says all of it:

    [ruleset]
    id = "nano-1"
    looks = [3, 5, 10]                  # numbers of runs, or of pairs, at which a verdict may be drawn
    validity_alpha = 0.01               # chance of calling an entry valid whose true mean is just at the target
    validity_bound = 2.645              # z needed at each look
    validity_futility = [-0.5, 0.25]    # z below which a look but the last says `not valid`
    spread_guard_p = 0.01               # p at which too large a spread replaces the z-test by a t-test
    superiority_alpha = 0.05            # chance of calling an equally fast entry better
    superiority_level = 0.9593          # two-sided level of the interval at each look
    guard_delta_bpb = 0.002             # optional: worse than the reference by more than this is never `better`

For looks at 3, 5 and 10, the bound 2.645 gives 0.00999 (computed exactly, futility ignored), and the level 0.9593
gives 0.0500: the 5 % quantile of the smallest one-sided p over the looks, in 40 million simulated series, is 0.02035.
95 % intervals would give 0.060. The tests hold both figures by Monte Carlo.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from harness.statistics import PairedPlan, SequentialPlan, prospects

Probability = Annotated[float, Field(gt=0, lt=1)]
ALPHA_TOLERANCE = 1.01
"""A bound is accepted if its exact error rate is at most this multiple of `validity_alpha`: bounds are printed with few digits."""


class Ruleset(BaseModel):
    """One version of the rules of decision. Change a number, change the id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]
    looks: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]
    validity_alpha: Probability
    validity_bound: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    validity_futility: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    spread_guard_p: Probability
    superiority_alpha: Probability
    superiority_level: Probability
    guard_delta_bpb: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """None: the track has no guard, for instance because val bpb is its score."""

    @property
    def target_plan(self) -> SequentialPlan:
        """Looks and bounds of the validity test."""
        return SequentialPlan(looks=self.looks, bound=self.validity_bound, futility=self.validity_futility, guard_p=self.spread_guard_p)

    @property
    def ratio_plan(self) -> PairedPlan:
        """Looks and level of the superiority test."""
        return PairedPlan(looks=self.looks, level=self.superiority_level)

    @model_validator(mode="after")
    def _consistent(self) -> Ruleset:
        if any(later <= earlier for earlier, later in pairwise(self.looks)):
            raise ValueError(f"looks = {list(self.looks)} must ascend")
        if len(self.validity_futility) != len(self.looks) - 1:
            raise ValueError(f"validity_futility needs one value for each look but the last, {len(self.looks) - 1} in all")
        if any(value >= self.validity_bound for value in self.validity_futility):
            raise ValueError("validity_futility must lie below validity_bound")
        if self.superiority_level < 1 - 2 * self.superiority_alpha:
            raise ValueError(
                f"superiority_level must be at least {1 - 2 * self.superiority_alpha:g} for superiority_alpha {self.superiority_alpha:g}"
            )
        rate = self._false_validity_rate()
        if rate > ALPHA_TOLERANCE * self.validity_alpha:
            raise ValueError(
                f"validity_bound {self.validity_bound:g} passes {rate:.4f} of entries at the target; raise it, or validity_alpha"
            )
        return self

    def _false_validity_rate(self) -> float:
        """Chance that an entry exactly at the target is called valid at some look, if nobody stops for futility."""
        unstopped = replace(self.target_plan, futility=(-8.0,) * (len(self.looks) - 1))
        return prospects(0.0, 1.0, unstopped).accepted_by[-1]
