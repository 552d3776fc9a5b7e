"""The tables that end a command."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.calibrate import CalibrationOutcome
from harness.cost import run_usd
from harness.judge import Judgement
from harness.record import Run, Superiority, Validity
from harness.submit import Judged
from harness.track import load_track


def print_judged(judged: Judged) -> None:
    """Reference and entry side by side, the two verdicts in words, and the parent's overhead."""
    console = Console()
    judgement, verdict = judged.judgement, judged.verdict
    table = Table(
        "",
        "val bpb",
        "seconds",
        "time ratio",
        "interval",
        "dollars",
        "status",
        title=escape(f"{judged.entry.title} on {judged.entry.track}"),
    )
    _row(table, judgement.reference_runs[0].submission, judgement.reference_runs, judged, None, "reference")
    _row(table, judged.entry.name, judgement.entry_runs, judged, verdict.superiority, judged.entry.status)
    console.print(table)
    console.print(_valid_words(verdict.validity))
    console.print(_better_words(verdict.superiority))
    if judged.verification:
        console.print(f"[bold]{judged.verification.outcome}[/]: {judged.verification.reason}")
    for run in (*judgement.reference_runs, *judgement.entry_runs):
        if run.state == "void":
            console.print(f"[yellow]void[/] {run.id}: {escape(run.void_reason or '')}", highlight=False)
    console.print(_overhead_words(judgement))


def run_line(run: Run) -> None:
    """One finished run in one line, and where its wall time went."""
    assert run.scores is not None
    assert run.phases is not None
    score = "no score: a probe failed" if run.scores.val_bpb is None else f"val bpb {run.scores.val_bpb:.4f}"
    click.echo(f"{run.submission}: {score}, {run.phases.timed_s:.1f} s for {run.steps} steps, {run.tokens:,} tokens")
    click.echo(phase_words([run]))


def calibration_table(outcome: CalibrationOutcome) -> None:
    calibration = outcome.calibration
    table = Table("", "value", title=f"{calibration.track_version}: {len(calibration.runs)} baseline seeds", show_header=False)
    table.add_row(f"mean {calibration.metric}", f"{calibration.mean:.5f}")
    table.add_row("standard deviation", f"{calibration.sd:.5f}")
    table.add_row("pinned sigma (upper 80 % bound)", f"{calibration.pinned_sigma:.5f}")
    table.add_row("target", f"{outcome.target:.3f}")
    table.add_row("mean seconds", f"{calibration.mean_timed_s:.2f} (variation {calibration.timed_cv:.1%})")
    Console().print(table)
    click.echo("pinned in the track's file" if outcome.pinned else "not pinned; --pin writes these into the track's file")


def phase_words(runs: Sequence[Run]) -> str:
    """Mean seconds of each phase, and the parent's own share."""
    phases = [run.phases for run in runs if run.phases is not None]
    if not phases:
        return "no run finished, so there is no time line"
    wall, overhead = fmean(p.wall_s for p in phases), fmean(p.overhead_s for p in phases)
    parts = {
        "staging": fmean(p.staging_s for p in phases),
        "warm-up": fmean(p.warmup_s for p in phases),
        "initialise": fmean(p.initialise_s for p in phases),
        "timed": fmean(p.timed_s for p in phases),
        "evaluation": fmean(p.evaluation_s for p in phases),
        "closing": fmean(p.closing_s for p in phases),
    }
    listed = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items())
    return f"A run's {wall:.1f} s: {listed}. The parent's own overhead is {overhead:.1f} s, {overhead / wall:.1%}."


def _overhead_words(judgement: Judgement) -> str:
    return phase_words([*judgement.reference_runs, *judgement.entry_runs])


def _row(table: Table, name: str, runs: Sequence[Run], judged: Judged, superiority: Superiority | None, status: str) -> None:
    finished = [run for run in runs if run.state == "finished" and run.scores is not None]
    scores = [run.scores.val_bpb for run in finished if run.scores and run.scores.val_bpb is not None]
    seconds = [run.timed_s for run in finished if run.timed_s is not None]
    price = load_track(judged.entry.track).reference_price()
    table.add_row(
        name,
        f"{fmean(scores):.4f}" if scores else "–",
        f"{fmean(seconds):.2f}" if seconds else "–",
        f"{superiority.ratio:.4f}" if superiority else ("1" if status == "reference" else "–"),
        f"{superiority.low:.3f} to {superiority.high:.3f}" if superiority else "–",
        f"{run_usd(fmean(seconds), price):.6f}" if seconds else "–",
        status,
    )


def _valid_words(validity: Validity | None) -> str:
    if validity is None:
        return "Valid? [bold]undecided[/]: no run of the entry has a score."
    return (
        f"Valid? [bold]{validity.verdict}[/]: mean {validity.metric} {validity.mean:.4f} over {validity.runs} runs, "
        f"target {validity.target:.3f}, z {validity.z:.2f} of {validity.bound:.2f} needed."
    )


def _better_words(superiority: Superiority | None) -> str:
    if superiority is None:
        return "Better? [bold]undecided[/]: two complete pairs are the least that says anything."
    seen = (
        f" With this spread, {superiority.pairs} pairs would have shown a ratio of {superiority.detectable:.3f} (80 % power)."
        if superiority.detectable
        else ""
    )
    return (
        f"Better? [bold]{superiority.verdict}[/]: {superiority.ratio:.3f} of the reference's time, "
        f"{superiority.level:.1%} interval {superiority.low:.3f} to {superiority.high:.3f}.{seen}"
    )
