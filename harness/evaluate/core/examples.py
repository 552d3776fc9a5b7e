"""The three shapes of an example, and their reading from the lines of a task's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from harness.errors import MachineLacks
from harness.evaluate.core.items import Kind
from harness.evaluate.core.tasks import Task

MAX_LINE_BYTES = 1 << 20
"""The bundle's longest line has 6 KB."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class MultipleChoice:
    """One question and several answers."""

    line: int
    """From 1."""
    query: str
    choices: tuple[str, ...]
    gold: int
    """Index of the right choice."""


@dataclass(frozen=True, slots=True)
class Schema:
    """Several beginnings for one ending (the Winograd shape)."""

    line: int
    context_options: tuple[str, ...]
    continuation: str
    gold: int
    """Index of the right beginning."""


@dataclass(frozen=True, slots=True)
class LanguageModeling:
    """A context, and the text that has to follow it word for word."""

    line: int
    context: str
    continuation: str


Example = MultipleChoice | Schema | LanguageModeling


def parse_examples(task: Task, content: bytes, where: str) -> list[Example]:
    """The examples of a JSON-lines file, in file order.

    Raises MachineLacks with file, line and mend for a line that is no example of the task's kind, or when the count of lines is wrong.
    """
    lines = content.split(b"\n")
    if lines and not lines[-1].strip():
        lines.pop()
    if len(lines) != task.rows:
        raise MachineLacks(f"has {len(lines)} lines, and {task.rows} belong there", where=where, mend="bring the bundle again")
    return [_parse(task.kind, number, line, f"{where}:{number}") for number, line in enumerate(lines, start=1)]


def _parse(kind: Kind, number: int, line: bytes, where: str) -> Example:
    if len(line) > MAX_LINE_BYTES:
        raise MachineLacks(
            f"the line has {len(line):,} bytes, and at most {MAX_LINE_BYTES:,} are read", where=where, mend="remove the line"
        )
    try:
        fields = json.loads(line.decode("utf-8"))
        if not isinstance(fields, dict):
            raise TypeError("not a JSON object")
        match kind:
            case "multiple_choice":
                choices = _texts(fields, "choices")
                return MultipleChoice(number, _text(fields, "query"), choices, _gold(fields, len(choices)))
            case "schema":
                options = _texts(fields, "context_options")
                return Schema(number, options, _text(fields, "continuation"), _gold(fields, len(options)))
            case "language_modeling":
                return LanguageModeling(number, _text(fields, "context"), _text(fields, "continuation"))
    except (ValueError, TypeError, RecursionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise MachineLacks(f"is no {kind} example: {reason}", where=where, mend="mend or remove the line") from None


def _text(fields: Mapping[str, object], name: str) -> str:
    return _checked(_field(fields, name, str), name)


def _texts(fields: Mapping[str, object], name: str) -> tuple[str, ...]:
    values = _field(fields, name, list)
    if len(values) < 2 or not all(isinstance(value, str) for value in values):
        raise ValueError(f"`{name}` must be a list of two texts or more")
    return tuple(_checked(value, name) for value in values)


def _gold(fields: Mapping[str, object], options: int) -> int:
    gold = _field(fields, "gold", int)
    if isinstance(gold, bool) or not 0 <= gold < options:
        raise ValueError(f"`gold` is {gold}, and the options are 0 to {options - 1}")
    return gold


def _field(fields: Mapping[str, object], name: str, wanted: type[_T]) -> _T:
    if name not in fields:
        raise ValueError(f"`{name}` is missing")
    value = fields[name]
    if not isinstance(value, wanted):
        raise ValueError(f"`{name}` must be of type {wanted.__name__}")
    return value


def _checked(text: str, name: str) -> str:
    """`text`, unless it holds half of a surrogate pair, which no tokenizer can encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"`{name}` holds half of a surrogate pair") from None
    return text
