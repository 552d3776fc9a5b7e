"""The event log: one clock, ordered, from zero."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from harness.events import EventLog


def test_time_starts_when_the_log_is_made() -> None:
    before = time.monotonic_ns()
    log = EventLog()
    after = time.monotonic_ns()
    assert log.mark("late", after + 1000) <= 1000 + after - before
    assert log.mark("start") >= 0


def test_a_mark_with_a_time_read_earlier_stands_at_that_time() -> None:
    log = EventLog()
    read = time.monotonic_ns()
    time.sleep(0.01)
    assert log.mark("ready", read) == log.since_start(read) < log.mark("now") - 9_000_000


@given(st.lists(st.integers(0, 10**12), max_size=20))
def test_events_come_out_in_the_order_of_time_whatever_the_order_of_marking(offsets: list[int]) -> None:
    log = EventLog()
    began = time.monotonic_ns()
    for offset in offsets:
        log.mark("event", began + offset)
    times = [event.at_ns for event in log.events() if event.name == "event"]
    assert times == sorted(times)
    assert len(times) == len(offsets)


def test_events_at_the_same_time_keep_the_order_of_marking() -> None:
    log = EventLog()
    at = time.monotonic_ns()
    for name in ("first", "second", "third"):
        log.mark(name, at)
    assert [event.name for event in log.events()] == ["first", "second", "third"]
