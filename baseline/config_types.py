"""Which values a field of TrainConfig may hold, by its type annotation, and which fields are the track's alone. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import fields
from difflib import get_close_matches
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from baseline.config import Dial, TrainConfig

FIXED_FIELDS = ("vocab_size", "sequence_len")
"""Fields of the config and of its dial that say what the track's rows are; no entry may change them (rule R08)."""


def value_problem(field: str, value: object) -> str | None:
    """Why `value` cannot stand in TrainConfig's `field`, with the mend; None if its type is right and it is finite.

    Ranges and combinations are for `TrainConfig.checked`.
    """
    hints = get_type_hints(TrainConfig)
    if field not in hints:
        similar = get_close_matches(field, hints, n=1)
        return f"TrainConfig has no field '{field}'; " + (f"did you mean '{similar[0]}'?" if similar else "see baseline/config.py")
    return _problem(field, value, hints[field])


def config_problem(config: TrainConfig) -> str | None:
    """The first field of the config or of its dial that holds a value of another type, or one that is not finite."""
    for part, prefix in ((config, ""), (config.dial, "dial.")):
        hints = get_type_hints(type(part))
        for field in fields(part):
            problem = _problem(prefix + field.name, getattr(part, field.name), hints[field.name])
            if problem:
                return problem
    return None


def fixed_problem(before: TrainConfig, after: TrainConfig) -> str | None:
    """The first fixed field in which `after` differs from the track's config `before`."""
    for name in FIXED_FIELDS:
        for prefix, old, new in (("", before, after), ("dial.", before.dial, after.dial)):
            if getattr(old, name) != getattr(new, name):
                return f"{prefix}{name} = {getattr(new, name)} differs from the track's {getattr(old, name)}; leave it as it is"
    return None


def _problem(name: str, value: object, hint: Any) -> str | None:
    if get_origin(hint) is Literal:
        wanted = "one of " + ", ".join(map(repr, get_args(hint)))
        return None if value in get_args(hint) else f"{name} = {value!r}; it must be {wanted}"
    allowed = [part for part in get_args(hint) or (hint,) if part is not NoneType]
    if value is None and len(allowed) < len(get_args(hint)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} = {value!r}; it must be finite"
    if not any(_fits(value, kind) for kind in allowed):
        return f"{name} = {value!r}; it must be {' or '.join(_WORDS[kind] for kind in allowed)}"
    return None


def _fits(value: object, kind: type) -> bool:
    """Whole numbers pass for numbers; True and False pass for neither."""
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


_WORDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "True or False", str: "text", Dial: "a Dial"}
