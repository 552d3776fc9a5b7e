"""AdamW updates the matrices inside the blocks too; everything else is the baseline's."""

from __future__ import annotations

from baseline.config import TrainConfig


def configure(config: TrainConfig) -> TrainConfig:
    return config.with_(matrix_optimizer="adamw")
