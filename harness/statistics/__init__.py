"""Decisions from noisy runs: pure functions of numbers, without files, clocks or records.

    validity        does a set of scores reach the target? (group-sequential z-test, pinned sigma)
    superiority     is one program faster than another? (interval on paired time ratios)
    equivalence     are two programs the same within a margin? (two one-sided t-tests)
    planning        how many runs would show an effect of a given size?
    looks           when may a verdict be drawn?
    ranking         which ranks are consistent with a table of intervals?
    distributions   the handful of quantiles that these need

A verdict is drawn only at a *look*, a number of runs fixed by the ruleset beforehand: whoever tests after
every run and stops when it suits accepts far more often than the level says. Between two looks the verdict
is that of the last look.
"""

from harness.statistics.equivalence import Equivalence, equivalence
from harness.statistics.looks import Looks, look_after, look_at
from harness.statistics.planning import Prospect, pairs_needed, prospects
from harness.statistics.ranking import Interval, RankRange, rank_ranges
from harness.statistics.superiority import PairedPlan, RatioTest, detectable_ratio, judge_ratios, log_ratio_sd
from harness.statistics.validity import FixedTest, SequentialPlan, TargetTest, fixed_test, judge_target, pinned_sigma, spread_p

__all__ = [
    "Equivalence",
    "FixedTest",
    "Interval",
    "Looks",
    "PairedPlan",
    "Prospect",
    "RankRange",
    "RatioTest",
    "SequentialPlan",
    "TargetTest",
    "detectable_ratio",
    "equivalence",
    "fixed_test",
    "judge_ratios",
    "judge_target",
    "log_ratio_sd",
    "look_after",
    "look_at",
    "pairs_needed",
    "pinned_sigma",
    "prospects",
    "rank_ranges",
    "spread_p",
]
