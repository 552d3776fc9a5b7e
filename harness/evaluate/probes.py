"""Checks of a served model as a black box, on real held-out rows. A model that fails one gets no score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.evaluate.model_server import ModelServer
from harness.record import Probe

TOLERANCE = 2e-3
"""Largest difference of two logits that rounding may explain; models of this class have logits within ±15."""


def probe_model(server: ModelServer, rows: NDArray[np.uint16], rng: np.random.Generator) -> tuple[Probe, ...]:
    """Four probes on rows (N, T+1), N at least max_rows: finite, deterministic, causal, independent of the rest of the batch."""
    tokens = rows[: server.max_rows, :-1].astype(np.int64)
    first = server.logits(tokens).copy()
    again = server.logits(tokens).copy()
    return (
        _finite(first),
        _agree("determinism", first, again, "the same batch twice"),
        _causality(server, tokens, first, rng),
        _batch_independence(server, tokens, first, rng),
    )


def _finite(logits: NDArray[np.float32]) -> Probe:
    bad = int((~np.isfinite(logits)).sum())
    return Probe(name="finite_logits", passed=bad == 0, evidence=f"{bad} of {logits.size} logits are not finite")


def _causality(server: ModelServer, tokens: NDArray[np.int64], before: NDArray[np.float32], rng: np.random.Generator) -> Probe:
    """Other tokens after a random position of each row must not move any logit up to it."""
    changed = tokens.copy()
    cuts = rng.integers(1, tokens.shape[1], size=len(tokens))
    for row, cut in enumerate(cuts):
        other = (row + 1) % len(tokens)
        changed[row, cut:] = np.where(tokens[other, cut:] == tokens[row, cut:], tokens[row, cut - 1], tokens[other, cut:])
    after = server.logits(changed)
    past = np.arange(tokens.shape[1]) < cuts[:, None]
    return _agree("causality", before[past], after[past], "logits before changed tokens")


def _batch_independence(server: ModelServer, tokens: NDArray[np.int64], together: NDArray[np.float32], rng: np.random.Generator) -> Probe:
    """A row alone, and in another company, must get the logits it got before."""
    order = rng.permutation(len(tokens))
    shuffled = server.logits(tokens[order]).copy()
    row = int(rng.integers(len(tokens)))
    alone = server.logits(tokens[row : row + 1])
    return _agree(
        "batch_independence",
        np.concatenate([together[order], together[row : row + 1]]),
        np.concatenate([shuffled, alone]),
        "rows reordered and alone",
    )


def _agree(name: str, left: NDArray[np.float32], right: NDArray[np.float32], what: str) -> Probe:
    with np.errstate(invalid="ignore"):  # infinities: not a number is no agreement
        difference = float(np.abs(left - right).max()) if left.size else 0.0
    passed = bool(difference <= TOLERANCE)
    return Probe.model_validate(
        {"name": name, "passed": passed, "evidence": f"{what}: largest difference {difference:.2g}, allowed {TOLERANCE:g}"}
    )
