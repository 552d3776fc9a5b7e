"""The commands that train: `run`, `submit`, `verify`, `calibrate`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from harness.calibrate import calibrate_track
from harness.cli.board import build_board
from harness.cli.data import prepare_with_bars
from harness.cli.live import LiveRuns, baseline_curve, curve_comparison
from harness.cli.options import (
    LOCAL,
    SITE,
    SUBMISSIONS,
    by_option,
    database_option,
    everything,
    json_option,
    print_json,
    signer,
    track_option,
)
from harness.cli.report import calibration_table, print_judged, run_line
from harness.environment import read_environment
from harness.errors import NotMet, VoidRun
from harness.launch import REPOSITORY
from harness.record import Verdict
from harness.run import perform
from harness.seeds import draw_nonce
from harness.series import Planned, Series, job_of
from harness.submission import Submission
from harness.submit import Judged, Place, require_checked
from harness.submit import submit as submit_entry
from harness.submit import verify as verify_entry
from harness.track import load_track
from leaderboard.database import Database
from leaderboard.site.page import entry_path

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("path", type=PATH)
@track_option
@json_option
def run(path: Path, track_name: str, as_json: bool) -> None:
    """Train PATH once, unrecorded, beside the curve of the calibrated baseline."""
    track = load_track(track_name)
    submission = Submission.load(path)
    require_checked(submission, track)
    series = Series(track, prepare_with_bars(track, recorded=False), read_environment(REPOSITORY), draw_nonce(), LOCAL)
    planned = Planned(submission, "entry", None, 0)
    baseline = baseline_curve(everything(), track)
    with LiveRuns(track, 1, baseline) as live:
        job = job_of(series, planned)
        result = perform(job, live.watch(planned, job))
    if result.run.state == "void":
        raise VoidRun(f"void: {result.run.void_reason}; its console is {result.console}")
    if as_json:
        print_json({"run": result.run.model_dump(mode="json"), "timed_s": result.run.timed_s})
        return
    run_line(result.run)
    curve_comparison(result, baseline)


@click.command()
@click.argument("path", type=PATH)
@track_option
@click.option("--pairs", type=click.IntRange(1, 100), default=None, help="Interleaved pairs to run.  [default: the track's]")
@click.option(
    "--against", type=PATH, default=SUBMISSIONS / "baseline", show_default="submissions/baseline", help="The reference to run beside."
)
@click.option("--require", type=click.Choice(["valid", "better"]), default=None, help="Exit with 1 unless this verdict is reached.")
@database_option
@by_option
@json_option
def submit(
    path: Path, track_name: str, pairs: int | None, against: Path, require: str | None, database: Path, by: str | None, as_json: bool
) -> None:
    """Check PATH, run it in turn with the baseline, judge it, write the entry, rebuild the board."""
    track = load_track(track_name)
    entry, reference = Submission.load(path), Submission.load(against)
    beside, report = require_checked(reference, track), require_checked(entry, track)
    prepared = prepare_with_bars(track)
    pairs = pairs or track.pairs
    place = Place(Database(database), everything(database), LOCAL, signer(by))
    with LiveRuns(track, 2 * pairs) as live:
        judged = submit_entry(report, beside, track, prepared, pairs, place, live.watch)
    _finish(judged, database, as_json)
    _require(judged.verdict, require)


@click.command()
@click.argument("entry_id")
@click.option("--pairs", type=click.IntRange(2, 100), default=None, help="Fresh interleaved pairs.  [default: the track's]")
@database_option
@by_option
@json_option
def verify(entry_id: str, pairs: int | None, database: Path, by: str | None, as_json: bool) -> None:
    """Re-run a published entry here with fresh seeds, and append the verdict. Exit code 1 unless it is reproduced."""
    claims = everything(database)
    entry = claims.entry(entry_id)
    track = load_track(entry.track)
    prepared = prepare_with_bars(track)
    pairs = pairs or track.pairs
    place = Place(Database(database), claims, LOCAL, signer(by))
    with tempfile.TemporaryDirectory(prefix="speedrun-") as scratch, LiveRuns(track, 2 * pairs) as live:
        judged = verify_entry(entry, track, prepared, pairs, place, live.watch, Path(scratch))
    _finish(judged, database, as_json)
    assert judged.verification is not None
    if judged.verification.outcome != "reproduced":
        raise NotMet(f"{entry_id} is {judged.verification.outcome}: {judged.verification.reason}")


@click.command()
@click.argument("track_name", metavar="TRACK")
@click.option("--seeds", type=click.IntRange(3, 1000), default=10, show_default=True, help="Baseline runs.")
@click.option("--pin", is_flag=True, help="Write sigma, target and data digests into the track's file.")
@database_option
@by_option
@json_option
def calibrate(track_name: str, seeds: int, pin: bool, database: Path, by: str | None, as_json: bool) -> None:
    """Run baseline seeds of TRACK, estimate the spread of its metric, and show (or pin) sigma and target."""
    track = load_track(track_name)
    baseline = require_checked(Submission.load(SUBMISSIONS / "baseline"), track)
    prepared = prepare_with_bars(track)
    with LiveRuns(track, seeds) as live:
        place = Place(Database(database), everything(database), LOCAL, signer(by))
        outcome = calibrate_track(track, baseline, prepared, seeds, pin, place, live.watch)
    if as_json:
        print_json(outcome.calibration.model_dump(mode="json"))
    else:
        calibration_table(outcome)
    build_board(database)


def _finish(judged: Judged, database: Path, as_json: bool) -> None:
    """The last thing that a person sees: the table, and then the page, whose building may fail without losing the table."""
    page = (SITE / entry_path(judged.entry)).resolve()
    if as_json:
        print_json(_as_values(judged, page))
    else:
        print_judged(judged)
    build_board(database)
    click.echo(f"The page: {page}", err=as_json)
    undecided = judged.verification is None or judged.verification.outcome == "undecided"
    if undecided and not any(run.state == "finished" for run in judged.judgement.entry_runs):
        void = judged.judgement.entry_runs[-1]
        raise VoidRun(f"every run of the entry is void: {void.void_reason}")


def _as_values(judged: Judged, page: Path) -> dict[str, Any]:
    return {
        "entry": judged.entry.model_dump(mode="json"),
        "verdict": judged.verdict.model_dump(mode="json"),
        "verification": judged.verification.outcome if judged.verification else None,
        "page": page,
    }


def _require(verdict: Verdict, wanted: str | None) -> None:
    part = {"valid": verdict.validity, "better": verdict.superiority}.get(wanted or "")
    if wanted and (part is None or part.verdict != wanted):
        raise NotMet(f"--require {wanted}: the verdict is {part.verdict if part else 'undecided'}")
    if wanted == "better" and (verdict.validity is None or verdict.validity.verdict != "valid"):
        raise NotMet("--require better: the entry is not valid")
