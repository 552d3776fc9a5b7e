"""Pinning: what is written into a track's file, and what is left alone."""

from __future__ import annotations

import shutil
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.calibrate import MARGIN_SIGMAS, set_fields, target_of
from harness.errors import UsageProblem
from harness.record import Calibration
from harness.track import TRACKS_FOLDER, load_track

TOML = '[a]\nx = 1\ny = "two"  # why\n\n[b]\nx = 3\n'


def calibration(mean: float, sigma: float) -> Calibration:
    return Calibration(
        track="nano",
        track_version="nano-1",
        baseline="0" * 64,
        runs=("baseline-00",),
        metric="val_bpb",
        mean=mean,
        sd=sigma / 1.3,
        pinned_sigma=sigma,
        mean_timed_s=40.0,
        timed_cv=0.01,
        decided_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_fields_are_set_in_their_own_section_only() -> None:
    assert tomllib.loads(set_fields(TOML, "a", {"x": "7"})) == {"a": {"x": 7, "y": "two"}, "b": {"x": 3}}


def test_a_new_field_is_added_to_its_section() -> None:
    assert tomllib.loads(set_fields(TOML, "b", {"z": "9"})) == {"a": {"x": 1, "y": "two"}, "b": {"x": 3, "z": 9}}
    assert tomllib.loads(set_fields(TOML, "a", {"z": "9"}))["a"] == {"x": 1, "y": "two", "z": 9}


def test_a_missing_section_is_an_error() -> None:
    with pytest.raises(UsageProblem, match=r"\[c\]"):
        set_fields(TOML, "c", {"x": "1"})


def test_pinned_fields_are_read_back_and_nothing_else_changes(tmp_path: Path) -> None:
    shutil.copy(TRACKS_FOLDER / "nano.toml", tmp_path)
    before = load_track("nano", tmp_path)
    path = tmp_path / "nano.toml"
    path.write_text(set_fields(path.read_text(), "target", {"value": "1.234", "sigma": "0.0045"}))
    after = load_track("nano", tmp_path)
    assert (after.target.value, after.target.sigma) == (1.234, 0.0045)
    assert after.model_copy(update={"target": before.target}) == before


@pytest.mark.parametrize(("mean", "sigma"), [(1.5, 0.002), (1.4999, 0.00033), (1.2, 0.01)])
def test_the_target_lies_three_sigmas_above_the_mean_rounded_up(mean: float, sigma: float) -> None:
    target = target_of(calibration(mean, sigma))
    assert 0 <= target - (mean + MARGIN_SIGMAS * sigma) < 0.001
    assert round(target, 3) == pytest.approx(target, abs=1e-9)
