"""Calibration: baseline seeds, the spread of their metric, and the sigma and target that a track pins from them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev

from harness.check import CheckReport, explain
from harness.environment import read_environment
from harness.errors import UsageProblem, VoidRun
from harness.identity import entry_id
from harness.judge import judge, verdict_of
from harness.keep import curve_of, keep_entry, verdict_id
from harness.launch import REPOSITORY
from harness.prepared import PreparedData
from harness.record import Calibration, Run, StatusChange
from harness.run import RunResult
from harness.seeds import draw_nonce
from harness.series import Planned, Series, perform_series
from harness.statistics import pinned_sigma
from harness.submission import Submission
from harness.submit import Place, Watch
from harness.track import TRACKS_FOLDER, Track, load_track
from leaderboard.atomic import write_file
from leaderboard.curve import Curve

MARGIN_SIGMAS = 3.0
"""Between the baseline's mean and the target: a copy of the baseline is then valid at the first look with probability 0.995."""
FEWEST_SEEDS = 10
"""To pin a sigma from; fewer give a bound too wide to be of use."""
TARGET_STEP = 0.001
"""Targets are round numbers."""


@dataclass(frozen=True, slots=True)
class CalibrationOutcome:
    """A calibration, the target that follows from it, and whether both were written into the track's file."""

    calibration: Calibration
    target: float
    pinned: bool


def calibrate_track(
    track: Track, baseline: CheckReport, data: PreparedData, seeds: int, pin: bool, place: Place, watch: Watch
) -> CalibrationOutcome:
    """Run `seeds` baseline seeds, keep them as a calibration and as the baseline's entry, and pin what follows if asked."""
    if place.database.calibration(track.name, track.version):
        raise UsageProblem(
            f"{track.version} is calibrated already", where=f"harness/tracks/{track.name}.toml", mend="give the track a new version first"
        )
    if pin and seeds < FEWEST_SEEDS:
        raise UsageProblem(f"{seeds} seeds are too few to pin a spread from", mend=f"use --seeds {FEWEST_SEEDS} or more")
    results: list[RunResult] = []

    def keep(result: RunResult) -> None:
        results.append(result)
        if result.run.scores is None or result.run.scores.val_bpb is None:
            reason = result.run.void_reason or "a probe failed"
            raise VoidRun(f"a calibration needs every seed, and {result.run.id} has no score: {reason}")

    series = Series(track, data, read_environment(REPOSITORY), draw_nonce(), place.work_folder)
    perform_series(series, _planned(baseline.submission, seeds), keep, watch)
    calibration = calibration_of(track, [result.run for result in results])
    target = target_of(calibration)
    kept = [(result.run, curve_of(result)) for result in results]
    place.database.add_calibration(calibration, kept)
    if pin:
        pin_track(track, calibration, target, data)
        track = load_track(track.name)
    _keep_baseline_entry(track, baseline, kept, place)
    return CalibrationOutcome(calibration, target, pin)


def calibration_of(track: Track, runs: list[Run]) -> Calibration:
    """Mean, spread and pinned sigma of the track's metric over finished runs."""
    scores = [score for run in runs if run.scores and (score := run.scores.val_bpb) is not None]
    seconds = [run.timed_s for run in runs if run.timed_s is not None]
    return Calibration(
        track=track.name,
        track_version=track.version,
        baseline=track.baseline_digest,
        runs=tuple(run.id for run in runs),
        metric="val_bpb",
        mean=fmean(scores),
        sd=stdev(scores),
        pinned_sigma=pinned_sigma(scores),
        mean_timed_s=fmean(seconds),
        timed_cv=stdev(seconds) / fmean(seconds),
        decided_at=datetime.now(UTC),
    )


def target_of(calibration: Calibration) -> float:
    """The baseline's mean plus MARGIN_SIGMAS pinned sigmas, rounded up to TARGET_STEP: lower bpb is better."""
    ideal = calibration.mean + MARGIN_SIGMAS * calibration.pinned_sigma
    return math.ceil(ideal / TARGET_STEP) * TARGET_STEP


def pin_track(track: Track, calibration: Calibration, target: float, data: PreparedData, folder: Path = TRACKS_FOLDER) -> None:
    """Write target, sigma and data digests into the track's TOML file, leaving everything else as it is."""
    path = folder / f"{track.name}.toml"
    source = f"{len(calibration.runs)} baseline seeds, upper 80 % bound"
    values = {
        "target": {"value": f"{target:.3f}", "sigma": f"{calibration.pinned_sigma:.6f}", "sigma_source": f'"{source}"'},
        "data": {
            "corpus_digest": f'"{data.train.corpus_sha256}"',
            "tokenizer_digest": f'"{data.tokenizer_digest}"',
            "train_rows_digest": f'"{data.train_rows_digest}"',
            "val_rows_digest": f'"{data.val_rows_digest}"',
        },
    }
    if data.origin and data.origin.shards_digest:
        values["data"] |= {"shards_digest": f'"{data.origin.shards_digest}"', "revision": f'"{data.origin.revision}"'}
    text = path.read_text()
    for section, changes in values.items():
        text = set_fields(text, section, changes)
    write_file(path, text.encode())


def set_fields(toml: str, section: str, values: Mapping[str, str]) -> str:
    """Set `name = value` lines of one `[section]`, replacing those that are there and adding the others at its end."""
    pattern = re.compile(rf"(?ms)^\[{re.escape(section)}\]\n(.*?)(?=^\[|\Z)")
    match = pattern.search(toml)
    if match is None:
        raise UsageProblem(f"has no [{section}] table", mend="restore the track's file with git")
    body = match.group(1)
    for name, value in values.items():
        body, replaced = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", body)
        if not replaced:
            body = body.rstrip("\n") + f"\n{name} = {value}\n\n"
    return toml[: match.start(1)] + body + toml[match.end(1) :]


def _planned(baseline: Submission, seeds: int) -> Iterator[Planned]:
    return (Planned(baseline, "calibration", None, index) for index in range(seeds))


def _keep_baseline_entry(track: Track, report: CheckReport, runs: list[tuple[Run, Curve]], place: Place) -> None:
    """The baseline is an entry too: the one that everything is measured against."""
    database = place.database
    baseline = report.submission
    entry = keep_entry(database, baseline, track, explain(report, track, None), place.by)
    for run, curve in runs:
        database.add_run(entry.id, run, curve)
    judgement = judge(
        [run for run, _ in runs],
        [],
        ruleset=track.ruleset,
        metric=track.target.metric,
        target=track.target.value,
        sigma=track.target.sigma,
        against=entry_id(baseline, track),
        price=track.reference_price(),
        final=True,
    )
    verdict = verdict_of(
        judgement, id=verdict_id("calibrate", runs[0][0].nonce), kind="calibrate", decided_at=datetime.now(UTC), by=place.by
    )
    database.add_verdict(entry.id, verdict)
    if entry.status == "claimed":
        change = StatusChange(status="checked", at=datetime.now(UTC), reason="the calibrated reference of its track", by=place.by)
        database.set_status(entry.id, change)
