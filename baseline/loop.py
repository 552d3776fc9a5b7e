"""The training loop: what happens between `go` and `done`, the same with and without a harness around it."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from baseline.config import TrainConfig
from baseline.contract import Optimizer, Recipe, StepPlan, World
from baseline.data.rows import RowReader

GC_INTERVAL_STEPS = 5_000
WARMUP_STEPS = 2
"""The first step allocates gradients and compiles; the second finds the optimizer's state in place."""


class TrainingError(RuntimeError):
    """A run that cannot go on. The message says what to change."""


@dataclass(slots=True)
class Position:
    """How far a run is: finished steps, and rows consumed in the track's order. Independent of the world size."""

    step: int = 0
    cursor: int = 0


@dataclass(frozen=True, slots=True)
class StepResult:
    """One finished step: its 1-based number, the global batch's mean loss in nats, the plan it followed, tokens trained on."""

    step: int
    loss: float
    plan: StepPlan
    tokens: int


def initialise(model: nn.Module, seed: int, device: torch.device) -> None:
    """Write the initial weights for `seed` in place. The same bytes in a fresh process and in one that has warmed up."""
    torch.manual_seed(seed)
    model.init_weights(torch.Generator(device=device).manual_seed(seed))  # type: ignore[operator]


def build_model(recipe: Recipe, device: torch.device) -> nn.Module:
    """Construct the model without spending time on weights that `initialise` writes anyway."""
    with torch.device("meta"):
        model = recipe.build_model(recipe.config, recipe.ops)
    return model.to_empty(device=device)


def compiled(model: nn.Module, config: TrainConfig) -> nn.Module:
    """The module that the loop calls; its parameters are the model's own."""
    return torch.compile(model, dynamic=False) if config.compile else model  # type: ignore[return-value]


def micro_batch(batch_rows: int, rows_per_forward: int, world_size: int) -> tuple[int, int]:
    """(micro-steps, rows per forward on each rank) of a global batch. rows_per_forward changes the split, never the mathematics."""
    per_rank, rest = divmod(batch_rows, world_size)
    if rest or per_rank == 0:
        raise TrainingError(f"a batch of {batch_rows} rows cannot be split over {world_size} processes; use a multiple of {world_size}")
    rows = min(rows_per_forward, per_rank)
    if per_rank % rows:
        raise TrainingError(f"rows_per_forward = {rows_per_forward} does not divide the {per_rank} rows of each process; use a divisor")
    return per_rank // rows, rows


def train_step(
    model: nn.Module, optimizer: Optimizer, reader: RowReader, plan: StepPlan, cursor: int, rows_per_forward: int, world: World
) -> Tensor:
    """Forward, backward and update on one global batch; returns its mean loss, equal on all ranks, still on the device."""
    micro_steps, rows = micro_batch(plan.batch_rows, rows_per_forward, world.size)
    total = torch.zeros((), device=world.device)
    for micro in range(micro_steps):
        inputs, targets = reader.batch(cursor, micro, rows)
        loss = model(inputs, targets) / micro_steps
        loss.backward()
        total += loss.detach()
    # Started before the optimizer's own communication, and over long before that is.
    sum_of_ranks = dist.all_reduce(total, async_op=True) if world.size > 1 else None
    optimizer.step(plan)
    optimizer.zero_grad()
    if sum_of_ranks is not None:
        sum_of_ranks.wait()
    return total / world.size


def warm_up(recipe: Recipe, model: nn.Module, compiled: nn.Module, reader: RowReader, world: World) -> None:
    """Train a few steps on dummy rows with a throw-away optimizer; allocates, compiles, opens connections."""
    initialise(model, 0, world.device)
    optimizer = recipe.build_optimizer(model, recipe.config, recipe.ops, world)
    for step in range(WARMUP_STEPS):
        plan = recipe.schedule(step, recipe.config)
        train_step(compiled, optimizer, reader, plan, 0, recipe.config.rows_per_forward, world)
    model.zero_grad(set_to_none=True)


def train(
    recipe: Recipe,
    model: nn.Module,
    optimizer: Optimizer,
    reader: RowReader,
    world: World,
    position: Position,
    on_step: Callable[[StepResult], None],
    stop_after: int | None = None,
) -> None:
    """Run from `position` to the horizon (or to step `stop_after`), calling `on_step` after each step.

    Raises TrainingError on a loss that is not finite.
    """
    config = recipe.config
    last = config.num_steps if stop_after is None else min(stop_after, config.num_steps)
    model.train()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        while position.step < last:
            plan = recipe.schedule(position.step, config)
            loss = train_step(model, optimizer, reader, plan, position.cursor, config.rows_per_forward, world).item()
            position.step += 1
            position.cursor += plan.batch_rows
            if not math.isfinite(loss):
                raise TrainingError(f"the loss is {loss} at step {position.step}; lower the learning rates or mend the model")
            on_step(StepResult(position.step, loss, plan, plan.batch_rows * config.sequence_len))
            if position.step % GC_INTERVAL_STEPS == 0:
                gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
