"""What the decision procedures say of given numbers. How often they are right is in test_statistics_monte_carlo.py."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.ruleset import Ruleset
from harness.statistics import (
    Interval,
    PairedPlan,
    RankRange,
    SequentialPlan,
    detectable_ratio,
    equivalence,
    fixed_test,
    judge_ratios,
    judge_target,
    look_after,
    look_at,
    pairs_needed,
    pinned_sigma,
    prospects,
    rank_ranges,
    spread_p,
)

TARGET_CORE = 0.256525
SIGMA_CORE = 0.0056
PLAN = SequentialPlan(looks=(3, 5, 10), bound=2.645, futility=(-0.5, 0.25), guard_p=0.01)
PAIRED = PairedPlan(looks=(3, 5, 10), level=0.9593)
RUN_4 = [0.25373, 0.2584, 0.25489, 0.2568, 0.25732, 0.26765, 0.25119]
"""CORE of the seven runs behind nanochat's Run 4 (its dev/LEADERBOARD.md)."""
NANO_TABLE = {
    "id": "nano-1",
    "looks": [3, 5, 10],
    "validity_alpha": 0.01,
    "validity_bound": 2.645,
    "validity_futility": [-0.5, 0.25],
    "spread_guard_p": 0.01,
    "superiority_alpha": 0.05,
    "superiority_level": 0.9593,
}


def core_verdict(values: list[float]) -> str:
    return judge_target(values, target=TARGET_CORE, sigma=SIGMA_CORE, lower_is_better=False, plan=PLAN).verdict


# ---------------------------------------------------------------------- looks


def test_a_look_is_reached_at_its_number_of_runs_and_lasts_until_the_next() -> None:
    assert [look_at(PLAN.looks, n) for n in (0, 2, 3, 4, 5, 9, 10, 11)] == [None, None, 3, 3, 5, 5, 10, 10]
    assert [look_after(PLAN.looks, n) for n in (0, 3, 4, 9, 10)] == [3, 5, 5, 10, None]


# ---------------------------------------------------------------------- validity


@pytest.mark.parametrize(("runs", "mean"), [(3, 0.26508), (5, 0.26315), (10, 0.26121)])
def test_the_bound_of_each_look_lies_at_the_mean_that_was_published_for_it(runs: int, mean: float) -> None:
    assert core_verdict([mean] * runs) == "valid"
    assert core_verdict([mean - 2e-5] * runs) != "valid"


def test_nothing_is_decided_before_the_first_look() -> None:
    assert core_verdict([0.9, 0.9]) == "undecided"


def test_between_two_looks_the_verdict_rests_on_the_runs_up_to_the_last_look() -> None:
    test = judge_target([0.271, 0.260, 0.267, 0.1], target=TARGET_CORE, sigma=SIGMA_CORE, lower_is_better=False, plan=PLAN)
    assert (test.verdict, test.runs) == ("valid", 3)
    assert test.mean == pytest.approx(0.266)


def test_a_look_between_futility_and_bound_asks_for_more_runs_until_the_last_look() -> None:
    assert core_verdict([0.2575] * 3) == "undecided"
    assert core_verdict([0.2575] * 5) == "undecided"
    assert core_verdict([0.2575] * 10) == "not valid"


@pytest.mark.parametrize(("runs", "futility"), [(3, -0.5), (5, 0.25)])
def test_below_the_futility_value_a_look_says_not_valid(runs: int, futility: float) -> None:
    at = TARGET_CORE + futility * SIGMA_CORE / math.sqrt(runs)
    assert core_verdict([at - 1e-6] * runs) == "not valid"
    assert core_verdict([at + 1e-6] * runs) == "undecided"


def test_z_p_and_method_state_what_was_computed() -> None:
    test = judge_target([1.97, 1.98, 1.99], target=2.0, sigma=0.01, lower_is_better=True, plan=PLAN)
    assert test.z == pytest.approx(2 * math.sqrt(3))
    assert test.p_value == pytest.approx(0.000266, rel=0.01)
    assert test.method == "one-sided z-test with pinned sigma; look at 3 of 3, 5, 10 runs, 3 done"


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12), st.floats(0.01, 2))
def test_lower_is_better_mirrors_higher_is_better(values: list[float], sigma: float) -> None:
    higher = judge_target(values, target=0.3, sigma=sigma, lower_is_better=False, plan=PLAN)
    lower = judge_target([-v for v in values], target=-0.3, sigma=sigma, lower_is_better=True, plan=PLAN)
    assert lower.verdict == higher.verdict
    assert lower.z == pytest.approx(higher.z)


@given(st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=10), st.floats(0, 1))
def test_better_scores_never_lower_z(values: list[float], gain: float) -> None:
    def z(scores: list[float]) -> float:
        return judge_target(scores, target=0.0, sigma=0.3, lower_is_better=False, plan=PLAN).z

    assert z([v + gain for v in values]) >= z(values) - 1e-9


def test_a_spread_that_the_pinned_sigma_cannot_explain_falls_back_to_the_t_test() -> None:
    values = [0.26, 0.30, 0.34]
    test = judge_target(values, target=TARGET_CORE, sigma=SIGMA_CORE, lower_is_better=False, plan=PLAN)
    assert test.verdict == "undecided", "a z-test with the pinned sigma would have z = 13"
    assert test.sigma == pytest.approx(0.04)
    assert test.p_value == pytest.approx(0.1002, abs=1e-4), "scipy.stats.ttest_1samp(values, 0.256525, alternative='greater')"
    assert "t-test" in test.method


def test_the_spread_check_is_the_upper_chi_squared_tail() -> None:
    assert spread_p([0.0, 1.0, 2.0], sigma=1.0) == pytest.approx(math.exp(-1.0)), "chi-squared with 2 degrees of freedom has tail exp(-x/2)"


def test_the_pinned_sigma_is_the_upper_80_percent_bound() -> None:
    assert pinned_sigma([0.0, 1.0, 2.0]) == pytest.approx(math.sqrt(2 / (-2 * math.log(0.8))))


def test_judging_nothing_or_with_a_sigma_of_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        core_verdict([])
    with pytest.raises(ValueError, match="positive sigma"):
        judge_target([1.0], target=0, sigma=0, lower_is_better=False, plan=PLAN)


# ---------------------------------------------------------------------- the published records


def test_nanochat_run_4_is_not_established_by_its_seven_runs() -> None:
    fixed = fixed_test(sum(RUN_4) / 7, 7, target=TARGET_CORE, sigma=SIGMA_CORE, lower_is_better=False)
    assert not fixed.established
    assert fixed.p_value == pytest.approx(0.386, abs=0.001)
    assert core_verdict(RUN_4[:3]) == "undecided"
    assert core_verdict(RUN_4) == "not valid", "its first five have a mean below the target"


@pytest.mark.parametrize(("mean", "z"), [(0.2690, 4.98), (0.262634, 2.44)])
def test_nanochat_runs_5_and_6_are_established_by_their_five_runs(mean: float, z: float) -> None:
    fixed = fixed_test(mean, 5, target=TARGET_CORE, sigma=SIGMA_CORE, lower_is_better=False)
    assert fixed.established
    assert fixed.z == pytest.approx(z, abs=0.005)


def test_the_fixed_form_asks_for_mean_excess_times_root_n_of_0_01303() -> None:
    for runs in (1, 4, 9):
        mean = TARGET_CORE + 0.01303 / math.sqrt(runs)
        assert fixed_test(mean + 1e-6, runs, target=TARGET_CORE, sigma=SIGMA_CORE, lower_is_better=False).established
        assert not fixed_test(mean - 1e-5, runs, target=TARGET_CORE, sigma=SIGMA_CORE, lower_is_better=False).established


# ---------------------------------------------------------------------- superiority


def test_an_interval_below_one_is_better() -> None:
    test = judge_ratios([0.950, 0.951, 0.949], plan=PAIRED, final=False)
    assert test.verdict == "better"
    assert test.low < test.ratio < test.high < 1


def test_a_copy_of_the_baseline_is_not_better_once_its_runs_are_complete() -> None:
    ratios = [0.99, 1.012, 0.998]
    assert judge_ratios(ratios, plan=PAIRED, final=True).verdict == "not better"
    assert judge_ratios(ratios, plan=PAIRED, final=False).verdict == "undecided"


def test_an_interval_above_one_is_not_better_at_once() -> None:
    assert judge_ratios([1.05, 1.051, 1.049], plan=PAIRED, final=False).verdict == "not better"


def test_an_interval_across_one_is_not_better_at_the_last_look() -> None:
    assert judge_ratios([0.99, 1.01] * 5, plan=PAIRED, final=False).verdict == "not better"


def test_two_pairs_are_never_better_however_close_they_agree() -> None:
    assert judge_ratios([0.5, 0.5001], plan=PAIRED, final=False).verdict == "undecided"
    assert judge_ratios([0.5, 0.5001], plan=PAIRED, final=True).verdict == "not better"


def test_a_fourth_pair_waits_for_the_look_at_five() -> None:
    three, four = (judge_ratios(r, plan=PAIRED, final=False) for r in ([0.95, 0.96, 0.97], [0.95, 0.96, 0.97, 3.0]))
    assert three == four


def test_the_ratio_is_the_geometric_mean() -> None:
    assert judge_ratios([0.5, 1.0, 2.0], plan=PAIRED, final=True).ratio == pytest.approx(1.0)


@given(st.lists(st.floats(0.5, 2), min_size=3, max_size=3))
def test_swapping_entry_and_reference_inverts_the_interval(ratios: list[float]) -> None:
    forth = judge_ratios(ratios, plan=PAIRED, final=True)
    back = judge_ratios([1 / r for r in ratios], plan=PAIRED, final=True)
    assert back.low == pytest.approx(1 / forth.high)
    assert back.high == pytest.approx(1 / forth.low)


def test_fewer_than_two_ratios_or_a_ratio_of_zero_is_an_error() -> None:
    for ratios in ([0.9], [0.9, 0.0]):
        with pytest.raises(ValueError, match="at least two positive ratios"):
            judge_ratios(ratios, plan=PAIRED, final=True)


def test_more_pairs_and_less_spread_detect_smaller_gains() -> None:
    reach = [detectable_ratio(0.0016, n, level=PAIRED.level) or 0.0 for n in (2, 3, 5, 10)]
    assert reach == sorted(reach)
    assert reach[1] == pytest.approx(0.9942, abs=1e-4)
    assert (detectable_ratio(0.01, 5, level=PAIRED.level) or 0) < reach[2]
    assert detectable_ratio(0.0, 3, level=PAIRED.level) == 1.0
    assert detectable_ratio(0.01, 1, level=PAIRED.level) is None


def test_pairs_needed_is_the_first_look_that_reaches_the_ratio() -> None:
    assert [pairs_needed(ratio, 0.0016, PAIRED) for ratio in (0.99, 0.996, 0.998, 0.9999)] == [3, 5, 10, None]


# ---------------------------------------------------------------------- planning


def test_prospects_give_the_published_operating_characteristics() -> None:
    at_006, at_008, at_0125 = (prospects(margin, SIGMA_CORE, PLAN) for margin in (0.006, 0.008, 0.0125))
    assert at_006.accepted_by[-1] == pytest.approx(0.79, abs=0.005)
    assert at_008.accepted_by[-1] == pytest.approx(0.97, abs=0.005)
    assert at_008.mean_runs == pytest.approx(5.5, abs=0.05)
    assert at_0125.mean_runs == pytest.approx(3.3, abs=0.05)


def test_runs_for_a_power_is_the_look_that_reaches_it() -> None:
    assert prospects(0.0125, SIGMA_CORE, PLAN).runs_for(0.8) == 3
    assert prospects(0.008, SIGMA_CORE, PLAN).runs_for(0.8) == 10
    assert prospects(0.002, SIGMA_CORE, PLAN).runs_for(0.8) is None


# ---------------------------------------------------------------------- equivalence and ranks


def test_small_differences_are_equivalent_and_scattered_ones_are_not_shown_to_be() -> None:
    assert equivalence([0.0001, -0.0002, 0.0001], margin=0.002).equivalent
    assert not equivalence([0.003, -0.004, 0.002], margin=0.002).equivalent
    assert not equivalence([0.0021, 0.0021, 0.0021], margin=0.002).equivalent
    assert equivalence([0.001, 0.001], margin=0.002).equivalent


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.floats(0.05, 1))
def test_equivalent_means_that_the_interval_lies_within_the_margin(differences: list[float], margin: float) -> None:
    test = equivalence(differences, margin=margin)
    within = -margin < test.low and test.high < margin
    near_the_margin = math.isclose(max(-test.low, test.high), margin, rel_tol=1e-6)
    assert near_the_margin or test.equivalent == within


def test_equivalence_needs_two_differences_and_a_margin() -> None:
    for differences, margin in (([0.1], 1.0), ([0.1, 0.2], 0.0)):
        with pytest.raises(ValueError, match="at least two differences"):
            equivalence(differences, margin=margin)


def test_entries_with_overlapping_intervals_share_a_range_of_ranks() -> None:
    first, tied, also_tied, last = Interval(0.80, 0.82), Interval(0.90, 0.94), Interval(0.93, 0.97), Interval(0.99, 1.01)
    assert rank_ranges([last, tied, first, also_tied]) == [RankRange(4, 4), RankRange(2, 3), RankRange(1, 1), RankRange(2, 3)]


@given(st.lists(st.tuples(st.floats(0.5, 2), st.floats(0, 0.5)), min_size=1, max_size=8))
def test_every_rank_is_possible_for_somebody(table: list[tuple[float, float]]) -> None:
    ranges = rank_ranges([Interval(low, low + width) for low, width in table])
    for rank in range(1, len(table) + 1):
        assert any(r.first <= rank <= r.last for r in ranges)
    assert all(1 <= r.first <= r.last <= len(table) for r in ranges)


# ---------------------------------------------------------------------- the ruleset


def test_a_ruleset_table_gives_the_two_plans() -> None:
    ruleset = Ruleset.model_validate(NANO_TABLE)
    assert ruleset.target_plan == PLAN
    assert ruleset.ratio_plan == PAIRED
    assert ruleset.guard_delta_bpb is None


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("looks", [3, 3, 10], "must ascend"),
        ("looks", [1, 5, 10], "greater than or equal to 2"),
        ("validity_futility", [-0.5], "one value for each look but the last"),
        ("validity_futility", [-0.5, 3.0], "below validity_bound"),
        ("validity_bound", 2.326, "passes 0.02"),
        ("superiority_level", 0.89, "at least 0.9"),
        ("validity_alpha", 0.0, "greater than 0"),
        ("sigma", 1.0, "not permitted"),
    ],
)
def test_a_ruleset_that_would_not_hold_its_own_error_rate_is_refused(field: str, value: object, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Ruleset.model_validate({**NANO_TABLE, field: value})
