"""Muon steps further, remembers less, and stops sooner."""

from __future__ import annotations

from baseline.config import TrainConfig


def configure(config: TrainConfig) -> TrainConfig:
    return config.with_(
        matrix_lr=3 * config.matrix_lr,
        momentum_peak=0.95,
        num_steps=round(0.85 * config.num_steps),
    )
