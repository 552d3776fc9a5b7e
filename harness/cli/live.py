"""What a person sees while runs go on: one bar for the series, one for the run in flight, on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from types import TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.conversation import CurvePoint
from harness.run import RunJob, RunResult, Watcher
from harness.series import Planned
from harness.track import Track
from leaderboard.merged import MergedDatabase


class LiveRuns:
    """Progress bars for a series of runs. Use as a context manager."""

    def __init__(self, track: Track, runs: int, beside: Sequence[float] = ()) -> None:
        """`runs` in all; `beside` is a loss per step to show next to the running one."""
        columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, TextColumn("{task.fields[detail]}"), console=Console(stderr=True))
        self._track = track
        self._series = self._bars.add_task(f"{track.title}: runs", total=runs, detail="")
        self._current = self._bars.add_task("", total=None, visible=False, detail="")
        self._begun = 0
        self._beside = beside

    def __enter__(self) -> LiveRuns:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._bars.update(self._series, completed=self._bars.tasks[0].total)
        self._bars.remove_task(self._current)
        self._bars.stop()

    def watch(self, planned: Planned, job: RunJob) -> Watcher:
        """Show the next run; the one before it counts as finished."""
        name = planned.submission.name if planned.pair is None else f"pair {planned.pair + 1} {planned.submission.name}"
        steps = self._track.base_config().num_steps if planned.role != "entry" else None
        self._bars.update(self._series, completed=self._begun)
        self._begun += 1
        self._bars.reset(self._current, description=name, total=steps, visible=True, detail="")

        def on_phase(phase: str) -> None:
            self._bars.update(self._current, description=f"{name}: {phase}")

        def on_step(point: CurvePoint) -> None:
            self._bars.update(self._current, completed=point.step, detail=f"loss {point.loss:.3f}{self._reference(point.step)}")

        return Watcher(on_phase, on_step)

    def _reference(self, step: int) -> str:
        return f", baseline {self._beside[step - 1]:.3f}" if step <= len(self._beside) else ""


def baseline_curve(results: MergedDatabase, track: Track) -> list[float]:
    """Mean training loss of the calibrated baseline at each step, nats; empty where the track version has no calibration."""
    calibration = results.calibration(track.name, track.version)
    if calibration is None:
        return []
    curves = [results.calibration_curve(track.name, track.version, run).loss for run in calibration.runs]
    return [fmean(losses) for losses in zip(*curves, strict=True)]


def curve_comparison(result: RunResult, baseline: Sequence[float]) -> None:
    """Print the run's loss beside the baseline's at eight points of the run."""
    if not result.curve or not baseline:
        return
    click.echo("step   loss    baseline's mean at that step")
    last = len(result.curve)
    for step in sorted({max(1, round(last * part / 8)) for part in range(1, 9)}):
        beside = f"{baseline[step - 1]:.3f}" if step <= len(baseline) else "finished by then"
        click.echo(f"{step:>5}  {result.curve[step - 1].loss:.3f}   {beside}")
