"""The committed database holds what the harness wrote: digests, seeds and verdicts follow again from its raw runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.identity import entry_digest
from harness.judge import judge
from harness.record import Entry
from harness.seeds import derive_seed
from harness.submit import restore
from harness.track import load_track
from leaderboard.database import Database
from leaderboard.merged import MergedDatabase

COMMITTED = Database(Path(__file__).resolve().parents[2] / "leaderboard")
CURRENT = [entry for entry in COMMITTED.entries() if entry.track_version == load_track(entry.track).version]


@pytest.mark.parametrize("entry", CURRENT, ids=[entry.id for entry in CURRENT])
def test_an_entry_is_what_its_digest_says(entry: Entry, tmp_path: Path) -> None:
    submission = restore(entry.id, MergedDatabase([COMMITTED]), tmp_path)
    assert submission.digest == entry.digests.submission
    assert entry_digest(submission, load_track(entry.track)) == entry.digests.entry


@pytest.mark.parametrize("entry", CURRENT, ids=[entry.id for entry in CURRENT])
def test_every_seed_follows_from_what_the_run_records(entry: Entry) -> None:
    ruleset = load_track(entry.track).ruleset.id
    for run in COMMITTED.runs(entry.id):
        assert derive_seed(run.digests.submission, run.digests.baseline, ruleset, run.nonce, run.seed_index).value == run.seed
        assert run.digests.baseline == entry.digests.baseline


@pytest.mark.parametrize("entry", CURRENT, ids=[entry.id for entry in CURRENT])
def test_every_verdict_follows_from_its_runs(entry: Entry) -> None:
    track = load_track(entry.track)
    runs = {run.id: run for run in COMMITTED.runs(entry.id)}
    for verdict in COMMITTED.verdicts(entry.id):
        own = [runs[name] for name in verdict.runs if runs[name].role != "reference"]
        beside = [runs[name] for name in verdict.runs if runs[name].role == "reference"]
        again = judge(
            own,
            beside,
            ruleset=track.ruleset,
            metric=track.target.metric,
            target=track.target.value,
            sigma=track.target.sigma,
            against=verdict.superiority.against if verdict.superiority else entry.id,
            price=track.reference_price(),
            final=verdict.kind != "verify",
        )
        assert (again.validity, again.superiority, again.cost) == (verdict.validity, verdict.superiority, verdict.cost)


def test_the_three_entries_of_the_repository_are_published_and_the_control_is_caught() -> None:
    verdicts = {entry.name: COMMITTED.verdicts(entry.id)[-1] for entry in CURRENT if entry.track == "nano"}
    assert {"baseline", "adamw_control", "muon_tweak"} <= set(verdicts)
    control, baseline = verdicts["adamw_control"].validity, verdicts["baseline"].validity
    assert control is not None
    assert control.verdict == "not valid"
    assert baseline is not None
    assert baseline.verdict == "valid"
