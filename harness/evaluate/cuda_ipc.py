"""Logits in a card's memory: this process allocates it, a model server on the same card writes to it.

The handle goes from here to the server, never back, and nothing that comes from the server is decoded. A handle opens the whole block
that the driver allocated; a block of this size holds nothing else of this process. Imported only where a server runs on a card.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from numpy.typing import NDArray

from harness.evaluate.logit_memory import TokenScores

ROWS_PER_PASS = 2048
"""Logits looked at together: bounds what is allocated beside them."""


class CudaLogits:
    """Fulfils `logit_memory.LogitMemory` on one card."""

    def __init__(self, card: int, shape: tuple[int, int, int]) -> None:
        self._logits = torch.empty(shape, dtype=torch.float32, device=torch.device("cuda", card))

    @property
    def arguments(self) -> tuple[str, ...]:
        """The server sees this card alone, as number 0."""
        fields = list(self._logits.untyped_storage()._share_cuda_())  # type: ignore[no-untyped-call]
        fields[0] = 0
        return ("--logits-handle", json.dumps([value.hex() if isinstance(value, bytes) else value for value in fields]))

    @property
    def descriptors(self) -> tuple[int, ...]:
        return ()

    def scores(self, slot: int, count: int, positions: NDArray[np.int64], targets: NDArray[np.int64]) -> TokenScores:
        log_sums, likeliest, not_finite = [], [], 0
        for part in torch.split(self._logits[slot, :count], ROWS_PER_PASS):
            log_sums.append(part.logsumexp(dim=-1))
            likeliest.append(part.argmax(dim=-1))
            not_finite += int((~part.isfinite().all(dim=-1)).sum())
        at, token = (torch.from_numpy(indices).to(self._logits.device) for indices in (positions, targets))
        losses = torch.cat(log_sums)[at] - self._logits[slot, at, token]
        return TokenScores(losses.cpu().numpy(), (torch.cat(likeliest)[at] == token).cpu().numpy(), not_finite)

    def logits(self, slot: int, begin: int, end: int) -> NDArray[np.float32]:
        copy: NDArray[np.float32] = self._logits[slot, begin:end].cpu().numpy()
        return copy


def free_bytes(card: int) -> int:
    """Memory of the card that nobody uses."""
    return int(torch.cuda.mem_get_info(card)[0])
