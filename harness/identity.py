"""What makes an entry this entry: the digest of everything that its result depends on."""

from __future__ import annotations

import hashlib
from functools import cache

from harness.launch import REPOSITORY
from harness.submission import Submission
from harness.track import Track

LOCK = REPOSITORY / "requirements.lock"
ID_DIGITS = 8


DECIDING_PACKAGES = ("flash-attn", "numpy", "pandas", "rustbpe", "safetensors", "scipy", "tiktoken", "torch", "triton")
"""Packages that a result can depend on; a new linter in the lock makes no new entry."""


@cache
def lock_digest() -> str:
    """SHA-256 of the pins of the deciding packages in the lock file."""
    pins = (line.strip() for line in LOCK.read_text().splitlines())
    deciding = sorted(pin for pin in pins if pin.split("==")[0].lower() in DECIDING_PACKAGES)
    return hashlib.sha256("\n".join(deciding).encode()).hexdigest()


def entry_digest(submission: Submission, track: Track) -> str:
    """SHA-256 over submission, baseline, track (its ruleset included) and lock."""
    material = "\n".join((submission.digest, track.baseline_digest, track.digest, lock_digest()))
    return hashlib.sha256(material.encode()).hexdigest()


def entry_id(submission: Submission, track: Track) -> str:
    """`<name>-<first 8 digits of the entry digest>`: a folder name, and stable in URLs."""
    return f"{submission.name}-{entry_digest(submission, track)[:ID_DIGITS]}"
