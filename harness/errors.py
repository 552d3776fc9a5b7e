"""The errors a person meets: one line that says what is wrong, where, and what to do; and the exit code that goes with it."""

# ruff: noqa: N818 - the classes are named for what happened; that they are errors goes without saying
from __future__ import annotations

from typing import ClassVar

MAX_MESSAGE_CHARACTERS = 600
"""Longer messages are cut: part of them may come from a submission."""


class SpeedrunError(Exception):
    """Base of all errors that end a command. `str(error)` is one printable line: `where: what; mend`."""

    exit_code: ClassVar[int]

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        self.what = what
        self.where = where
        self.mend = mend
        super().__init__(one_line(f"{where + ': ' if where else ''}{what}{'; ' + mend if mend else ''}"))


class NotMet(SpeedrunError):
    """A verdict that was asked for was not reached."""

    exit_code = 1


class UsageProblem(SpeedrunError):
    """The command was called with something that cannot work: a path that does not exist, a name that is taken."""

    exit_code = 2


class RuleViolation(SpeedrunError):
    """The submission breaks a rule, or the contract of a slot or of `submission.toml`."""

    exit_code = 3


class MachineLacks(SpeedrunError):
    """This machine lacks something that the command needs: a GPU, a package, memory, time."""

    exit_code = 4


class VoidRun(SpeedrunError):
    """A run ended without a result: preempted, a rank died, out of memory.

    `by_entry` says that the entry's own code gave up, which counts against it; a machine that fails does not.
    """

    exit_code = 5

    def __init__(self, what: str, *, by_entry: bool = False) -> None:
        self.by_entry = by_entry
        super().__init__(what)


def one_line(text: str) -> str:
    """`text` on one line: white space collapsed, control characters escaped (a terminal must not obey a submission), length capped."""
    flat = " ".join(text.split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in flat)
    return shown if len(shown) <= MAX_MESSAGE_CHARACTERS else shown[: MAX_MESSAGE_CHARACTERS - 1] + "…"
