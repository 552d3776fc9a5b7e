"""The event log of one run, on the parent's monotonic clock. Nothing that a child says about time enters it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from harness.record import Event


@dataclass(slots=True)
class EventLog:
    """Ordered events, in nanoseconds since the log began."""

    _began_ns: int = field(default_factory=time.monotonic_ns)
    _events: list[Event] = field(default_factory=list)

    def mark(self, name: str, at_ns: int | None = None) -> int:
        """Record an event now, or at a `time.monotonic_ns()` read earlier; returns nanoseconds since the beginning."""
        at = (time.monotonic_ns() if at_ns is None else at_ns) - self._began_ns
        self._events.append(Event(name=name, at_ns=at))
        return at

    def since_start(self, at_ns: int) -> int:
        """A `time.monotonic_ns()` read as nanoseconds since the log began."""
        return at_ns - self._began_ns

    def events(self) -> tuple[Event, ...]:
        return tuple(sorted(self._events, key=lambda event: event.at_ns))
