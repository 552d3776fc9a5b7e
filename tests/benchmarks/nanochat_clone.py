"""The clone of nanochat that some tests compare with. A machine without one skips them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.nanochat_head import Clone, open_clone

needs_clone = pytest.mark.skipif("NANOCHAT_HEAD" not in os.environ, reason="NANOCHAT_HEAD names no clone of nanochat")


def clone_folder() -> Path:
    """Where NANOCHAT_HEAD points."""
    return Path(os.environ["NANOCHAT_HEAD"])


def float32_clone() -> Clone:
    """A fresh import that computes in float32."""
    return open_clone(clone_folder(), "float32")
