"""The schedule: golden values of the speedrun's horizon, and what holds for every horizon."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseline.config import Dial, TrainConfig
from baseline.contract import StepPlan
from baseline.schedule import schedule

TINY = Dial(vocab_size=90, sequence_len=64, tokens_per_parameter=1, aspect_ratio=16, head_dim=16)


def config_of(num_steps: int, **changes: float) -> TrainConfig:
    return TrainConfig.from_depth(4, TINY, num_steps=num_steps, **changes)


ROUNDING = 1e-12
"""Interpolating between almost equal values may miss them by some units in the last place."""


def rises(values: list[float]) -> bool:
    return all(later >= earlier - ROUNDING for earlier, later in pairwise(values))


def falls(values: list[float]) -> bool:
    return rises(values[::-1])


def plans(config: TrainConfig) -> list[StepPlan]:
    return [schedule(step, config) for step in range(config.num_steps)]


@pytest.mark.parametrize(
    ("step", "learning_rate", "momentum", "weight_decay"),
    [
        (0, 1 / 40, 0.85, 1.0),
        (39, 1.0, 0.85 + 0.12 * 39 / 400, 0.5 * (1 + math.cos(math.pi * 39 / 5568))),
        (400, 1.0, 0.97, 0.5 * (1 + math.cos(math.pi * 400 / 5568))),
        (1949, 1.0, 0.97, 0.5 * (1 + math.cos(math.pi * 1949 / 5568))),
        (2784, 1 - 0.95 * 835 / 3619, 0.97 - 0.07 * 835 / 3619, 0.5),
        (5567, 0.05 + 0.95 / 3619, 0.90 + 0.07 / 3619, 0.5 * (1 + math.cos(math.pi * 5567 / 5568))),
    ],
)
def test_depth_24_at_8_tokens_per_parameter(step: int, learning_rate: float, momentum: float, weight_decay: float) -> None:
    """5,568 steps: warmup to 39, warmdown over the last round(0.65 · 5568) = 3,619."""
    plan = schedule(step, config_of(5568))
    assert plan.learning_rate == pytest.approx(learning_rate, rel=1e-12)
    assert plan.momentum == pytest.approx(momentum, rel=1e-12)
    assert plan.weight_decay == pytest.approx(weight_decay, rel=1e-9)


def test_a_run_of_200_steps_never_leaves_the_momentum_warmup() -> None:
    every = plans(config_of(200))
    assert [plan.momentum for plan in every] == pytest.approx([0.85 + 0.12 * step / 400 for step in range(200)])
    assert every[69].learning_rate == 1.0
    assert every[71].learning_rate == pytest.approx(1 - 0.95 / 130)


def test_the_learning_rate_warmup_goes_before_the_warmdown() -> None:
    every = plans(config_of(50))
    assert [plan.learning_rate for plan in every[:40]] == pytest.approx([(step + 1) / 40 for step in range(40)])
    assert every[40].learning_rate == pytest.approx(1 - 0.95 * 22 / 32)


def test_the_warmdown_window_is_rounded_to_whole_steps() -> None:
    """0.65 · 4 = 2.6 is three steps, the last of which ends at the final rate."""
    rates = [plan.learning_rate for plan in plans(config_of(4, warmup_steps=0))]
    assert rates == pytest.approx([1.0, 1.0, 1 - 0.95 / 3, 1 - 0.95 * 2 / 3])


def test_every_window_can_be_empty() -> None:
    config = config_of(10, warmup_steps=0, momentum_warmup_steps=0, warmdown_fraction=0.0)
    assert {(plan.learning_rate, plan.momentum) for plan in plans(config)} == {(1.0, config.momentum_peak)}


def test_the_batch_is_the_configs() -> None:
    config = config_of(10)
    assert {plan.batch_rows for plan in plans(config)} == {config.batch_rows}


@given(num_steps=st.integers(1, 400), warmup=st.integers(0, 60), fraction=st.floats(0, 1), final=st.floats(0, 1))
def test_the_learning_rate_rises_then_falls_within_its_bounds(num_steps: int, warmup: int, fraction: float, final: float) -> None:
    config = config_of(num_steps, warmup_steps=warmup, warmdown_fraction=fraction, final_lr_fraction=final)
    rates = [plan.learning_rate for plan in plans(config)]
    rising, falling = rates[:warmup], rates[warmup:]
    assert rises(rising)
    assert falls(falling)
    assert all(0 < rate <= 1 for rate in rising)
    assert all(final - ROUNDING <= rate <= 1 + ROUNDING for rate in falling)


@given(num_steps=st.integers(1, 400), warmup=st.integers(0, 100), fraction=st.floats(0, 1))
def test_momentum_rises_then_falls_within_its_bounds(num_steps: int, warmup: int, fraction: float) -> None:
    config = config_of(num_steps, momentum_warmup_steps=warmup, warmdown_fraction=fraction)
    values = [plan.momentum for plan in plans(config)]
    rising, falling = values[:warmup], values[warmup:]
    assert rises(rising)
    assert falls(falling)
    assert all(0.85 - ROUNDING <= value <= 0.97 + ROUNDING for value in values)


@given(num_steps=st.integers(1, 400))
def test_weight_decay_falls_from_one_towards_zero(num_steps: int) -> None:
    values = [plan.weight_decay for plan in plans(config_of(num_steps))]
    assert values[0] == 1.0
    assert falls(values)
    assert values[-1] < 3 / num_steps**2 + (num_steps == 1)
