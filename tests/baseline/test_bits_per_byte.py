"""Bits per byte: nats of text tokens over ln 2 times their bytes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseline.data.bits_per_byte import ByteLoss, byte_loss

TOKEN_BYTES = np.array([1, 2, 5, 0], dtype=np.int32)


def test_a_uniform_guess_over_bytes_costs_eight_bits_per_byte() -> None:
    targets = np.arange(256)
    loss = byte_loss(np.full(256, math.log(256)), targets, np.ones(256, dtype=np.int32))
    assert loss.bits_per_byte == pytest.approx(8.0)


def test_it_is_a_ratio_of_sums_and_special_tokens_count_on_neither_side() -> None:
    losses = np.array([[1.0, 2.0], [3.0, 100.0]], dtype=np.float32)
    loss = byte_loss(losses, np.array([[0, 1], [2, 3]]), TOKEN_BYTES)
    assert (loss.nats, loss.tokens, loss.bytes) == (6.0, 3, 8)
    assert loss.bits_per_byte == pytest.approx(6 / (8 * math.log(2)))


def test_an_infinite_loss_on_a_special_token_does_not_spoil_the_sum() -> None:
    assert byte_loss(np.array([1.0, math.inf]), np.array([0, 3]), TOKEN_BYTES).nats == 1.0


def test_an_infinite_loss_on_text_does() -> None:
    assert math.isinf(byte_loss(np.array([1.0, math.inf]), np.array([0, 1]), TOKEN_BYTES).bits_per_byte)


def test_sums_of_parts_are_the_sum_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    losses, targets = rng.random(1000), rng.integers(0, 4, 1000)
    parts = [byte_loss(losses[i : i + 100], targets[i : i + 100], TOKEN_BYTES) for i in range(0, 1000, 100)]
    whole = byte_loss(losses, targets, TOKEN_BYTES)
    assert sum(parts, ByteLoss()).bits_per_byte == pytest.approx(whole.bits_per_byte, rel=1e-12)


@given(rows_per_batch=st.integers(1, 24), world=st.integers(1, 8))
def test_a_fixed_set_of_rows_scores_the_same_in_any_batches_on_any_ranks(rows_per_batch: int, world: int) -> None:
    rng = np.random.default_rng(1)
    losses, targets = rng.random((24, 8)), rng.integers(0, 4, (24, 8))
    ranks = [ByteLoss()] * world
    for batch, start in enumerate(range(0, 24, rows_per_batch)):
        part = slice(start, start + rows_per_batch)
        ranks[batch % world] += byte_loss(losses[part], targets[part], TOKEN_BYTES)
    whole, total = byte_loss(losses, targets, TOKEN_BYTES), sum(ranks, ByteLoss())
    assert (total.tokens, total.bytes) == (whole.tokens, whole.bytes)
    assert total.bits_per_byte == pytest.approx(whole.bits_per_byte, rel=1e-12)


def test_half_precision_losses_are_summed_in_double() -> None:
    losses = np.full(100_000, 0.1, dtype=np.float16)
    nats = byte_loss(losses, np.zeros(100_000, dtype=np.int64), TOKEN_BYTES).nats
    assert nats == pytest.approx(100_000 * float(np.float16(0.1)), rel=1e-9)


def test_no_text_has_no_bits_per_byte() -> None:
    with pytest.raises(ValueError, match="none of the targets stands for a byte"):
        _ = byte_loss(np.array([1.0]), np.array([3]), TOKEN_BYTES).bits_per_byte
