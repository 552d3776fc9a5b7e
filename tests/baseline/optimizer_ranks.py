"""Processes that train the odd model together, for `test_optimizer_distributed`. Imports no test library, so that they start sooner."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from baseline.contract import StepPlan, World
from baseline.optimizer import MuonAdamW, build_optimizer
from tests.baseline.odd_model import CPU, OddModel, config_of, ops_of, set_gradients

PLAN = StepPlan(0.7, 0.9, 0.8, 8)
HALFWAY, STEPS = 2, 4


@dataclass(slots=True)
class Trail:
    """What one rank saw."""

    halfway: dict[str, Tensor] = field(default_factory=dict)
    final: dict[str, Tensor] = field(default_factory=dict)
    resumed: dict[str, Tensor] = field(default_factory=dict)
    """Final parameters of a run that took up the two-rank run halfway."""
    alone: dict[str, Tensor] = field(default_factory=dict)
    """Final parameters when nothing shares a bucket."""
    state: dict[str, Any] = field(default_factory=dict)
    state_bytes: int = 0
    largest_group: int = 0
    """Most whole matrices that this rank updates in one group."""


def fresh(world: World) -> tuple[OddModel, MuonAdamW]:
    model, config = OddModel(), config_of()
    return model, build_optimizer(model, config, ops_of(config), world)


def advance(model: OddModel, optimizer: MuonAdamW, steps: range, world: World) -> dict[str, Tensor]:
    for step in steps:
        set_gradients(model, step, world.rank, world.size)
        optimizer.step(PLAN)
    return model.values()


def follow(world: World, folder: Path) -> Trail:
    """Train, keeping the state halfway; then again from halfway, from the state that the two-rank run left in `folder`."""
    trail = Trail()
    model, optimizer = fresh(world)
    trail.halfway = advance(model, optimizer, range(HALFWAY), world)
    trail.state = optimizer.state_dict()
    trail.state_bytes = sum(tensor.nbytes for group in optimizer.groups for tensor in group.state.values())
    trail.largest_group = max(group.owned_units for group in optimizer.groups if group.unit_shape)
    trail.final = advance(model, optimizer, range(HALFWAY, STEPS), world)
    saved = folder / "two_ranks.pt"
    if world.size == 2:
        if world.rank == 0:
            torch.save({"weights": trail.halfway, "state": trail.state}, saved)
        dist.barrier()
    checkpoint = torch.load(saved)
    model, optimizer = fresh(world)
    model.load_state_dict(checkpoint["weights"])
    optimizer.load_state_dict(checkpoint["state"])
    trail.resumed = advance(model, optimizer, range(HALFWAY, STEPS), world)
    with patch("baseline.buckets.BUCKET_BYTES", 0), patch("baseline.optimizer.BUCKET_BYTES", 0):
        model, optimizer = fresh(world)
    trail.alone = advance(model, optimizer, range(STEPS), world)
    return trail


def rank_main(rank: int, folder: str) -> None:
    """One of four processes. The first two are a world of two before all four are one: starting a process costs seconds."""
    torch.set_num_threads(1)
    for size in (2, 4):
        if rank < size:
            dist.init_process_group("gloo", init_method=f"file://{folder}/meet_{size}", rank=rank, world_size=size)
            torch.save(follow(World(rank, size, CPU), Path(folder)), f"{folder}/trail_{size}_{rank}.pt")
            # Gloo's threads may still hold tensors of the last collective; a process that exits meanwhile aborts.
            dist.barrier()
            dist.destroy_process_group()


def train_at_every_size(folder: Path) -> dict[int, list[Trail]]:
    """World size -> each rank's trail."""
    spawn(rank_main, args=(str(folder),), nprocs=4)  # type: ignore[no-untyped-call]
    spawned = {size: [torch.load(folder / f"trail_{size}_{rank}.pt", weights_only=False) for rank in range(size)] for size in (2, 4)}
    return {1: [follow(World(0, 1, CPU), folder)], **spawned}
