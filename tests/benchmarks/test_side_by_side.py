"""Trainers are measured in turn, and compared round by round."""

from __future__ import annotations

import gc

import pytest
import torch

from baseline.config import Dial, TrainConfig
from baseline.data.rows import RowReader
from benchmarks.cpu_train import random_rows
from benchmarks.side_by_side import BaselineTrainer, Spread, interleave, speed_ratio

CPU = torch.device("cpu")
TINY = TrainConfig.from_depth(2, Dial(256, 64, 8.0, aspect_ratio=32, head_dim=32, max_batch_tokens=128), rows_per_forward=2)


class Recorded(BaselineTrainer):
    """Notes which steps it takes."""

    def __init__(self, name: str, log: list[tuple[str, int]]) -> None:
        super().__init__(TINY, CPU, seed=0)
        self.name, self.log = name, log

    def train_step(self, step: int, reader: RowReader) -> torch.Tensor:
        self.log.append((self.name, step))
        return super().train_step(step, reader)


def test_the_order_turns_every_round_and_all_take_the_same_steps() -> None:
    log: list[tuple[str, int]] = []
    trainers = {name: Recorded(name, log) for name in "ab"}
    seconds = interleave(trainers, RowReader(random_rows(TINY, 8), 0, 1, CPU), first_step=3, rounds=2, steps=2)
    assert log == [("a", 3), ("a", 4), ("b", 3), ("b", 4), ("b", 5), ("b", 6), ("a", 5), ("a", 6)]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
    assert all(t > 0 for times in seconds.values() for t in times)


def test_the_garbage_collector_is_back_after_a_measurement() -> None:
    interleave({}, RowReader(random_rows(TINY, 8), 0, 1, CPU), first_step=0, rounds=1, steps=1)
    assert gc.isenabled()


def test_a_ratio_is_taken_within_rounds_so_that_a_slow_round_does_not_count() -> None:
    seconds = {"fast": [1.0, 10.0, 1.0], "slow": [1.5, 15.0, 1.5]}
    assert speed_ratio(seconds, "fast", against="slow") == Spread(1.5, 1.5, 1.5)


def test_the_spread_is_median_and_quartiles() -> None:
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 100.0]) == Spread(median=3.0, low=2.0, high=4.0)


def test_training_lowers_the_loss() -> None:
    trainer = BaselineTrainer(TINY, CPU, seed=0)
    reader = RowReader(random_rows(TINY, 2), 0, 1, CPU)
    first, *_, last = [trainer.train_step(step, reader).item() for step in range(60)]
    assert first == pytest.approx(5.545, abs=0.05)  # ln 256
    assert last < first - 0.1
