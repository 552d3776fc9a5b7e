"""Muon for the matrices, AdamW for the rest, each rank updating its own shard: the baseline's optimizer.

Gradients arrive local to the rank. A step has three phases, and each runs over all buckets before the next waits for anything:

    1. start every bucket's reduce-scatter           communication begins
    2. bucket by bucket: wait for its gradients,     computing overlaps with the reductions still under way
       update the own shard, start its all-gather    and with the gathers already started
    3. bucket by bucket: wait, write back            parameters are equal on all ranks again

Optimizer state exists once over all ranks (ZeRO stage 2, arXiv 1910.02054). One rank takes the same path without communication.

To change a part, subclass `MuonAdamW` and override one of its methods; `build_optimizer` then returns the subclass.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from baseline.adamw import AdamWSettings, adamw_scalars, adamw_settings, adamw_step
from baseline.buckets import BUCKET_BYTES, fill_buckets
from baseline.config import TrainConfig
from baseline.contract import Ops, Role, StepPlan, World
from baseline.muon import apply_direction, direction, shape_scale, variance_shape
from baseline.roles import Parameters, RoleError, parameters_by_role
from baseline.shards import ShardedGroup, StateError

MAX_SPECIALISATIONS = 64
"""Compiled versions of one step function, one per shape and dtype of a group; torch's default of 8 is too few for a varied model."""


class MatrixGroup(ShardedGroup):
    """Matrices of one shape, updated by Muon as a stack. A parameter of more than two dimensions counts as a stack of matrices."""

    def __init__(self, parameters: Parameters, learning_rate: float, weight_decay: float, world: World) -> None:
        rows, columns = next(iter(parameters.values())).shape[-2:]
        super().__init__(parameters, (rows, columns), world)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay


class ElementGroup(ShardedGroup):
    """Parameters of one role, updated by AdamW element by element."""

    def __init__(self, parameters: Parameters, settings: AdamWSettings, world: World) -> None:
        super().__init__(parameters, (), world)
        self.settings = settings


class MuonAdamW:
    """Fulfils `contract.Optimizer`. Methods without an underscore are meant to be overridden."""

    def __init__(self, model: nn.Module, config: TrainConfig, ops: Ops, world: World) -> None:
        self.config = config
        self.world = world
        self.steps = 0
        roles = parameters_by_role(model)
        matrices = roles.pop("matrix", {}) if config.matrix_optimizer == "muon" else {}
        # Muon computes most, so its buckets go first: the embeddings' gradients travel meanwhile.
        self.groups: list[ShardedGroup] = [*self.matrix_groups(matrices), *self.element_groups(roles)]
        self.buckets = fill_buckets(self.groups, world)
        prepare = compiled_step if config.compile else eager_step
        self._adamw_step = prepare(adamw_step)
        self._direction = prepare(direction)
        self._apply_direction = prepare(apply_direction)
        self._orthogonalize = compiled_step(ops.orthogonalize, fullgraph=False) if config.compile else ops.orthogonalize

    # ------------------------------------------------------------------ which parameters, with which settings

    def matrix_groups(self, matrices: Parameters) -> list[MatrixGroup]:
        """Muon's groups: one for each shape. The matrices of a group are orthogonalised one by one, in one batched call."""
        by_shape: dict[tuple[Any, ...], Parameters] = defaultdict(dict)
        for name, parameter in matrices.items():
            if parameter.dim() < 2 or parameter.numel() == 0:
                raise RoleError(f"{name} has shape {tuple(parameter.shape)}, not a matrix's; give it another role than 'matrix'")
            by_shape[(*parameter.shape[-2:], parameter.dtype)][name] = parameter
        return [self.matrix_group(parameters) for parameters in by_shape.values()]

    def matrix_group(self, parameters: Parameters) -> MatrixGroup:
        """One group of matrices of equal shape (m, n): its learning rate, weight decay and state."""
        rows, columns = next(iter(parameters.values())).shape[-2:]
        learning_rate = self.config.matrix_lr * shape_scale(rows, columns)
        group = MatrixGroup(parameters, learning_rate, self.config.matrix_weight_decay, self.world)
        group.add_state("momentum", (rows, columns))
        if self.config.variance_reduction:
            group.add_state("second_moment", variance_shape(rows, columns))
        return group

    def element_groups(self, roles: Mapping[Role, Parameters]) -> list[ElementGroup]:
        """AdamW's groups: one for each role and dtype, except that a parameter large enough for a bucket of its own stays alone."""
        split: dict[tuple[Any, ...], Parameters] = defaultdict(dict)
        for role, parameters in roles.items():
            for name, parameter in parameters.items():
                split[role, parameter.dtype, name if parameter.nbytes > BUCKET_BYTES else ""][name] = parameter
        return [self.element_group(key[0], parameters) for key, parameters in split.items()]

    def element_group(self, role: Role, parameters: Parameters) -> ElementGroup:
        """One group of parameters under AdamW: its settings and state."""
        group = ElementGroup(parameters, adamw_settings(role, self.config), self.world)
        group.add_state("mean", ())
        group.add_state("mean_square", ())
        return group

    # ------------------------------------------------------------------ the update of one rank's shard

    def update_matrices(self, group: MatrixGroup, parameters: Tensor, gradients: Tensor, plan: StepPlan) -> None:
        """Muon on the own matrices (K, m, n), in place; gradients are the mean over the global batch."""
        config, state = self.config, group.state
        dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
        update = self._direction(gradients, state["momentum"], torch.tensor(plan.momentum), config.row_equilibration, dtype)
        self._apply_direction(
            parameters,
            self.orthogonalize(group, update),
            state.get("second_moment"),
            torch.tensor(group.learning_rate * plan.learning_rate),
            torch.tensor(group.weight_decay * plan.weight_decay),
            torch.tensor(config.variance_beta),
            config.norm_restoration,
            config.cautious_weight_decay,
        )

    def orthogonalize(self, group: MatrixGroup, stack: Tensor) -> Tensor:
        """(K, m, n) -> the nearest semi-orthogonal matrices. Override to orthogonalise in other pieces, heads for example."""
        return self._orthogonalize(stack)

    def update_elements(self, group: ElementGroup, parameters: Tensor, gradients: Tensor, plan: StepPlan) -> None:
        """AdamW on the own elements (n,), in place; gradients are the mean over the global batch."""
        scalars = adamw_scalars(group.settings, plan, self.steps)
        self._adamw_step(parameters, gradients, group.state["mean"], group.state["mean_square"], scalars)

    # ------------------------------------------------------------------ the contract

    @torch.no_grad()
    def step(self, plan: StepPlan) -> None:
        """Average the ranks' gradients and update all parameters (collective). A gradient that is None counts as zeros."""
        self.steps += 1
        reductions = [bucket.reduce_gradients() for bucket in self.buckets]
        gathers = []
        for bucket, reduction in zip(self.buckets, reductions, strict=True):
            gradients = bucket.mean_gradients(reduction)
            shard = bucket.own_parameters()
            for group, own, mean in zip(bucket.groups, bucket.by_group(shard), bucket.by_group(gradients), strict=True):
                self._update(group, own, mean, plan)
            gathers.append(bucket.gather_parameters(shard))
        for bucket, gather in zip(self.buckets, gathers, strict=True):
            bucket.write_parameters(gather)

    def _update(self, group: ShardedGroup, parameters: Tensor, gradients: Tensor, plan: StepPlan) -> None:
        if group.owned_units == 0:
            return
        if isinstance(group, MatrixGroup):
            self.update_matrices(group, parameters, gradients, plan)
        elif isinstance(group, ElementGroup):
            self.update_elements(group, parameters, gradients, plan)

    def zero_grad(self) -> None:
        """Forget all gradients; the next backward pass allocates them anew."""
        for group in self.groups:
            for parameter in group.parameters.values():
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """{"steps": finished steps, "parameters": {name: {state: tensor}}}; whole CPU tensors, the same on all ranks (collective)."""
        parameters = {name: state for group in self.groups for name, state in group.whole_state().items()}
        return {"steps": self.steps, "parameters": parameters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of any world size. Raises StateError if it belongs to another model or optimizer."""
        known = {name for group in self.groups for name in group.parameters}
        strangers = sorted(set(state["parameters"]) - known)
        if strangers:
            raise StateError(
                f"optimizer state of {strangers[0]!r}: this model has no such parameter; resume with the submission it came from"
            )
        for group in self.groups:
            group.load_whole_state(state["parameters"])
        self.steps = int(state["steps"])


def build_optimizer(model: nn.Module, config: TrainConfig, ops: Ops, world: World) -> MuonAdamW:
    """The slot's function. `model` is the uncompiled module; with `world.size` > 1 the default process group must be up."""
    return MuonAdamW(model, config, ops, world)


def eager_step(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself."""
    return function


@functools.cache
def compiled_step(function: Callable[..., Any], fullgraph: bool = True) -> Callable[..., Any]:
    """The function under torch.compile, static shapes. Cached, so that a second optimizer finds what the warm-up compiled."""
    from torch._dynamo import config as dynamo  # slow to import, and needed nowhere else

    dynamo.recompile_limit = max(dynamo.recompile_limit, MAX_SPECIALISATIONS)
    return torch.compile(function, dynamic=False, fullgraph=fullgraph)
