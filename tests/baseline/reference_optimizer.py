"""Muon and AdamW written down a second time, in float64, straight from their formulas: what the optimizer is compared with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from baseline.adamw import adamw_settings
from baseline.contract import StepPlan
from tests.baseline.odd_model import PARAMETERS, OddModel, config_of, crude_polar_factor


class Reference:
    """One parameter at a time, without any regard for speed."""

    def __init__(self, model: OddModel, **changes: Any) -> None:
        self.config = config_of(**changes)
        self.values = {name: value.double() for name, value in model.values().items()}
        self.memory: dict[str, dict[str, Tensor]] = {name: {} for name in self.values}
        self.steps = 0

    def step(self, gradients: dict[str, Tensor], plan: StepPlan) -> None:
        self.steps += 1
        for name, value in self.values.items():
            gradient = gradients[name].double()
            if PARAMETERS[name][0] == "matrix" and self.config.matrix_optimizer == "muon":
                for index, matrix in enumerate(value.view(-1, *value.shape[-2:])):
                    self.muon(f"{name}{index}", matrix, gradient.view(-1, *value.shape[-2:])[index], plan)
            else:
                self.adamw(name, value, gradient, plan)

    def adamw(self, name: str, p: Tensor, g: Tensor, plan: StepPlan) -> None:
        s, memory = adamw_settings(PARAMETERS[name][0], self.config), self.memory[name]
        lr = s.learning_rate * plan.learning_rate
        memory["m"] = s.beta1 * memory.get("m", torch.zeros_like(p)) + (1 - s.beta1) * g
        memory["v"] = s.beta2 * memory.get("v", torch.zeros_like(p)) + (1 - s.beta2) * g**2
        p -= lr * s.weight_decay * p
        p -= lr * memory["m"] / (1 - s.beta1**self.steps) / ((memory["v"] / (1 - s.beta2**self.steps)).sqrt() + 1e-10)

    def muon(self, name: str, p: Tensor, g: Tensor, plan: StepPlan) -> None:
        c, memory, mu = self.config, self.memory.setdefault(name, {}), plan.momentum
        m, n = p.shape
        memory["b"] = mu * memory.get("b", torch.zeros_like(p)) + (1 - mu) * g
        u = mu * memory["b"] + (1 - mu) * g
        if c.row_equilibration:
            u = u / u.norm(dim=1, keepdim=True) * u.norm() / math.sqrt(m)
        u = crude_polar_factor(u)
        if c.norm_restoration:
            u = u * math.sqrt(min(m, n)) / u.norm()
        if c.variance_reduction:
            mean_square = (u**2).mean(dim=1 if m >= n else 0, keepdim=True)
            memory["v"] = c.variance_beta * memory.get("v", torch.zeros_like(mean_square)) + (1 - c.variance_beta) * mean_square
            reduced = u / memory["v"].sqrt()
            u = reduced * u.norm() / reduced.norm()
        lr = c.matrix_lr * plan.learning_rate * math.sqrt(max(1, m / n))
        spared = (u * p < 0) & torch.tensor(c.cautious_weight_decay)
        p -= lr * u + lr * c.matrix_weight_decay * plan.weight_decay * p * ~spared
