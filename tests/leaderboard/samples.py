"""Sample results, as realistic as the schema allows and the same on every call. They never reach the committed database."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from harness.record import (
    Author,
    Calibration,
    Component,
    Cost,
    Effect,
    Entry,
    EntryDigests,
    Environment,
    Event,
    Finding,
    Probe,
    ReportedEntry,
    Run,
    RunDigests,
    Scores,
    Source,
    Status,
    StatusChange,
    Superiority,
    Validity,
    Verdict,
)
from leaderboard.curve import Curve
from leaderboard.database import Database
from leaderboard.site.track import TrackInfo

DAY_ONE = datetime(2026, 9, 1, 8, 0, tzinfo=UTC)

MODEL_SOURCE = '''"""Keeps the baseline's model and halves the short window."""

from baseline import model


def build_model(config, ops):
    return model.build_model(config.with_(window_pattern="SSSSSL"), ops)
'''


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Task:
    """What a sample track's runs look like."""

    name: str
    version: str
    steps: int
    seconds: float
    bpb: float
    core: float | None
    target: float
    sigma: float
    usd_per_hour: float
    accelerators: tuple[str, ...]


NANO = Task("nano", "nano-v1", 120, 24.0, 2.310, None, 2.35, 0.004, 0.5, ())
GPU1 = Task("gpu1", "gpu1-v1", 2400, 640.0, 0.8712, None, 0.88, 0.0006, 3.0, ("NVIDIA H100 80GB HBM3",))
GPT2 = Task("gpt2", "gpt2-v1", 5568, 5900.0, 0.7181, 0.2665, 0.256525, 0.0056, 24.0, ("NVIDIA H100 80GB HBM3",) * 8)

TRACKS = (
    TrackInfo(
        name="gpt2",
        title="GPT-2 on one node",
        version="gpt2-v1",
        hardware="8 × H100 SXM",
        data="ClimbMix, 150 shards",
        metric="core",
        target=0.256525,
        provisional=("sigma is from 33 public runs of another trainer",),
        description="The record: reach GPT-2's CORE on one node of eight H100s, as fast as possible.",
        reference_usd_per_hour=24.0,
    ),
    TrackInfo(
        name="gpu1",
        title="One GPU, ten minutes",
        version="gpu1-v1",
        hardware="one data-centre GPU",
        data="ClimbMix, 8 shards",
        metric="val_bpb",
        target=0.88,
        provisional=("the target is set by one seed", "sigma is a guess"),
        description="For ideas: depth 12 on one data-centre GPU.",
        reference_usd_per_hour=3.0,
    ),
    TrackInfo(
        name="nano",
        title="A laptop, half a minute",
        version="nano-v1",
        hardware="any CPU, 2 processes",
        data="embedded",
        metric="val_bpb",
        target=2.35,
        provisional=(),
        description="For the first command, and for ideas in a minute.",
        reference_usd_per_hour=0.5,
    ),
)

RULES = """# Rules

An entry may change five slots and nothing else.

## R1 The clock

The parent owns the clock. It starts at `go` and stops at *done*.

| event | meaning |
| --- | --- |
| go | rows are handed over |
| done | final weights are durable |

## R2 No network

See [the design](docs/design.md) and [DCLM](https://arxiv.org/abs/2406.11794). <script>alert(1)</script>
"""


def make_run(
    task: Task,
    submission: str,
    index: int,
    *,
    role: str = "entry",
    factor: float = 1.0,
    void: str | None = None,
    day: int = 0,
    bpb_shift: float = 0.0,
) -> tuple[Run, Curve]:
    """One run with its curve. `factor` scales the timed seconds; `void` is the reason of a run that ended at 40 %."""
    rng = random.Random(f"{task.name} {submission} {role} {index}")
    timed = task.seconds * factor * (1 + rng.gauss(0, 0.0016))
    warmup, staging, initialise = 4.0 + timed * 0.02, 6.5, 0.9
    go = staging + warmup + initialise
    done = go + timed
    marks = {"hello": staging, "ready": staging + warmup, "go": go, "done": done, "evaluate": done + 0.4}
    marks |= {"evaluated": done + 0.4 + timed * 0.05, "end": done + 1.1 + timed * 0.05}
    if void:
        marks = {name: at for name, at in marks.items() if name in ("hello", "ready", "go")} | {"end": go + 0.4 * timed}
    steps = int(task.steps * 0.4) if void else task.steps
    logged = range(0, steps, max(1, steps // 400))
    losses = [2.9 + 7.5 * math.exp(-6 * s / task.steps) - 0.5 * s / task.steps + rng.gauss(0, 0.04) for s in logged]
    curve = Curve(tuple(logged), tuple(losses), tuple(int((go + timed * s / task.steps) * 1e9) for s in logged))
    scores = Scores(
        val_bpb=task.bpb + bpb_shift + rng.gauss(0, task.bpb * 0.0003),
        val_tokens=10_485_760,
        val_bytes=48_123_904,
        core=None if task.core is None else task.core + rng.gauss(0, 0.0005),
        probes=tuple(
            Probe(name=name, passed=True, evidence="64 prompts, largest difference 0")
            for name in ("causality", "batch_independence", "determinism", "finite_logits")
        ),
    )
    run = Run(
        id=f"{submission.replace('_', '-')}-{role}-{index}",
        track=task.name,
        track_version=task.version,
        submission=submission,
        role=role,
        pair=index,
        seed_index=index,
        nonce=sha256(f"nonce {submission}")[:32],
        seed=rng.randrange(2**31),
        started_at=DAY_ONE + timedelta(days=day, hours=index, minutes=30 if role == "reference" else 0),
        state="void" if void else "finished",
        void_reason=void,
        world_size=max(1, len(task.accelerators)),
        steps=steps,
        tokens=steps * 524_288,
        events=tuple(Event(name=name, at_ns=int(at * 1e9)) for name, at in sorted(marks.items(), key=lambda mark: mark[1])),
        scores=None if void else scores,
        digests=RunDigests(
            submission=sha256(submission),
            baseline=sha256("baseline"),
            train_rows=sha256("train"),
            val_rows=sha256("val"),
            tokenizer=sha256("tok"),
        ),
        sandbox="namespaces",
        environment=Environment(
            hostname_digest=sha256("host")[:16],
            os="Linux 6.8",
            cpu="Intel Xeon Platinum 8480+",
            cpu_cores=208,
            memory_bytes=2 * 2**40,
            accelerators=task.accelerators,
            python="3.12.4",
            packages={"torch": "2.11.0", "numpy": "2.4.0", "triton": "3.6.0"},
            git_commit="0f" * 20,
            git_dirty=False,
        ),
        peak_memory_bytes=62 * 2**30 if task.accelerators else None,
        parameters=1_384_122_122,
        flops_per_token=6.2e9,
    )
    return run, curve


def make_entry(
    task: Task, name: str, *, day: int = 0, status: tuple[Status, ...] = ("claimed",), parent: str | None = None, **changes: object
) -> Entry:
    digest = sha256(f"{task.name} {name} {task.version}")
    steps = [
        StatusChange(status=word, at=DAY_ONE + timedelta(days=day + i), reason=f"became {word}", by="node-7")
        for i, word in enumerate(status)
    ]
    values: dict[str, object] = {
        "id": f"{name.replace('_', '-')}-{digest[:8]}",
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "summary": "Five short windows for each full one.\n\nAttention costs less in every layer but the sixth; the loss barely moves.",
        "track": task.name,
        "track_version": task.version,
        "authors": (Author(name="Ada Quist", url="https://example.org/ada"), Author(name="helper", kind="agent")),
        "licence": "MIT",
        "parent": parent,
        "created_at": DAY_ONE + timedelta(days=day),
        "slots": ("config", "model"),
        "components": (
            Component(name="windows", summary="Fewer full windows.", off={"window_pattern": "SSSL"}),
            Component(name="head", summary="Smaller softcap.", off_slot="model"),
        ),
        "config_changes": {"window_pattern": ("SSSL", "SSSSSL"), "matrix_lr": ("0.02", "0.022")},
        "diff_lines": 14,
        "digests": EntryDigests(
            entry=digest, submission=sha256(name), baseline=sha256("baseline"), track=sha256(task.name), lock=sha256("lock")
        ),
        "history": tuple(steps),
    }
    return Entry.model_validate({**values, **changes})


def make_verdict(task: Task, runs: list[Run], *, name: str, against: str, kind: str = "submit", day: int = 1) -> Verdict:
    """Judges the runs of both roles as the harness would, with textbook numbers."""
    entry = [run for run in runs if run.role == "entry" and run.state == "finished" and run.scores]
    reference = [run for run in runs if run.role == "reference" and run.state == "finished"]
    scores = [run.scores for run in entry if run.scores]
    values = [(s.core if task.core is not None else s.val_bpb) or 0.0 for s in scores]
    mean = sum(values) / len(values)
    distance = mean - task.target if task.core is not None else task.target - mean
    z = distance * math.sqrt(len(values)) / task.sigma
    seconds = sum(run.timed_s or 0.0 for run in entry) / len(entry)
    beside = sum(run.timed_s or 0.0 for run in reference) / len(reference) if reference else None
    ratio = seconds / beside if beside else 1.0
    return Verdict(
        id=name,
        kind=kind,
        decided_at=DAY_ONE + timedelta(days=day, hours=9),
        ruleset="core-v1",
        runs=tuple(run.id for run in runs),
        void_runs=tuple(run.id for run in runs if run.state == "void"),
        mean_val_bpb=sum(s.val_bpb for s in scores) / len(scores),
        mean_timed_s=seconds,
        reference_mean_val_bpb=task.bpb,
        reference_mean_timed_s=beside,
        validity=Validity(
            verdict="valid" if z > 2.645 else "undecided" if z > 0 else "not valid",
            metric="core" if task.core is not None else "val_bpb",
            target=task.target,
            runs=len(values),
            mean=mean,
            sigma=task.sigma,
            z=z,
            bound=2.645,
            p_value=0.5 * math.erfc(z / math.sqrt(2)),
            method="group-sequential z, Pocock bound, looks at 3, 5, 10",
        ),
        superiority=None
        if beside is None
        else Superiority(
            verdict="better" if ratio < 0.99 else "undecided" if ratio < 1 else "not better",
            against=against,
            pairs=len(reference),
            ratio=ratio,
            low=ratio * 0.994,
            high=ratio * 1.006,
            level=0.98,
            detectable=0.992,
            guard_delta_bpb=-0.0003,
            guard_passed=True,
            method="t interval on paired log time ratios",
        ),
        cost=Cost(
            price_table="2026-09-01",
            reference_usd_per_hour=task.usd_per_hour,
            run_usd=seconds / 3600 * task.usd_per_hour,
            verify_usd=len(runs) * (seconds + 60) / 3600 * task.usd_per_hour,
        ),
        outcome="reproduced" if kind == "verify" else None,
        by="node-7",
    )


def add_judged_entry(
    db: Database, task: Task, name: str, *, factor: float, day: int, status: tuple[Status, ...], pairs: int = 3, **changes: object
) -> Entry:
    """An entry with `pairs` interleaved pairs of runs, one void run among them, and a verdict."""
    entry = make_entry(task, name, day=day, status=status, **changes)
    db.add_entry(entry, {"submission.toml": f'name = "{name}"\n', "model.py": MODEL_SOURCE, "config.py": f"DAY = {day}\n"})
    kept = [make_run(task, name, i, factor=factor, day=day) for i in range(pairs)]
    kept += [make_run(task, name, i, role="reference", day=day) for i in range(pairs)]
    kept.append(make_run(task, name, pairs, factor=factor, day=day, void="rank 3 was lost: node preempted"))
    for run, curve in kept:
        db.add_run(entry.id, run, curve)
    baseline = make_entry(task, "baseline").id
    db.add_verdict(entry.id, make_verdict(task, [run for run, _ in kept], name="submit-1", against=baseline, day=day))
    return entry


def add_calibration(db: Database, task: Task, seeds: int = 5) -> Calibration:
    runs = [make_run(task, "baseline", i, role="calibration") for i in range(seeds)]
    calibration = Calibration(
        track=task.name,
        track_version=task.version,
        baseline=sha256("baseline"),
        runs=tuple(run.id for run, _ in runs),
        metric="val_bpb" if task.core is None else "core",
        mean=task.bpb if task.core is None else task.core,
        sd=task.sigma * 0.8,
        pinned_sigma=task.sigma,
        mean_timed_s=task.seconds,
        timed_cv=0.0016,
        decided_at=DAY_ONE,
    )
    db.add_calibration(calibration, runs)
    return calibration


def make_finding(name: str = "halved-window", **changes: object) -> Finding:
    values: dict[str, object] = {
        "id": name,
        "idea": "A window of 256 tokens",
        "summary": "Half of the baseline's short window.",
        "verdict": "no effect found",
        "kind": "measured",
        "scale": "gpu1, depth 12",
        "track": "gpu1",
        "effects": (Effect(quantity="val_bpb", value=0.0004, unit="bpb", low=-0.0002, high=0.0010, level=0.95),),
        "detectable": Effect(quantity="val_bpb", value=-0.0009, unit="bpb"),
        "runs": 10,
        "environment": "one H100",
        "code": "submissions/halved_window",
        "source": Source(title="this board"),
        "author": "Ada Quist",
        "date": "2026-09-05",
        "tags": ("attention",),
    }
    return Finding.model_validate({**values, **changes})


def make_reported(name: str = "elsewhere-1", **changes: object) -> ReportedEntry:
    values: dict[str, object] = {
        "id": name,
        "track": "gpt2",
        "title": "A run elsewhere",
        "summary": "Depth 24.",
        "date": "2026-03-14",
        "authors": (Author(name="nanochat"),),
        "hours": 1.65,
        "cost_usd": 40.0,
        "core": (0.2626,),
        "runs": 5,
        "val_bpb": 0.718,
        "accepted": True,
        "source": Source(title="a board", url="https://example.org/board"),
    }
    return ReportedEntry.model_validate({**values, **changes})


def fill(db: Database) -> None:
    """Three tracks with entries in every state, an older track version, calibrations and findings."""
    old = Task("gpt2", "gpt2-v0", 6055, 6400.0, 0.7185, 0.2660, 0.256525, 0.0060, 24.0, GPT2.accelerators)
    add_judged_entry(db, old, "first_try", factor=1.0, day=0, status=("claimed", "checked"))
    for task in (NANO, GPU1, GPT2):
        add_calibration(db, task)
        add_judged_entry(db, task, "baseline", factor=1.0, day=1, status=("claimed", "checked", "reproduced"))
        add_judged_entry(
            db, task, "long_windows", factor=0.962, day=3, status=("claimed", "checked", "reproduced", "record"), parent="baseline"
        )
    add_judged_entry(
        db, GPT2, "fused_loss", factor=0.913, day=9, status=("claimed", "checked", "reproduced", "record"), parent="long_windows"
    )
    add_judged_entry(db, GPT2, "narrow_block", factor=0.997, day=12, status=("claimed",), parent="fused_loss")
    add_judged_entry(db, GPT2, "too_good", factor=0.5, day=14, status=("claimed", "flagged"), parent="fused_loss")
    add_judged_entry(db, GPU1, "slow_idea", factor=1.07, day=5, status=("claimed", "refuted"), parent="baseline")
    db.add_finding(make_finding())
