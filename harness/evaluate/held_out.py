"""Bits per byte of a served model on the held-out rows. The softmax is done here, in the process that keeps the targets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from baseline.data.bits_per_byte import ByteLoss, byte_loss
from harness.evaluate.model_server import ModelServer


def score_held_out(server: ModelServer, rows: NDArray[np.uint16], token_bytes: NDArray[np.integer]) -> ByteLoss:
    """Score every row (N, T+1), a batch at a time; targets without bytes (special tokens) count nothing."""
    score = ByteLoss()
    for start in range(0, len(rows), server.max_rows):
        batch = rows[start : start + server.max_rows].astype(np.int64)
        score += byte_loss(token_losses(server.logits(batch[:, :-1]), batch[:, 1:]), batch[:, 1:], token_bytes)
    return score


def token_losses(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float32]:
    """logits (rows, length, vocab), targets (rows, length) -> loss of each target in nats (rows, length)."""
    with np.errstate(invalid="ignore"):  # infinite logits: the loss is not a number, and so no score
        highest = logits.max(axis=-1)
        shifted = logits - highest[..., None]
        np.exp(shifted, out=shifted)
        chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        losses: NDArray[np.float32] = np.log(shifted.sum(axis=-1)) + highest - chosen
    return losses
