"""A model without a forward pass whose parameters have inconvenient shapes, and gradients for it that any rank can draw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from baseline.config import Dial, TrainConfig
from baseline.contract import Ops, Role
from baseline.ops import baseline_ops

CPU = torch.device("cpu")
TINY = Dial(vocab_size=90, sequence_len=64, tokens_per_parameter=1, aspect_ratio=16, head_dim=16)

PARAMETERS: dict[str, tuple[Role, tuple[int, ...]]] = {
    "square_a": ("matrix", (8, 8)),
    "square_b": ("matrix", (8, 8)),
    "square_c": ("matrix", (8, 8)),
    "experts": ("matrix", (2, 8, 8)),
    "tall": ("matrix", (12, 5)),
    "wide": ("matrix", (5, 12)),
    "row": ("matrix", (1, 12)),
    "embedding": ("embedding", (7, 13)),
    "value_embedding": ("value_embedding", (9, 4)),
    "lm_head": ("lm_head", (11, 3)),
    "aligned_lm_head": ("lm_head", (16, 16)),
    "resid_scales": ("resid_scale", (5,)),
    "x0_scales": ("x0_scale", (5,)),
    "smear_scale": ("gate", (1,)),
    "smear_gate": ("gate", (1, 24)),
}


class OddModel(nn.Module):
    """Parameters named as in `PARAMETERS`, drawn from seed 0."""

    def __init__(self, shapes: dict[str, tuple[Role, tuple[int, ...]]] = PARAMETERS) -> None:
        super().__init__()
        self.shapes = shapes
        generator = torch.Generator().manual_seed(0)
        for name, (_, shape) in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=generator)))

    def roles(self) -> dict[Role, list[nn.Parameter]]:
        roles: dict[Role, list[nn.Parameter]] = {}
        for name, (role, _) in self.shapes.items():
            roles.setdefault(role, []).append(self.get_parameter(name))
        return roles

    def values(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.named_parameters()}


def config_of(**changes: Any) -> TrainConfig:
    """Rates and decays large enough that every part of the optimizer shows within a few steps."""
    rates: dict[str, Any] = {"value_embedding_lr": 0.2, "lm_head_lr": 0.1, "resid_scale_lr": 0.3, "matrix_weight_decay": 0.4}
    return TrainConfig.from_depth(4, TINY, **{**rates, **changes})


def crude_polar_factor(stack: Tensor) -> Tensor:
    """0.8 of the polar factor, by SVD in float64: exact enough to compare with, wrong enough that the norm has to be restored."""
    u, _, vh = torch.linalg.svd(stack.double(), full_matrices=False)
    factor: Tensor = 0.8 * u @ vh
    return factor.to(stack.dtype)


def ops_of(config: TrainConfig) -> Ops:
    return replace(baseline_ops(config, CPU), orthogonalize=crude_polar_factor)


def gradients_of(model: nn.Module, step: int) -> dict[str, Tensor]:
    """The global batch's mean gradient at a step."""
    generator = torch.Generator().manual_seed(100 + step)
    return {name: torch.randn(parameter.shape, generator=generator) for name, parameter in model.named_parameters()}


def set_gradients(model: nn.Module, step: int, rank: int = 0, size: int = 1) -> None:
    """Give a rank its share: no two ranks hold the same gradient, and their mean is `gradients_of`."""
    for name, gradient in gradients_of(model, step).items():
        offset = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(step))
        model.get_parameter(name).grad = gradient + offset * (rank - (size - 1) / 2)
