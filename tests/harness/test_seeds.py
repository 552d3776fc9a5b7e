"""Seeds: nobody chooses them, anybody can recompute them."""

from __future__ import annotations

import hashlib
import string

from hypothesis import given
from hypothesis import strategies as st

from harness.seeds import derive_seed, draw_nonce

GIVEN = ("a" * 64, "b" * 64, "nano-1", "0123456789abcdef0123456789abcdef", 3)


def test_a_seed_can_be_recomputed_with_nothing_but_sha256() -> None:
    text = "\n".join(map(str, GIVEN))
    assert derive_seed(*GIVEN).value == int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


def test_this_seed_never_changes() -> None:
    """Records hold seeds: another formula would make them wrong."""
    assert derive_seed(*GIVEN).value == 92_189_948_299_518


def test_it_keeps_what_it_was_derived_from() -> None:
    seed = derive_seed(*GIVEN)
    assert (seed.nonce, seed.index) == (GIVEN[3], 3)


@given(place=st.integers(0, 4), index=st.integers(0, 10_000))
def test_every_part_changes_the_seed(place: int, index: int) -> None:
    changed = list(GIVEN)
    changed[place] = index + 4 if place == 4 else f"other {index}"
    assert derive_seed(*changed).value != derive_seed(*GIVEN).value  # type: ignore[arg-type]


def test_the_seeds_of_a_series_are_distinct_and_fit_48_bits() -> None:
    values = {derive_seed(*GIVEN[:4], index).value for index in range(1000)}
    assert len(values) == 1000
    assert max(values) < 2**48
    assert max(values) > 2**47


def test_nonces_are_128_random_bits() -> None:
    nonces = {draw_nonce() for _ in range(100)}
    assert len(nonces) == 100
    assert all(len(nonce) == 32 and set(nonce) <= set(string.hexdigits.lower()) for nonce in nonces)
