"""AdamW for everything that is not a matrix inside a block: embeddings, lm_head, scales and gates.

Settings per role are those tuned for nanochat; the learning rates come from `TrainConfig`, already scaled by batch and width.
Weight decay is decoupled (arXiv 1711.05101): applied to the weights before the update, never mixed into the moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from baseline.config import TrainConfig
from baseline.contract import Role, StepPlan

EPSILON = 1e-10
"""Added to the root of the second moment, in units of the gradient."""

MATRIX_LEARNING_RATE_FRACTION = 0.1
"""AdamW's learning rate for matrices as a fraction of Muon's. A Muon update of an n × n matrix has entries near n^-½, Adam's are
near 1; the fraction makes them alike at width 100."""


@dataclass(frozen=True, slots=True)
class AdamWSettings:
    """One role's hyper-parameters, before the schedule."""

    learning_rate: float
    beta1: float
    beta2: float
    weight_decay: float


def adamw_settings(role: Role, config: TrainConfig) -> AdamWSettings:
    """The settings of a role. "matrix" is asked for only when `config.matrix_optimizer` is "adamw"."""
    table: dict[Role, AdamWSettings] = {
        "lm_head": AdamWSettings(config.lm_head_lr, 0.8, 0.96, 0.01),
        "embedding": AdamWSettings(config.embedding_lr, 0.8, 0.995, 0.001),
        "value_embedding": AdamWSettings(config.value_embedding_lr, 0.8, 0.995, 0.01),
        "resid_scale": AdamWSettings(config.resid_scale_lr, 0.8, 0.95, 0.05),
        "x0_scale": AdamWSettings(config.x0_scale_lr, 0.96, 0.95, 0.0),
        "gate": AdamWSettings(config.gate_lr, 0.8, 0.95, 0.0),
        "matrix": AdamWSettings(config.matrix_lr * MATRIX_LEARNING_RATE_FRACTION, 0.9, 0.95, 0.0),
    }
    return table[role]


class AdamWScalars(NamedTuple):
    """What one step needs, as 0-D float32 CPU tensors: a compiled step then serves every step of the schedule."""

    mean_gain: Tensor
    """1 − β₁."""
    square_gain: Tensor
    """1 − β₂."""
    square_correction: Tensor
    """1 / (1 − β₂ᵗ)."""
    step_size: Tensor
    """lr / (1 − β₁ᵗ)."""
    keep: Tensor
    """1 − lr · wd."""


def adamw_scalars(settings: AdamWSettings, plan: StepPlan, step: int) -> AdamWScalars:
    """The scalars of one step, `step` counting from 1. Computed in float64, since 1 − β₂ᵗ would lose digits in float32."""
    learning_rate = settings.learning_rate * plan.learning_rate
    values = (
        1 - settings.beta1,
        1 - settings.beta2,
        1 / (1 - settings.beta2**step),
        learning_rate / (1 - settings.beta1**step),
        1 - learning_rate * settings.weight_decay,
    )
    return AdamWScalars(*map(torch.tensor, values))


def adamw_step(parameter: Tensor, gradient: Tensor, mean: Tensor, mean_square: Tensor, scalars: AdamWScalars) -> None:
    """One AdamW update in place, elementwise over tensors of one shape.

        m ← β₁ m + (1−β₁) g        v ← β₂ v + (1−β₂) g²
        p ← (1 − lr·wd) p − lr · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε)

    The moments are float32 and so is the arithmetic; a bfloat16 parameter is rounded once, when it is written.
    """
    gradient = gradient.float()
    mean.lerp_(gradient, scalars.mean_gain)
    mean_square.lerp_(gradient.square(), scalars.square_gain)
    root = (mean_square * scalars.square_correction).sqrt_().add_(EPSILON)
    update = (mean / root).mul_(scalars.step_size)
    parameter.copy_((parameter.float() * scalars.keep).sub_(update))
