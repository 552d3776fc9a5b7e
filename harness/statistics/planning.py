"""How many runs would show an effect of a given size? Asked before a node is rented."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.statistics.distributions import normal_upper_tail
from harness.statistics.looks import Looks
from harness.statistics.superiority import PairedPlan, detectable_ratio
from harness.statistics.validity import SequentialPlan

QUADRATURE_NODES = 64
"""Gauss–Legendre nodes per look; doubling them moves no probability by more than 1e-9."""

Nodes = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a validity test comes to if it is stopped at the first look that decides."""

    looks: Looks
    accepted_by: tuple[float, ...]
    """Probability of `valid` at or before each look."""
    mean_runs: float

    def runs_for(self, power: float) -> int | None:
        """The smallest look by which `valid` has this probability; None if no look reaches it."""
        return next((look for look, chance in zip(self.looks, self.accepted_by, strict=True) if chance >= power), None)


def prospects(margin: float, sigma: float, plan: SequentialPlan) -> Prospect:
    """Chances of an entry whose true mean lies `margin` beyond the target, its true sigma being the pinned one.

    Exact up to quadrature: the density of the running sum of scores (in sigmas, from the target) is carried from look
    to look over the sums that decide nothing (Armitage, McPherson & Rowe 1969). The spread guard is left out.
    """
    drift = margin / sigma
    sums, mass = np.zeros(1), np.ones(1)
    before, accepted_by, mean_runs = 0, [0.0], 0.0
    for look, futility in zip(plan.looks, (*plan.futility, plan.bound), strict=True):
        step = look - before
        floor, ceiling = futility * math.sqrt(look), plan.bound * math.sqrt(look)
        mean_runs += float(mass.sum()) * step
        accepted_by.append(accepted_by[-1] + _mass_above(ceiling, sums + drift * step, mass, step))
        sums, mass = _carry(floor, ceiling, sums + drift * step, mass, step)
        before = look
    return Prospect(looks=plan.looks, accepted_by=tuple(accepted_by[1:]), mean_runs=mean_runs)


def pairs_needed(ratio: float, sd: float, plan: PairedPlan, *, power: float = 0.8) -> int | None:
    """The smallest look that shows a true time ratio as better with this power, given the sd of one log ratio; None if none does."""
    for look in plan.looks:
        reach = detectable_ratio(sd, look, level=plan.level, power=power)
        if reach is not None and reach >= ratio:
            return look
    return None


def _mass_above(ceiling: float, means: Nodes, mass: Nodes, variance: int) -> float:
    """Probability that a normal of these means, weighted by `mass`, exceeds the ceiling."""
    tails = [normal_upper_tail((ceiling - float(mean)) / math.sqrt(variance)) for mean in means]
    return float(np.dot(tails, mass))


def _carry(floor: float, ceiling: float, means: Nodes, mass: Nodes, variance: int) -> tuple[Nodes, Nodes]:
    """Quadrature nodes between floor and ceiling, and the probability mass at each."""
    x, weights = np.polynomial.legendre.leggauss(QUADRATURE_NODES)
    half = (ceiling - floor) / 2
    nodes = floor + half * (x + 1)
    density = np.exp(-((nodes[:, None] - means[None, :]) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    return nodes, half * weights * (density @ mass)
