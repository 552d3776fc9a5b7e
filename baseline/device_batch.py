"""How many rows one forward pass may take on this card: tried out, not estimated.

The number of rows changes only how a global batch is split into micro-steps (gradient accumulation), never the result.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from baseline.contract import Recipe, World
from baseline.loop import TrainingError

MOST_ROWS = 128
"""More rows than that gain nothing: a matrix product of 128 · 2048 tokens keeps any card busy."""


def candidates(batch_rows: int, world_size: int, below: int = MOST_ROWS + 1) -> list[int]:
    """Rows per forward that divide the rows of each process, fewer than `below`, most first."""
    per_rank = batch_rows // world_size
    return [rows for rows in range(min(per_rank, below - 1), 0, -1) if per_rank % rows == 0]


def largest_that_fits(recipe: Recipe, forward: nn.Module, sizes: list[int], world: World) -> int:
    """The first of `sizes` with which forward and backward fit into the memory of every rank (collective).

    `forward` is the module that trains, compiled or not, on its device; its weights stay as they are. Raises TrainingError if none fits.
    """
    for rows in sizes:
        if _fits_everywhere(fits(recipe, forward, rows, world.device), world):
            return rows
    raise TrainingError(
        f"out of memory on {world.device} even with {sizes[-1] if sizes else 1} row in one forward pass; use a lower --depth or more memory"
    )


def advice(recipe: Recipe, forward: nn.Module, failed: int, world: World) -> str:
    """The line for a run that ran out of memory with `failed` rows per forward: what fits on this rank, found by trying."""
    smaller = candidates(recipe.config.batch_rows, world.size, below=failed)
    alone = World(0, 1, world.device)  # the other ranks may be waiting in a collective of training
    try:
        best = largest_that_fits(recipe, forward, smaller, alone)
    except TrainingError as nothing:
        return str(nothing)
    return (
        f"out of memory on {world.device} with {failed} rows in one forward pass; the most that fit are {best}: "
        f"use --device-batch-size {best}, or --device-batch-size auto"
    )


def fits(recipe: Recipe, forward: nn.Module, rows: int, device: torch.device) -> bool:
    """Whether forward and backward of `rows` rows fit. Runs twice: the second time the gradients of the first take their place too."""
    tokens = torch.zeros(rows, recipe.config.sequence_len, dtype=torch.int64, device=device)
    try:
        for _ in range(2):
            forward(tokens, tokens).backward()
    except torch.OutOfMemoryError:
        return False
    finally:
        forward.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def _fits_everywhere(here: bool, world: World) -> bool:
    if world.size == 1:
        return here
    everywhere = torch.tensor(int(here), device=world.device)
    dist.all_reduce(everywhere, op=dist.ReduceOp.MIN)
    return bool(everywhere.item())
