"""Trainers behind one interface, and the measurement of several in one process: in turn, so that each meets the same machine."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from baseline.config import TrainConfig
from baseline.contract import World
from baseline.data.rows import RowReader
from baseline.loop import build_model, compiled, initialise, train_step
from baseline.model import GPT
from baseline.ops import baseline_ops
from baseline.recipe import load_recipe


class Trainer(Protocol):
    """A model and its optimizer at one config."""

    config: TrainConfig
    model: Any

    def train_step(self, step: int, reader: RowReader) -> Tensor:
        """One optimizer step on global batch number `step`; returns its mean loss, still on the device."""
        ...


class BaselineTrainer:
    """Ours."""

    def __init__(self, config: TrainConfig, device: torch.device, seed: int) -> None:
        self.config = config
        self.world = World(0, 1, device)
        self.recipe = load_recipe(config, None, device)
        self.model: Any = build_model(self.recipe, device)
        initialise(self.model, seed, device)
        self.optimizer = self.recipe.build_optimizer(self.model, config, self.recipe.ops, self.world)
        self.forward: nn.Module = compiled(self.model, config)

    @staticmethod
    def unwritten(config: TrainConfig) -> GPT:
        """The model without memory for its parameters, for counting them. nanochat's counts are the same, as the tests show."""
        plain = config.with_(fp8=False, attention_backend="sdpa")
        with torch.device("meta"):
            return GPT(plain, baseline_ops(plain, torch.device("cpu")))

    def train_step(self, step: int, reader: RowReader) -> Tensor:
        """One optimizer step on global batch number `step`; returns its mean loss, still on the device."""
        plan = self.recipe.schedule(step, self.config)
        cursor = step * self.config.batch_rows
        return train_step(self.forward, self.optimizer, reader, plan, cursor, self.config.rows_per_forward, self.world)


# ---------------------------------------------------------------------- measuring


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def interleave(trainers: Mapping[str, Trainer], reader: RowReader, first_step: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds per step of each trainer in each round. In a round every trainer takes `steps` steps, in an order that turns round by round.

    A step ends when its loss has been read, as in a run: by then the device has finished it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for turn in range(rounds):
            for name in list(trainers)[:: 1 if turn % 2 == 0 else -1]:
                seconds[name].append(seconds_per_step(trainers[name], reader, first_step + turn * steps, steps))
    finally:
        gc.enable()
        gc.unfreeze()
    return seconds


def seconds_per_step(trainer: Trainer, reader: RowReader, first_step: int, steps: int) -> float:
    """Wall time of consecutive steps, divided by their number."""
    before = time.perf_counter()
    for step in range(first_step, first_step + steps):
        trainer.train_step(step, reader).item()
    return (time.perf_counter() - before) / steps


def speed_ratio(seconds: Mapping[str, Sequence[float]], name: str, against: str) -> Spread:
    """How many times as fast as `against` the trainer `name` is, round by round: what slows a round down slows both."""
    return Spread.of([slow / fast for fast, slow in zip(seconds[name], seconds[against], strict=True)])
