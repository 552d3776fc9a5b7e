"""Seeds that nobody chooses: a hash of what is run and of a nonce that is drawn when the series starts."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

SEED_BITS = 48


@dataclass(frozen=True, slots=True)
class Seed:
    """The seed of one run, and what it was derived from."""

    index: int
    nonce: str
    value: int


def draw_nonce() -> str:
    """A fresh nonce, 128 random bits in hexadecimal. It is recorded with every run of the series."""
    return secrets.token_hex(16)


def derive_seed(submission: str, baseline: str, ruleset: str, nonce: str, index: int) -> Seed:
    """H(submission digest, baseline digest, ruleset, nonce, index), SHA-256 cut to 48 bits.

    With the nonce unknown beforehand, seeds cannot be searched; with it recorded, anyone can recompute them.
    """
    material = "\n".join((submission, baseline, ruleset, nonce, str(index)))
    value = int.from_bytes(hashlib.sha256(material.encode()).digest()[: SEED_BITS // 8], "big")
    return Seed(index, nonce, value)
