"""What the site has to know of a track; whoever builds the site supplies it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TrackInfo:
    """A track at its current version."""

    name: str
    """As in `Entry.track`."""
    title: str
    version: str
    """The current one; results of other versions are shown below it, under theirs."""
    hardware: str
    data: str
    metric: Literal["val_bpb", "core"]
    target: float
    """CORE of at least this much, or val bpb of at most this much."""
    provisional: tuple[str, ...]
    """What has not been measured yet, one line each; empty for a track whose records count."""
    description: str
    reference_usd_per_hour: float
    """For all accelerators of the track together."""
