"""What each step uses: learning rate, momentum, weight decay and batch, as closed formulas of the step and the horizon.

Steps are 0-based; N is `config.num_steps`. Both warmdowns share one window, the last round(warmdown_fraction · N) steps.
"""

from __future__ import annotations

import math

from baseline.config import TrainConfig
from baseline.contract import StepPlan


def schedule(step: int, config: TrainConfig) -> StepPlan:
    """The slot's function: the plan for one step, 0 ≤ step < N."""
    return StepPlan(
        learning_rate=learning_rate(step, config),
        momentum=momentum(step, config),
        weight_decay=weight_decay(step, config),
        batch_rows=config.batch_rows,
    )


def learning_rate(step: int, config: TrainConfig) -> float:
    """Multiplier: (step + 1) / warmup_steps, then 1, then linear over the warmdown from 1 to final_lr_fraction, reached at N.

    In a run so short that the warmup reaches into the warmdown, the warmup goes first.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    return _between(1.0, config.final_lr_fraction, warmdown_progress(step, config))


def momentum(step: int, config: TrainConfig) -> float:
    """Muon's μ: linear from momentum_start to momentum_peak over momentum_warmup_steps, then linear to momentum_end over the warmdown.

    The warmup goes first here too: a run shorter than it never leaves it.
    """
    if step < config.momentum_warmup_steps:
        return _between(config.momentum_start, config.momentum_peak, step / config.momentum_warmup_steps)
    return _between(config.momentum_peak, config.momentum_end, warmdown_progress(step, config))


def weight_decay(step: int, config: TrainConfig) -> float:
    """Multiplier on Muon's weight decay: ½ (1 + cos(π · step / N)), from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * step / config.num_steps))


def warmdown_progress(step: int, config: TrainConfig) -> float:
    """0 before the warmdown; in it, the finished share: (step − (N − W)) / W with W = round(warmdown_fraction · N)."""
    window = round(config.warmdown_fraction * config.num_steps)
    finished = step - (config.num_steps - window)
    return finished / window if finished > 0 else 0.0


def _between(first: float, last: float, share: float) -> float:
    return (1 - share) * first + share * last
