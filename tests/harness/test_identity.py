"""What makes a new entry, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import identity
from harness.identity import entry_digest, entry_id
from harness.submission import Submission
from harness.track import load_track

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def submission() -> Submission:
    return Submission.load(ROOT / "submissions" / "adamw_control")


def test_the_id_is_the_name_and_eight_digits(submission: Submission) -> None:
    track = load_track("nano")
    assert entry_id(submission, track) == f"adamw_control-{entry_digest(submission, track)[:8]}"


@pytest.mark.parametrize(
    ("change", "is_new"),
    [
        ({"title": "Other words", "description": "Other words", "pairs": 9}, False),
        ({"baseline_digest": "1" * 64}, True),
        ({"version": "nano-99"}, True),
    ],
)
def test_a_new_track_makes_a_new_entry_but_new_words_do_not(submission: Submission, change: dict[str, object], is_new: bool) -> None:
    track = load_track("nano")
    changed = track.model_copy(update=change)
    assert (entry_digest(submission, changed) != entry_digest(submission, track)) is is_new


def test_target_and_limits_are_part_of_the_identity(submission: Submission) -> None:
    track = load_track("nano")
    for section, field, value in (("target", "value", 9.9), ("limits", "run_s", 1.0), ("task", "depth", 9)):
        part = getattr(track, section).model_copy(update={field: value})
        assert entry_digest(submission, track.model_copy(update={section: part})) != entry_digest(submission, track)


def test_only_deciding_packages_of_the_lock_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(text: str) -> str:
        (tmp_path / "lock").write_text(text)
        monkeypatch.setattr(identity, "LOCK", tmp_path / "lock")
        identity.lock_digest.cache_clear()
        return identity.lock_digest()

    first = digest("ruff==1.0\ntorch==2.13.0\n")
    assert digest("ruff==2.0\ntorch==2.13.0\n") == first
    assert digest("ruff==1.0\ntorch==2.14.0\n") != first
    identity.lock_digest.cache_clear()
