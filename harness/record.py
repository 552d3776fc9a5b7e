"""The schema of everything that is kept: runs, entries, verdicts, calibrations, findings, the cost history.

A document is one JSON file with a `schema_version`. Raw facts are stored; whatever follows from them
(seconds, means, ratios of one run) is a property here, so that an audit recomputes it from the same code.
Unknown fields and unknown versions are errors. Times are UTC, ISO 8601; durations are seconds; money is US dollars.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

SCHEMA_VERSION = 1
MAX_REASON_CHARACTERS = 250
"""Of a reason that comes from a run; the rest of its line is the harness's."""

Status = Literal["claimed", "checked", "reproduced", "record", "refuted", "withdrawn", "flagged", "reported"]
ValidityWord = Literal["valid", "not valid", "undecided"]
SuperiorityWord = Literal["better", "not better", "undecided"]
SlotName = Literal["config", "model", "optimizer", "schedule", "kernels"]
SandboxName = Literal["namespaces", "landlock", "none"]
RunRole = Literal["entry", "reference", "calibration"]
ProbeName = Literal["causality", "batch_independence", "determinism", "finite_logits", "decoding", "unchanged_parameters", "fresh_process"]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""Names of submissions, tracks and components: a folder name and a Python identifier, in lower case."""
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]
"""Ids of entries, runs and findings: safe as a file name and in a URL."""
Line = Annotated[str, StringConstraints(min_length=1, max_length=300)]
Text = Annotated[str, StringConstraints(max_length=20_000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Document(BaseModel):
    """Base of all schema classes: immutable, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------------- runs


class Event(Document):
    """One line of a run's event log. `at_ns` is the parent's monotonic clock, 0 at the start of the run."""

    name: Line
    at_ns: Annotated[int, Field(ge=0)]


class Phases(Document):
    """Where a run's wall time went, in seconds. The parts add up to `wall_s`."""

    wall_s: Finite
    staging_s: Finite
    """From the start to the first rank's hello: hashing the data, starting processes, importing torch."""
    warmup_s: Finite
    """From the first hello to the last rank's `ready`: building the model, compiling, warming up on dummy tokens."""
    initialise_s: Finite
    """From `ready` to `go`: the seed, the initial weights, the comparison with the witness."""
    timed_s: Finite
    """From `go` to `done`: the only figure that ranks."""
    evaluation_s: Finite
    closing_s: Finite
    """Stopping processes, hashing weights, writing."""

    @property
    def overhead_s(self) -> float:
        """The parent's own cost: wall time outside the warm-up, the timed part and the evaluation."""
        return self.staging_s + self.initialise_s + self.closing_s


class Probe(Document):
    """One check of the model as a black box, on real prompts among the scored ones."""

    name: ProbeName
    passed: bool
    evidence: Line


class TaskScore(Document):
    """One of CORE's tasks."""

    label: Line
    examples: int
    accuracy: Finite
    """Share of the examples that are right."""
    centered: Finite
    """0 for guessing, 1 for perfect; CORE is the mean of these."""
    stderr: Finite
    """Of `centered`, over the draw of examples."""
    seconds: Finite


class Scores(Document):
    """What the parent measured on the final weights, in fresh processes."""

    val_bpb: Finite | None
    """Bits per byte on the held-out split; lower is better. None when a probe failed: such a model has no score."""
    val_tokens: int
    val_bytes: int
    core: Finite | None = None
    """DCLM CORE, higher is better; None where the track has none."""
    core_tasks: tuple[TaskScore, ...] = ()
    probes: tuple[Probe, ...]


class RunDigests(Document):
    """SHA-256 of what went in and what came out."""

    submission: Sha256
    baseline: Sha256
    train_rows: Sha256
    val_rows: Sha256
    tokenizer: Sha256
    initial_weights: Sha256 | None = None
    final_weights: Sha256 | None = None


class Environment(Document):
    """What a reader needs to trust a time."""

    hostname_digest: Line
    os: Line
    cpu: Line
    cpu_cores: int
    memory_bytes: int
    accelerators: tuple[Line, ...]
    python: Line
    packages: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None


class Run(Document):
    """One training from one seed; also one that failed. The loss curve lies beside it in `curve.parquet`."""

    schema_version: Literal[1] = 1
    id: Slug
    track: Name
    track_version: Line
    submission: Name
    role: RunRole
    pair: int | None
    """Index of the interleaved pair that the run belongs to."""
    seed_index: int
    nonce: Line
    seed: int
    started_at: datetime
    state: Literal["finished", "void"]
    void_reason: Line | None = None
    fault: Literal["entry", "machine"] | None = None
    """Whose doing a void run is: `entry` when its own code gave up or left no weights, `machine` for everything else."""
    world_size: int
    steps: int
    tokens: int
    events: tuple[Event, ...]
    scores: Scores | None
    digests: RunDigests
    sandbox: SandboxName
    sandbox_shortcoming: Text | None = None
    """Why no stronger sandbox could be made on that machine; None for the strongest."""
    environment: Environment
    peak_memory_bytes: int | None
    parameters: int | None
    flops_per_token: Finite | None
    """Training FLOPs per token by the model's own count: said by the entry's code, like `attention`."""
    attention: Line | None = None
    """The attention backend that the entry's ranks chose on this machine."""

    def at_s(self, name: str) -> float | None:
        """Seconds from the start to the first event of this name."""
        return next((e.at_ns / 1e9 for e in self.events if e.name == name), None)

    @property
    def timed_s(self) -> float | None:
        """Seconds from `go` to `done`."""
        go, done = self.at_s("go"), self.at_s("done")
        return None if go is None or done is None else done - go

    @property
    def phases(self) -> Phases | None:
        """The run's time line; None for a run that did not finish."""
        names = ("hello", "ready", "go", "done", "evaluate", "evaluated", "end")
        marks = [self.at_s(name) for name in names]
        if any(mark is None for mark in marks):
            return None
        hello, ready, go, done, evaluate, evaluated, end = (mark for mark in marks if mark is not None)
        return Phases(
            wall_s=end,
            staging_s=hello,
            warmup_s=ready - hello,
            initialise_s=go - ready,
            timed_s=done - go,
            evaluation_s=evaluated - evaluate,
            closing_s=(evaluate - done) + (end - evaluated),
        )


# ---------------------------------------------------------------------- verdicts


class Validity(Document):
    """Does the entry reach the track's target? A group-sequential z-test with the track's pinned sigma."""

    verdict: ValidityWord
    metric: Literal["val_bpb", "core"]
    target: Finite
    runs: int
    mean: Finite
    sigma: Finite
    z: Finite
    """(distance beyond the target) · √n / sigma; positive is better than the target."""
    bound: Finite
    """z needed at this look."""
    p_value: Finite
    method: Line


class Superiority(Document):
    """Is the entry faster than what it ran beside? An interval on paired log time ratios from interleaved runs."""

    verdict: SuperiorityWord
    against: Slug
    """Entry id of the reference."""
    pairs: int
    ratio: Finite
    """Geometric mean of entry seconds over reference seconds; below 1 is faster."""
    low: Finite
    high: Finite
    """Two-sided interval at `level`."""
    level: Finite
    detectable: Finite | None
    """The ratio that this many pairs at the spread seen would have shown with 80 % power; None when not computable."""
    guard_delta_bpb: Finite
    """Mean paired difference of val bpb, entry minus reference."""
    guard_passed: bool
    method: Line


class Cost(Document):
    """Dollars, from the dated price table of this id."""

    price_table: Line
    reference_usd_per_hour: Finite
    run_usd: Finite
    """Mean timed seconds of the entry at the reference price."""
    verify_usd: Finite
    """All runs' wall seconds at the reference price."""


class Verdict(Document):
    """A judgement of one set of runs. Appended, never changed."""

    schema_version: Literal[1] = 1
    id: Slug
    kind: Literal["submit", "verify", "calibrate"]
    decided_at: datetime
    ruleset: Line
    runs: tuple[Slug, ...]
    """Ids of all runs considered, void ones among them."""
    void_runs: tuple[Slug, ...]
    mean_val_bpb: Finite | None
    mean_timed_s: Finite | None
    reference_mean_val_bpb: Finite | None
    reference_mean_timed_s: Finite | None
    validity: Validity | None
    superiority: Superiority | None
    cost: Cost | None
    outcome: Literal["reproduced", "refuted", "undecided"] | None = None
    """Only for `verify`."""
    note: Text = ""
    by: Line


# ---------------------------------------------------------------------- entries


class Author(Document):
    name: Line
    kind: Literal["person", "agent"] = "person"
    url: Annotated[str, StringConstraints(pattern=r"^https://[^\s\"'<>]{1,300}$")] | None = None


class Component(Document):
    """A part of a submission that can be ablated on its own."""

    name: Name
    summary: Line
    off: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Config values that turn the component off."""
    off_slot: SlotName | None = None
    """Or: the slot that falls back to the parent's."""


class StatusChange(Document):
    status: Status
    at: datetime
    reason: Line
    by: Line


class EntryDigests(Document):
    entry: Sha256
    submission: Sha256
    baseline: Sha256
    track: Sha256
    lock: Sha256


class Entry(Document):
    """A submission at one content digest, on one track. Its files lie in `submission/` beside it."""

    schema_version: Literal[1] = 1
    id: Slug
    """`<name>-<first 8 hex digits of the entry digest>`."""
    name: Name
    title: Line
    summary: Text
    """What changed, in plain words."""
    track: Name
    track_version: Line
    authors: tuple[Author, ...]
    licence: Line
    parent: Name | None
    created_at: datetime
    slots: tuple[SlotName, ...]
    components: tuple[Component, ...]
    config_changes: dict[str, tuple[str, str]]
    """Field of TrainConfig -> (baseline value, entry value), as text."""
    diff_lines: int
    """Lines added and removed against the baseline's functions in the overridden slots: the entry's complexity."""
    digests: EntryDigests
    history: tuple[StatusChange, ...]

    @property
    def status(self) -> Status:
        return self.history[-1].status


class ReportedEntry(Document):
    """A figure from elsewhere, never re-run here."""

    schema_version: Literal[1] = 1
    id: Slug
    track: Name
    title: Line
    summary: Text
    date: Line
    """ISO date, month or year, as precisely as the source has it."""
    authors: tuple[Author, ...]
    hours: Finite | None
    cost_usd: Finite | None
    core: tuple[Finite, ...]
    """CORE of each run where published, else the published mean alone."""
    runs: int | None
    val_bpb: Finite | None
    accepted: bool
    """Whether the source's own board accepted it."""
    source: Source


# ---------------------------------------------------------------------- calibrations


class Calibration(Document):
    """Baseline seeds of one track version, and the sigma that was pinned from them."""

    schema_version: Literal[1] = 1
    track: Name
    track_version: Line
    baseline: Sha256
    runs: tuple[Slug, ...]
    metric: Literal["val_bpb", "core"]
    mean: Finite
    sd: Finite
    """Sample standard deviation of the metric over the runs."""
    pinned_sigma: Finite
    """Upper 80 % confidence bound of sigma."""
    mean_timed_s: Finite
    timed_cv: Finite
    """Coefficient of variation of the timed seconds."""
    decided_at: datetime


# ---------------------------------------------------------------------- findings


class Source(Document):
    title: Line
    url: Annotated[str, StringConstraints(pattern=r"^https://[^\s\"'<>]{1,300}$")] | None = None
    date: Line | None = None


class Effect(Document):
    """Change of one quantity against the control. Negative bpb, seconds and memory are better."""

    quantity: Literal["val_bpb", "core", "time", "step_time", "memory", "throughput", "parameters"]
    value: Finite
    unit: Literal["bpb", "core", "ratio", "seconds", "bytes", "count"]
    """`ratio` is variant over control minus 1."""
    low: Finite | None = None
    high: Finite | None = None
    level: Finite | None = None


class Finding(Document):
    """An ablation's result: what worked, what did not, at which scale, with its interval and its power."""

    schema_version: Literal[1] = 1
    id: Slug
    idea: Line
    summary: Text
    verdict: Literal["helps", "hurts", "no effect found", "not worth its cost", "mixed"]
    kind: Literal["measured", "reported"]
    scale: Line
    track: Name | None
    effects: tuple[Effect, ...]
    detectable: Effect | None
    """The smallest effect that could have been seen with 80 % power; None when the source does not say."""
    runs: int | None
    environment: Line | None
    code: Line | None
    """Entry id or file that holds the tried code."""
    source: Source
    author: Line
    date: Line
    tags: tuple[Name, ...]


class CostPoint(Document):
    """One point of the line from $43,000 (2019) down: what GPT-2 grade cost when."""

    date: Line
    title: Line
    hours: Finite
    cost_usd: Finite
    hardware: Line
    source: Source


ReportedEntry.model_rebuild()
