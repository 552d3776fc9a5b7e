"""What a rule is, and the list of all rules. Each file beside this one adds its rules when the package is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from harness.rules.source import SourceFile

Severity = Literal["refuse", "warn"]
"""`refuse` keeps a submission from being run; `warn` is shown, and does not."""

Breach = tuple[int, str]
"""(line, what is wrong and what to do), of one place that breaks a rule."""

CheckFn = Callable[[SourceFile], Iterable[Breach]]


@dataclass(frozen=True, slots=True)
class Example:
    """A slot file that a rule allows or refuses; the tests run every one."""

    code: str
    file: str = "model.py"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its number, its text for people, and its check of one file. A check never executes the file."""

    id: str
    title: str
    paragraph: str
    severity: Severity
    allowed: tuple[Example, ...]
    refused: tuple[Example, ...]
    check: CheckFn


@dataclass(frozen=True, slots=True)
class RuleFinding:
    """A place in a submission that breaks a rule."""

    rule: str
    severity: Severity
    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


RULES: dict[str, Rule] = {}
"""All rules by id, in the order of RULES.md."""


def rule(
    id: str,
    title: str,
    paragraph: str,
    *,
    allowed: tuple[Example, ...],
    refused: tuple[Example, ...],
    severity: Severity = "refuse",
) -> Callable[[CheckFn], CheckFn]:
    """Register the decorated check as rule `id`. Paragraphs are written over several lines and joined here."""

    def register(check: CheckFn) -> CheckFn:
        if id in RULES:
            raise ValueError(f"rule {id} is defined twice")
        RULES[id] = Rule(id, title, " ".join(paragraph.split()), severity, allowed, refused, check)
        return check

    return register
