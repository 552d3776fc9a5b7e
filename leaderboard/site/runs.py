"""Runs as rows: results, where the time went, and the machines they ran on. Void runs are rows like the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Entry, Environment, Run
from leaderboard.site import wording
from leaderboard.site.page import NOTHING, Amount, kept_folder


@dataclass(frozen=True, slots=True)
class RunRow:
    """What came out of a run."""

    id: str
    role: str
    pair: str
    seed: str
    started: str
    state: str
    reason: str
    """Why a void run is void; empty otherwise."""
    time: Amount
    val_bpb: Amount
    core: Amount
    probes: str
    steps: str
    sandbox: str
    document: str
    curve: str
    """Paths of the raw files."""


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """Where a run's wall time went, in seconds."""

    run: str
    staging: Amount
    warmup: Amount
    initialise: Amount
    timed: Amount
    evaluation: Amount
    closing: Amount
    wall: Amount


@dataclass(frozen=True, slots=True)
class Machine:
    """An environment, and how many of the runs it carried."""

    runs: str
    facts: tuple[tuple[str, str], ...]
    packages: tuple[tuple[str, str], ...]


def run_rows(entry: Entry, runs: Sequence[Run]) -> tuple[RunRow, ...]:
    return tuple(_row(run, f"{kept_folder(entry)}/runs/{run.id}") for run in runs)


def _row(run: Run, folder: str) -> RunRow:
    scores = run.scores
    bpb, core = (scores.val_bpb, scores.core) if scores else (None, None)
    return RunRow(
        id=run.id,
        role=run.role,
        pair=wording.DASH if run.pair is None else str(run.pair),
        seed=str(run.seed_index),
        started=wording.minute(run.started_at),
        state=run.state,
        reason=(run.void_reason or "no reason recorded") if run.state == "void" else "",
        time=_seconds(run.timed_s),
        val_bpb=NOTHING if bpb is None else Amount(wording.bpb(bpb), sort=bpb),
        core=NOTHING if core is None else Amount(wording.core(core), sort=core),
        probes=_probes(run),
        steps=f"{run.steps:,}",
        sandbox=run.sandbox,
        document=f"{folder}/run.json",
        curve=f"{folder}/curve.parquet",
    )


def _probes(run: Run) -> str:
    if run.scores is None:
        return wording.DASH
    failed = [probe.name.replace("_", " ") for probe in run.scores.probes if not probe.passed]
    return "failed: " + wording.listed(failed) if failed else f"{len(run.scores.probes)} passed"


def phase_rows(runs: Sequence[Run]) -> tuple[PhaseRow, ...]:
    """Of the runs that have a whole time line."""
    return tuple(
        PhaseRow(
            run=run.id,
            staging=_seconds(phases.staging_s),
            warmup=_seconds(phases.warmup_s),
            initialise=_seconds(phases.initialise_s),
            timed=_seconds(phases.timed_s),
            evaluation=_seconds(phases.evaluation_s),
            closing=_seconds(phases.closing_s),
            wall=_seconds(phases.wall_s),
        )
        for run in runs
        if (phases := run.phases) is not None
    )


def machines(runs: Sequence[Run]) -> tuple[Machine, ...]:
    """The distinct environments, in order of first use."""
    groups: list[tuple[Environment, list[Run]]] = []
    for run in runs:
        same = next((group for environment, group in groups if environment == run.environment), None)
        if same is None:
            groups.append((run.environment, [run]))
        else:
            same.append(run)
    return tuple(_machine(environment, group) for environment, group in groups)


def _machine(environment: Environment, runs: list[Run]) -> Machine:
    kinds = sorted(set(environment.accelerators))
    accelerators = ", ".join(f"{environment.accelerators.count(kind)} × {kind}" for kind in kinds) or "none"
    commit = environment.git_commit or "unknown"
    facts = [
        ("Accelerators", accelerators),
        ("Processor", f"{environment.cpu}, {wording.count(environment.cpu_cores, 'core')}"),
        ("Memory", wording.size(environment.memory_bytes)),
        ("System", environment.os),
        ("Python", environment.python),
        ("Commit", commit + (", with local changes" if environment.git_dirty else "")),
        ("Host", environment.hostname_digest),
    ]
    peak = max((run.peak_memory_bytes for run in runs if run.peak_memory_bytes is not None), default=None)
    if peak is not None:
        facts.append(("Peak memory of a process", wording.size(peak)))
    parameters = {run.parameters for run in runs if run.role != "reference" and run.parameters is not None}
    if parameters:
        facts.append(("Parameters", wording.listed([wording.large(count) for count in sorted(parameters)])))
    return Machine(wording.count(len(runs), "run"), tuple(facts), tuple(sorted(environment.packages.items())))


def _seconds(value: float | None) -> Amount:
    return NOTHING if value is None else Amount(f"{value:,.2f}", sort=value)
