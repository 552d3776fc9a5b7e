"""How often the decision procedures err, and how often they succeed, by simulation with a fixed seed.

Each rate is compared within about four standard errors of its simulated value.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from harness.statistics import (
    PairedPlan,
    SequentialPlan,
    detectable_ratio,
    equivalence,
    judge_ratios,
    judge_target,
    pinned_sigma,
    prospects,
)

PLAN = SequentialPlan(looks=(3, 5, 10), bound=2.645, futility=(-0.5, 0.25), guard_p=0.01)
PAIRED = PairedPlan(looks=(3, 5, 10), level=0.9593)
LAST = PLAN.looks[-1]

Draws = NDArray[np.float64]


def z_at_looks(draws: Draws) -> Draws:
    """draws (LAST, N) of scores in sigmas beyond the target -> z (looks, N)."""
    return np.stack([draws[:look].sum(axis=0) / math.sqrt(look) for look in PLAN.looks])


def accepted_and_runs(z: Draws, plan: SequentialPlan) -> tuple[float, float]:
    """Rate of `valid`, and mean number of runs, of those who stop at the first look that decides."""
    going = np.ones(z.shape[1], dtype=bool)
    accepted, runs, before = np.zeros(z.shape[1], dtype=bool), np.zeros(z.shape[1]), 0
    for row, look, futility in zip(z, plan.looks, (*plan.futility, plan.bound), strict=True):
        runs += going * (look - before)
        accepted |= going & (row >= plan.bound)
        going &= (row < plan.bound) & (row >= futility)
        before = look
    return float(accepted.mean()), float(runs.mean())


def high_ends(logs: Draws, level: float) -> Draws:
    """logs (n, N) of time ratios -> upper ends (N,) of their t intervals, on the log scale."""
    n = len(logs)
    return np.asarray(logs.mean(axis=0) + stats.t.ppf((1 + level) / 2, n - 1) * logs.std(axis=0, ddof=1) / math.sqrt(n))


# ---------------------------------------------------------------------- validity


def test_an_entry_at_the_target_is_called_valid_once_in_a_hundred() -> None:
    z = z_at_looks(np.random.default_rng(1).standard_normal((LAST, 1_000_000)))
    assert (z >= PLAN.bound).any(axis=0).mean() == pytest.approx(0.0100, abs=0.0004), "also if nobody ever stops for futility"
    rate, runs = accepted_and_runs(z, PLAN)
    assert rate == pytest.approx(0.0099, abs=0.0004)
    assert runs == pytest.approx(6.25, abs=0.02)


@pytest.mark.parametrize("margin_in_sigmas", [0.0, 0.5, 1.07, 1.43, 2.23])
def test_prospects_agree_with_simulation(margin_in_sigmas: float) -> None:
    draws = np.random.default_rng(2).standard_normal((LAST, 200_000)) + margin_in_sigmas
    rate, runs = accepted_and_runs(z_at_looks(draws), PLAN)
    computed = prospects(margin_in_sigmas, 1.0, PLAN)
    assert computed.accepted_by[-1] == pytest.approx(rate, abs=0.005)
    assert computed.mean_runs == pytest.approx(runs, abs=0.03)


def test_looking_after_every_run_with_the_single_look_bound_would_err_three_times_as_often() -> None:
    draws = np.random.default_rng(3).standard_normal((LAST, 200_000))
    z = np.cumsum(draws, axis=0) / np.sqrt(np.arange(1, LAST + 1))[:, None]
    assert (z[2:] >= 2.326).any(axis=0).mean() > 0.03


def judged_valid(true_sigma: float, series: int, seed: int) -> float:
    """Rate of `valid` by `judge_target` itself, for entries at the target whose true sigma is given in pinned sigmas."""
    rng = np.random.default_rng(seed)
    accepted = 0
    for _ in range(series):
        values = (true_sigma * rng.standard_normal(LAST)).tolist()
        verdicts = {judge_target(values[:n], target=0.0, sigma=1.0, lower_is_better=True, plan=PLAN).verdict for n in PLAN.looks}
        accepted += "valid" in verdicts
    return accepted / series


def test_the_spread_guard_does_not_raise_the_error_rate_where_sigma_is_right() -> None:
    assert judged_valid(1.0, 5_000, seed=4) == pytest.approx(0.0100, abs=0.0056)


def test_the_spread_guard_holds_the_error_rate_down_where_sigma_is_pinned_three_times_too_small() -> None:
    unguarded = (z_at_looks(3 * np.random.default_rng(5).standard_normal((LAST, 100_000))) >= PLAN.bound).any(axis=0).mean()
    assert unguarded > 0.25
    assert judged_valid(3.0, 2_000, seed=5) < 0.09


def test_the_pinned_sigma_covers_the_true_one_four_times_in_five() -> None:
    rng = np.random.default_rng(6)
    covered = [pinned_sigma(rng.standard_normal(8).tolist()) >= 1.0 for _ in range(8_000)]
    assert np.mean(covered) == pytest.approx(0.80, abs=0.018)


# ---------------------------------------------------------------------- superiority


def test_an_equally_fast_entry_is_called_better_one_time_in_twenty() -> None:
    logs = np.random.default_rng(7).standard_normal((LAST, 400_000))

    def false_better(level: float) -> float:
        return float(np.stack([high_ends(logs[:look], level) < 0 for look in PAIRED.looks]).any(axis=0).mean())

    assert false_better(PAIRED.level) == pytest.approx(0.0500, abs=0.0014)
    assert false_better(0.95) == pytest.approx(0.0602, abs=0.0015), "95 % intervals at each look would err more often than 5 %"


def test_judge_ratios_draws_the_interval_that_was_simulated() -> None:
    rng = np.random.default_rng(8)
    for pairs in PAIRED.looks:
        logs = rng.normal(-0.01, 0.02, pairs)
        test = judge_ratios(np.exp(logs).tolist(), plan=PAIRED, final=True)
        assert math.log(test.high) == pytest.approx(float(high_ends(logs[:, None], PAIRED.level)[0]))


def test_the_interval_covers_the_true_ratio_at_its_level_at_each_look() -> None:
    logs = np.random.default_rng(9).standard_normal((LAST, 200_000))
    for look in PAIRED.looks:
        below = high_ends(logs[:look], PAIRED.level) < 0
        above = high_ends(-logs[:look], PAIRED.level) < 0
        assert 1 - below.mean() - above.mean() == pytest.approx(PAIRED.level, abs=0.002)


@pytest.mark.parametrize("pairs", [2, 3, 5, 10])
def test_a_detectable_ratio_is_shown_four_times_in_five(pairs: int) -> None:
    ratio = detectable_ratio(0.01, pairs, level=PAIRED.level)
    assert ratio is not None
    logs = np.random.default_rng(10).normal(math.log(ratio), 0.01, (pairs, 200_000))
    assert (high_ends(logs, PAIRED.level) < 0).mean() == pytest.approx(0.80, abs=0.005)


def test_a_gain_of_one_standard_deviation_of_a_pair_is_found_four_times_in_five() -> None:
    logs = np.random.default_rng(13).standard_normal((LAST, 200_000)) - 1.0
    assert np.stack([high_ends(logs[:look], PAIRED.level) < 0 for look in PAIRED.looks]).any(axis=0).mean() == pytest.approx(
        0.80, abs=0.005
    )


# ---------------------------------------------------------------------- verification


@pytest.mark.parametrize("gain", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("claimed_pairs", [3, 10])
def test_an_honest_claim_is_refuted_about_once_in_a_hundred_at_most(gain: float, claimed_pairs: int) -> None:
    """Published only if better, so claims are the lucky ones; refuted if not better again and slower than all that was claimed."""
    rng = np.random.default_rng(14)
    claimed_high = high_ends(rng.standard_normal((claimed_pairs, 200_000)) - gain, PAIRED.level)
    for fresh_pairs in PAIRED.looks:
        fresh = rng.standard_normal((fresh_pairs, 200_000)) - gain
        refuted = (high_ends(fresh, PAIRED.level) >= 0) & (-high_ends(-fresh, PAIRED.level) > claimed_high)
        assert refuted[claimed_high < 0].mean() < 0.0125


def test_a_large_claim_without_any_gain_is_refuted() -> None:
    rng = np.random.default_rng(15)
    claimed_high = high_ends(rng.standard_normal((5, 200_000)) - 5.0, PAIRED.level)
    fresh = rng.standard_normal((5, 200_000))
    refuted = (high_ends(fresh, PAIRED.level) >= 0) & (-high_ends(-fresh, PAIRED.level) > claimed_high)
    assert refuted.mean() > 0.95


# ---------------------------------------------------------------------- equivalence


def test_a_difference_at_the_margin_is_called_equivalent_at_most_one_time_in_twenty() -> None:
    rng = np.random.default_rng(11)
    called = [equivalence(rng.normal(0.002, 0.0003, 5).tolist(), margin=0.002).equivalent for _ in range(8_000)]
    assert np.mean(called) == pytest.approx(0.05, abs=0.01)


def test_no_difference_is_called_equivalent_when_the_margin_is_wide() -> None:
    rng = np.random.default_rng(12)
    called = [equivalence(rng.normal(0.0, 0.0003, 5).tolist(), margin=0.002).equivalent for _ in range(1_000)]
    assert np.mean(called) > 0.99
