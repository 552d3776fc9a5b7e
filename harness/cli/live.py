"""What a person sees while runs go on: one bar for the series, one for the run in flight, on stderr."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.conversation import CurvePoint
from harness.run import RunJob, RunResult, Watcher
from harness.series import Planned
from harness.track import Track
from leaderboard.merged import MergedDatabase


class LiveRuns:
    """Progress bars for a series of runs. Use as a context manager."""

    def __init__(self, track: Track, runs: int) -> None:
        columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, TextColumn("{task.fields[detail]}"), console=Console(stderr=True))
        self._track = track
        self._series = self._bars.add_task(f"{track.title}: runs", total=runs, detail="")
        self._current = self._bars.add_task("", total=None, visible=False, detail="")
        self._begun = 0

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
            self._bars.update(self._current, completed=point.step, detail=f"loss {point.loss:.3f}")

        return Watcher(on_phase, on_step)


def curve_comparison(result: RunResult, results: MergedDatabase, track: Track) -> None:
    """Print the run's loss beside the mean of the calibrated baseline's, at eight points of the run."""
    calibration = results.calibration(track.name, track.version)
    if calibration is None or not result.curve:
        return
    curves = [results.calibration_curve(track.name, track.version, run).loss for run in calibration.runs]
    console = Console()
    console.print("step   loss    baseline's mean at that step")
    last = len(result.curve)
    for step in sorted({max(1, round(last * part / 8)) for part in range(1, 9)}):
        there = [curve[step - 1] for curve in curves if len(curve) >= step]
        beside = f"{sum(there) / len(there):.3f}" if there else "finished by then"
        console.print(f"{step:>5}  {result.curve[step - 1].loss:.3f}   {beside}")
