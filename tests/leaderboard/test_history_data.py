"""The committed data: what nanochat found not to work, its board, and the line from $43,000 down."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from leaderboard.database import Database

COMMITTED = Database(Path(__file__).parents[2] / "leaderboard")
FIRST_ANNOUNCEMENT = {
    "nanochat-bigram-embeddings",
    "nanochat-fp8-lm-head",
    "nanochat-half-truncated-rope",
    "nanochat-multi-token-prediction",
    "nanochat-skip-connections-backout",
}


def test_the_five_ideas_of_the_first_announcement_are_findings():
    reported = {finding.id: finding for finding in COMMITTED.findings() if finding.id in FIRST_ANNOUNCEMENT}
    assert reported.keys() == FIRST_ANNOUNCEMENT
    for finding in reported.values():
        assert finding.kind == "reported"
        assert finding.verdict != "helps"
        assert finding.source.url == "https://github.com/karpathy/nanochat/blob/master/dev/LOG.md"
        assert finding.detectable is None


@pytest.mark.parametrize(
    ("finding_id", "quantity", "value"),
    [
        ("nanochat-multi-token-prediction", "memory", 13e9),
        ("nanochat-fp8-lm-head", "memory", 2e9),
        ("nanochat-fp8-lm-head", "throughput", 0.01),
        ("nanochat-skip-connections-backout", "memory", 2e9),
        ("nanochat-bigram-embeddings", "parameters", 32768 * 5 * 768),
    ],
)
def test_their_effects_are_those_of_the_source(finding_id, quantity, value):
    finding = next(finding for finding in COMMITTED.findings() if finding.id == finding_id)
    assert [effect.value for effect in finding.effects if effect.quantity == quantity] == [value]


def test_the_cost_line_begins_at_43000_and_73_dollars():
    line = COMMITTED.cost_history()
    assert [(point.date, point.cost_usd, point.hours) for point in line[:2]] == [("2019", 43_000, 168), ("2026-01-29", 73, 3.04)]
    assert [point.cost_usd for point in line] == sorted((point.cost_usd for point in line), reverse=True)


def test_the_first_price_is_that_of_the_hardware_named():
    first = COMMITTED.cost_history()[0]
    assert first.hardware == "32 TPU v3"
    assert first.cost_usd == pytest.approx(first.hours * 32 * 8, rel=0.001)


def test_later_prices_are_hours_at_24_dollars():
    for point in COMMITTED.cost_history()[1:]:
        assert point.cost_usd == round(point.hours * 24)


def test_the_reported_rows_are_nanochats_runs_0_to_6():
    rows = {entry.id: entry for entry in COMMITTED.reported()}
    assert [f"nanochat-run-{i}" for i in range(7)] == [row for row in rows if row.startswith("nanochat-run-")]
    assert [rows[f"nanochat-run-{i}"].hours for i in range(7)] == [168, 3.04, 2.91, 2.76, 2.02, 1.80, 1.65]
    assert all(row.track == "gpt2" and row.accepted for row in rows.values())


def test_run_4_keeps_all_seven_of_its_scores():
    run4 = next(entry for entry in COMMITTED.reported() if entry.id == "nanochat-run-4")
    assert len(run4.core) == run4.runs == 7
    assert fmean(run4.core) == pytest.approx(0.257140, abs=5e-7)
    assert sum(score > 0.256525 for score in run4.core) == 4


def test_every_accepted_figure_has_its_price_on_the_cost_line():
    line = {point.date: point for point in COMMITTED.cost_history()}
    for row in COMMITTED.reported():
        assert (line[row.date].hours, line[row.date].cost_usd) == (row.hours, row.cost_usd)


def test_no_sample_reached_the_committed_database():
    assert not any("Ada Quist" in content.decode(errors="ignore") for content in COMMITTED.documents().values())
