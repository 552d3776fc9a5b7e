"""Are two programs the same within a margin? Two one-sided t-tests (TOST, Schuirmann 1987) on paired differences.

A difference that is not significant is no proof of sameness; this test puts the burden on whoever claims it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.statistics.distributions import t_quantile, t_upper_tail


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Outcome of `equivalence`: equivalent iff the interval lies within ± the margin."""

    equivalent: bool
    p_value: float
    """The larger of the two one-sided p-values."""
    mean: float
    low: float
    high: float
    level: float
    """Two-sided level of the interval: 1 − 2 · alpha."""


def equivalence(differences: Sequence[float], *, margin: float, alpha: float = 0.05) -> Equivalence:
    """Test whether the mean of paired differences lies within ± margin. Needs two differences and a positive margin."""
    n = len(differences)
    if n < 2 or margin <= 0:
        raise ValueError(f"equivalence needs at least two differences and a positive margin; got {n} differences, margin {margin}")
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(n)
    half = t_quantile(1 - alpha, n - 1) * error
    slack = margin - abs(mean)
    p_value = t_upper_tail(slack / error, n - 1) if error > 0 else float(slack <= 0)
    return Equivalence(equivalent=p_value < alpha, p_value=p_value, mean=mean, low=mean - half, high=mean + half, level=1 - 2 * alpha)
