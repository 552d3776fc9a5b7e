"""The whole contract between the frozen trainer and an entry, on one screen.

An entry overrides any of five *slots*. Each slot is one Python file in the submission's folder, holding
one function of the name below. A slot that is absent falls back to the baseline's function of that name.

    slot        file            function
    config      config.py       configure(config)                             -> TrainConfig
    model       model.py        build_model(config, ops)                      -> Model
    optimizer   optimizer.py    build_optimizer(model, config, ops, world)    -> Optimizer
    schedule    schedule.py     schedule(step, config)                        -> StepPlan
    kernels     kernels.py      replace_ops(ops, config)                      -> Ops

Everything else (rows, loop, clock, checkpoint, evaluation) is fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from baseline.config import TrainConfig

Slot = Literal["config", "model", "optimizer", "schedule", "kernels"]

SLOT_FUNCTIONS: dict[Slot, tuple[str, tuple[str, ...]]] = {
    "config": ("configure", ("config",)),
    "model": ("build_model", ("config", "ops")),
    "optimizer": ("build_optimizer", ("model", "config", "ops", "world")),
    "schedule": ("schedule", ("step", "config")),
    "kernels": ("replace_ops", ("ops", "config")),
}
"""Slot -> (function name, parameter names in order)."""

Role = Literal["matrix", "lm_head", "embedding", "value_embedding", "resid_scale", "x0_scale", "gate"]
"""What a parameter is for; the optimizer picks algorithm and learning rate by it."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among the training processes. `size == 1` takes the same code path, without communication."""

    rank: int
    size: int
    device: torch.device


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What the schedule decides for one optimizer step (0-based)."""

    learning_rate: float
    """Multiplier on every group's learning rate."""
    momentum: float
    """Muon's momentum, absolute."""
    weight_decay: float
    """Multiplier on Muon's weight decay."""
    batch_rows: int
    """Rows of T+1 tokens in this step's global batch, over all ranks and micro-steps."""


@dataclass(frozen=True, slots=True)
class Ops:
    """The operations that a kernel may replace. Shapes: B rows, T tokens, H heads, D head dimension, C width, V padded vocabulary."""

    rms_norm: Callable[[Tensor], Tensor]
    """(..., C) -> (..., C), no learnable scale."""
    linear: Callable[[Tensor, Tensor], Tensor]
    """x (..., K), weight (N, K) -> (..., N); the weight is cast to x's dtype."""
    relu_squared_mlp: Callable[[Tensor, Tensor, Tensor], Tensor]
    """x (..., C), up (F, C), down (C, F) -> (..., C): down · relu(up · x)²."""
    attention: Callable[[Tensor, Tensor, Tensor, int], Tensor]
    """q (B, T, H, D), k and v (B, T, Hkv, D), window -> (B, T, H, D).

    Causal: a query sees itself and `window` tokens before it; -1 sees all.
    """
    cross_entropy: Callable[[Tensor, Tensor, Tensor, int, float], Tensor]
    """hidden (N, C), lm_head weight (V, C), targets (N,) int64, vocab size, softcap (0 = none) -> mean loss in nats, float32 scalar."""
    orthogonalize: Callable[[Tensor], Tensor]
    """(K, m, n) stack -> nearest semi-orthogonal matrices, approximately (Muon's polar factor)."""


class Model(Protocol):
    """An `nn.Module` with these members. Its `state_dict` is what is saved and scored.

    Two further keyword arguments of `forward` are optional, and used where the model takes them: `cache` (generation reads each token
    once) and `wanted`, a bool (B, T) (scoring computes the logits of those positions only). `baseline.model.GPT.forward` has both.
    """

    def __call__(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """tokens (B, T) int64. With targets (B, T): the mean loss in nats, a float32 scalar. Without: logits (B, T, vocab_size) float32."""
        ...

    def init_weights(self, generator: torch.Generator) -> None:
        """Write every parameter and buffer from this generator alone. Called on the target device."""
        ...

    def roles(self) -> Mapping[Role, list[nn.Parameter]]:
        """Every trainable parameter under exactly one role."""
        ...

    def flops_per_token(self) -> float:
        """Training FLOPs per token, forward and backward."""
        ...

    def parameters(self) -> Iterable[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Tensor]: ...


class Optimizer(Protocol):
    """Owns the communication: gradients arrive local to the rank, parameters leave equal on all ranks."""

    def step(self, plan: StepPlan) -> None: ...
    def zero_grad(self) -> None: ...
    def state_dict(self) -> dict[str, Any]:
        """The full state gathered from all ranks (collective), independent of the world size."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


ConfigureFn = Callable[[TrainConfig], TrainConfig]
BuildModelFn = Callable[[TrainConfig, Ops], nn.Module]
BuildOptimizerFn = Callable[[nn.Module, TrainConfig, Ops, World], Optimizer]
ScheduleFn = Callable[[int, TrainConfig], StepPlan]
ReplaceOpsFn = Callable[[Ops, TrainConfig], Ops]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A submission composed with the baseline: what one run trains."""

    config: TrainConfig
    ops: Ops
    build_model: BuildModelFn
    build_optimizer: BuildOptimizerFn
    schedule: ScheduleFn
    overridden: tuple[Slot, ...]
