"""Tails and quantiles of the normal, t, chi-squared and noncentral t distributions, as typed floats.

`scipy.special` alone: importing `scipy.stats` would add a second to every command.
"""

from __future__ import annotations

from scipy import special


def normal_upper_tail(z: float) -> float:
    """P(Z > z)."""
    return float(special.ndtr(-z))


def normal_quantile(p: float) -> float:
    """z with P(Z ≤ z) = p."""
    return float(special.ndtri(p))


def t_upper_tail(t: float, df: int) -> float:
    """P(T > t) with `df` degrees of freedom."""
    return float(special.stdtr(df, -t))


def t_quantile(p: float, df: int) -> float:
    """t with P(T ≤ t) = p."""
    return float(special.stdtrit(df, p))


def chi_squared_upper_tail(x: float, df: int) -> float:
    """P(X > x) with `df` degrees of freedom."""
    return float(special.chdtrc(df, x))


def chi_squared_quantile(p: float, df: int) -> float:
    """x with P(X ≤ x) = p."""
    return float(2.0 * special.gammaincinv(df / 2.0, p))


def noncentrality_for_power(power: float, critical: float, df: int) -> float:
    """Noncentrality at which a t statistic exceeds `critical` with probability `power`."""
    return float(special.nctdtrinc(df, 1.0 - power, critical))
