"""Bits per byte: the loss per byte of text instead of per token, so that tokenizers can be compared.

    bpb = sum of nats over targets that stand for at least one byte / (ln 2 · sum of the bytes of those targets)

Special tokens stand for no byte and count on neither side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ByteLoss:
    """Sums over some targets; add the sums of batches and ranks before dividing."""

    nats: float = 0.0
    tokens: int = 0
    """Targets that stand for at least one byte."""
    bytes: int = 0

    def __add__(self, other: ByteLoss) -> ByteLoss:
        return ByteLoss(self.nats + other.nats, self.tokens + other.tokens, self.bytes + other.bytes)

    @property
    def bits_per_byte(self) -> float:
        """Raises ValueError when there are no bytes to divide by."""
        if not self.bytes:
            raise ValueError("bits per byte of no text: none of the targets stands for a byte")
        return self.nats / (math.log(2) * self.bytes)


def byte_loss(losses: NDArray[np.floating], targets: NDArray[np.integer], token_bytes: NDArray[np.integer]) -> ByteLoss:
    """The sums for one batch, in float64 whatever the dtype of the losses.

    losses (...): nats per target. targets (...): token ids. token_bytes (V,): bytes of each token, 0 for special ones.
    """
    sizes = token_bytes[targets]
    counted = sizes > 0
    # Selected, not multiplied by zero: a special token whose loss is infinite must not make the sum NaN.
    nats = losses[counted].sum(dtype=np.float64)
    return ByteLoss(float(nats), int(counted.sum()), int(sizes.sum(dtype=np.int64)))
