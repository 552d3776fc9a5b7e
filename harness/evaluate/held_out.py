"""Bits per byte of a served model on the held-out rows. The softmax is done here, in the process that keeps the targets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from baseline.data.bits_per_byte import ByteLoss, byte_loss
from harness.evaluate.model_server import ModelServer

OnBatch = Callable[[int, NDArray[np.int64], NDArray[np.float32]], None]
"""(index of the batch, tokens (rows, length), logits (rows, length, vocab))."""


def score_held_out(
    server: ModelServer, rows: NDArray[np.uint16], token_bytes: NDArray[np.integer], on_batch: OnBatch | None = None
) -> ByteLoss:
    """Score every row (N, T+1), a batch at a time; targets without bytes (special tokens) count nothing."""
    score = ByteLoss()
    for index, start in enumerate(range(0, len(rows), server.max_rows)):
        batch = rows[start : start + server.max_rows].astype(np.int64)
        tokens, targets = batch[:, :-1], batch[:, 1:]
        logits = server.logits(tokens)
        score += byte_loss(token_losses(logits, targets), targets, token_bytes)
        if on_batch:
            on_batch(index, tokens, logits)
    return score


def token_losses(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float32]:
    """logits (rows, length, vocab), targets (rows, length) -> loss of each target in nats (rows, length)."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinite logits give losses that are no numbers, and the probes say why
        highest = logits.max(axis=-1)
        shifted = logits - highest[..., None]
        np.exp(shifted, out=shifted)
        chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        losses: NDArray[np.float32] = np.log(shifted.sum(axis=-1)) + highest - chosen
    return losses
