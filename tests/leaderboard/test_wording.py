"""Numbers as readers see them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboard.site import wording


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (wording.seconds(9.4123), "9.412 s"),
        (wording.seconds(23.416), "23.42 s"),
        (wording.seconds(5937.24), "5,937.2 s"),
        (wording.duration(23.41), "23.4 s"),
        (wording.duration(60), "1 min"),
        (wording.duration(1452), "24 min 12 s"),
        (wording.duration(5937), "1 h 38 min 57 s"),
        (wording.duration(3600), "1 h 0 min"),
        (wording.hours(168), "168 h"),
        (wording.hours(1.65), "1.65 h"),
        (wording.usd(43000), "$43,000"),
        (wording.usd(39.579), "$39.58"),
        (wording.usd(40), "$40"),
        (wording.usd(0.00332), "$0.0033"),
        (wording.target("core", 0.256525), "CORE ≥ 0.256525"),
        (wording.target("val_bpb", 2.35), "val bpb ≤ 2.35"),
        (wording.interval(0.905, 0.9187), "0.905–0.919"),
        (wording.faster(0.912), "8.8 % faster"),
        (wording.faster(1.012), "1.2 % slower"),
        (wording.percent(0.9593), "95.93 %"),
        (wording.p_value(0.0074), "p = 0.0074"),
        (wording.p_value(1e-9), "p < 0.0001"),
        (wording.signed(-0.0003, 5), "−0.00030"),
        (wording.signed(0.0004, 4), "+0.0004"),
        (wording.signed(-0.0000001, 4), "0.0000"),
        (wording.count(1, "run"), "1 run"),
        (wording.count(1200, "entry"), "1,200 entries"),
        (wording.size(62 * 2**30), "62.0 GiB"),
        (wording.size(3 * 2**20), "3.0 MiB"),
        (wording.large(1_384_122_122), "1.384 billion"),
        (wording.large(950), "950"),
        (wording.listed(["a"]), "a"),
        (wording.listed(["a", "b", "c"]), "a, b and c"),
        (wording.listed([]), ""),
    ],
)
def test_a_number_reads_like_this(shown, expected):
    assert shown.replace("\u00a0", " ") == expected


def test_times_are_shown_in_utc():
    moment = datetime(2026, 9, 1, 1, 30, tzinfo=timezone(timedelta(hours=3)))
    assert wording.minute(moment) == "2026-08-31 22:30 UTC"
    assert wording.day(moment) == "2026-08-31"
    assert wording.minute(datetime(2026, 9, 1, 1, 30)) == "2026-09-01 01:30 UTC"


@given(st.floats(min_value=60, max_value=1e7))
def test_a_duration_says_the_same_seconds(value):
    units = {"h": 3600, "min": 60, "s": 1}
    words = wording.duration(value).replace("\u00a0", " ").split()
    assert sum(int(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True)) == round(value)
