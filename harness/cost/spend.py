"""Seconds and prices to dollars.

Two kinds of price: a track's pinned *reference price*, which keeps entries of different years comparable, and a provider's
*offer*, which says what a rental comes to now.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.cost.table import Offer

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class ReferencePrice:
    """A track's pinned price for its whole machine, and the table it was chosen from."""

    table_id: str
    usd_per_hour: float


def seconds_to_usd(seconds: float, usd_per_hour: float) -> float:
    """Dollars for these seconds, without rounding."""
    return seconds / SECONDS_PER_HOUR * usd_per_hour


def run_usd(timed_s: float, price: ReferencePrice) -> float:
    """A run's cost for the board: its timed seconds at the reference price."""
    return seconds_to_usd(timed_s, price.usd_per_hour)


def verify_usd(walls_s: Iterable[float], price: ReferencePrice) -> float:
    """What all runs of a verification occupied the machine for, void ones among them, at the reference price."""
    return seconds_to_usd(sum(walls_s), price.usd_per_hour)


def record_usd(pairs: int, entry_wall_s: float, reference_wall_s: float, offer: Offer) -> float:
    """What it takes to claim a record: that many pairs of an entry run and a reference run in one rental, as billed."""
    return billed_usd(pairs * (entry_wall_s + reference_wall_s), offer)


def billed_usd(rented_s: float, offer: Offer) -> float:
    """Dollars on the invoice for one rental: seconds rounded up to the provider's billing unit, or exact where it is not known."""
    unit_s = offer.billing_unit_s
    return seconds_to_usd(rented_s if unit_s is None else math.ceil(rented_s / unit_s) * unit_s, offer.usd_per_hour)
