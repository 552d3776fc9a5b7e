"""Numbers, times and money as a reader sees them. Units are joined by a no-break space, minus is U+2212."""

from __future__ import annotations

from datetime import datetime

from leaderboard.results import utc

NBSP = "\u00a0"
DASH = "–"
"""Stands for a figure that there is not."""


def seconds(value: float) -> str:
    """`23.41 s`, `5,937.2 s`: four to five significant digits."""
    digits = 3 if value < 10 else 2 if value < 100 else 1
    return f"{value:,.{digits}f}{NBSP}s"


def duration(value: float) -> str:
    """`23.4 s`, `24 min 12 s`, `1 h 38 min 57 s`."""
    if value < 60:
        return f"{value:.1f}{NBSP}s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{NBSP}h {minutes}{NBSP}min" + (f" {rest}{NBSP}s" if rest else "")
    return f"{minutes}{NBSP}min" + (f" {rest}{NBSP}s" if rest else "")


def hours(value: float) -> str:
    return f"{value:,.0f}{NBSP}h" if value >= 100 else f"{value:.2f}{NBSP}h"


def usd(value: float) -> str:
    """`$43,000`, `$39.58`, `$0.0033`: whole dollars from 1,000, cents from 1, two significant digits below."""
    if value >= 1000 or value == int(value):
        return f"${value:,.0f}"
    return f"${value:,.2f}" if value >= 1 else f"${value:.2g}"


def bpb(value: float) -> str:
    return f"{value:.5f}"


def core(value: float) -> str:
    return f"{value:.4f}"


def metric(name: str, value: float) -> str:
    """A score of this metric, without its name."""
    return core(value) if name == "core" else bpb(value)


def metric_name(name: str) -> str:
    return "CORE" if name == "core" else "val bpb"


def target(name: str, value: float) -> str:
    """`CORE ≥ 0.256525`, `val bpb ≤ 0.88`: all the digits that the track has."""
    return f"{metric_name(name)} {'≥' if name == 'core' else '≤'} {value:g}"


def ratio(value: float) -> str:
    return f"{value:.3f}"


def interval(low: float, high: float) -> str:
    return f"{ratio(low)}{DASH}{ratio(high)}"


def signed(value: float, digits: int) -> str:
    """`+0.0004`, `−0.0004`; zero has no sign."""
    text = f"{abs(value):,.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        return text
    return ("−" if value < 0 else "+") + text


def faster(time_ratio: float) -> str:
    """A time ratio as `8.8 % faster` or `1.2 % slower`: the share of the reference's time that is saved or added."""
    share = abs(1 - time_ratio) * 100
    return f"{share:.1f}{NBSP}% {'faster' if time_ratio < 1 else 'slower'}"


def percent(share: float) -> str:
    """`98 %`, `99.5 %`."""
    return f"{share * 100:.4g}{NBSP}%"


def p_value(value: float) -> str:
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.4f}"


def count(number: int, noun: str) -> str:
    """`1 run`, `5 runs`, `2 entries`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,}{NBSP}{noun if number == 1 else plural}"


def size(value: int) -> str:
    """Bytes in binary units: `62.0 GiB`."""
    return f"{value / 2**30:.1f}{NBSP}GiB" if value >= 2**30 else f"{value / 2**20:.1f}{NBSP}MiB"


def large(value: float) -> str:
    """Counts in words: `1.384 billion`, `126 million`."""
    for unit, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= unit:
            return f"{value / unit:.4g}{NBSP}{name}"
    return f"{value:,.0f}"


def day(moment: datetime) -> str:
    return utc(moment).strftime("%Y-%m-%d")


def minute(moment: datetime) -> str:
    return utc(moment).strftime("%Y-%m-%d %H:%M UTC")


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
