"""Checks of a served model as a black box, hidden among the scored batches. A model that fails one gets no score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.evaluate.model_server import ModelServer
from harness.record import Probe

TOLERANCE = 2e-3
"""Largest difference of two logits that rounding may explain; models of this class have logits within ±15."""


class Prober:
    """Looks on while `score_held_out` scores, and asks again about batches that nobody can predict.

    What a probe compares with are the very logits that were scored. Each probe has its own batch, drawn at random, so
    the place of its requests among the others differs from run to run.
    """

    def __init__(self, server: ModelServer, batches: int, rng: np.random.Generator) -> None:
        self._server = server
        self._rng = rng
        kinds = (self._determinism, self._causality, self._batch_independence)
        self._due = [(int(rng.integers(batches)), kind) for kind in kinds]
        self._seen = self._not_finite = 0
        self._probes: list[Probe] = []

    def see(self, index: int, tokens: NDArray[np.int64], logits: NDArray[np.float32]) -> None:
        """Called after batch `index` was scored: tokens (rows, length), logits (rows, length, vocab)."""
        self._seen += logits.size
        self._not_finite += int((~np.isfinite(logits)).sum())
        due = [kind for batch, kind in self._due if batch == index]
        if due:
            scored = logits.copy()
            for kind in due:
                self._probes.append(kind(tokens, scored))

    def probes(self) -> tuple[Probe, ...]:
        """The results, once every batch has been seen."""
        evidence = f"{self._not_finite} of {self._seen} logits are not finite"
        return (Probe(name="finite_logits", passed=self._not_finite == 0, evidence=evidence), *self._probes)

    def _determinism(self, tokens: NDArray[np.int64], scored: NDArray[np.float32]) -> Probe:
        return _agree("determinism", scored, self._server.logits(tokens), "the same batch twice")

    def _causality(self, tokens: NDArray[np.int64], scored: NDArray[np.float32]) -> Probe:
        """Other tokens after a random position of each row must not move any logit up to it."""
        changed = tokens.copy()
        cuts = self._rng.integers(1, tokens.shape[1], size=len(tokens))
        for row, cut in enumerate(cuts):
            other = (row + 1) % len(tokens)
            same = tokens[other, cut:] == tokens[row, cut:]
            changed[row, cut:] = np.where(same, tokens[row, cut - 1], tokens[other, cut:])
        past = np.arange(tokens.shape[1]) < cuts[:, None]
        return _agree("causality", scored[past], self._server.logits(changed)[past], "logits before changed tokens")

    def _batch_independence(self, tokens: NDArray[np.int64], scored: NDArray[np.float32]) -> Probe:
        """A row alone, and in another order, must get the logits that were scored."""
        order = self._rng.permutation(len(tokens))
        shuffled = self._server.logits(tokens[order]).copy()
        row = int(self._rng.integers(len(tokens)))
        alone = self._server.logits(tokens[row : row + 1])
        left, right = np.concatenate([scored[order], scored[row : row + 1]]), np.concatenate([shuffled, alone])
        return _agree("batch_independence", left, right, "rows reordered and alone")


def _agree(name: str, left: NDArray[np.float32], right: NDArray[np.float32], what: str) -> Probe:
    with np.errstate(invalid="ignore"):  # infinities: not a number is no agreement
        difference = float(np.abs(left - right).max()) if left.size else 0.0
    passed = bool(difference <= TOLERANCE)
    return Probe.model_validate(
        {"name": name, "passed": passed, "evidence": f"{what}: largest difference {difference:.2g}, allowed {TOLERANCE:g}"}
    )
