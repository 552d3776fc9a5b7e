"""One run: from a submission and a seed to a record, with the clock in this process.

staging        fresh scratch, submission copied, rows hashed through one descriptor, processes started
warm-up        ranks build, compile and warm up on dummy rows
initialise     the seed goes out; rank 0's initial weights must equal those of the witness, a fresh process
go … done      the rows' descriptor goes out; the clock stops when all ranks are done and the weights are durable
evaluation     everything of the run is dead; the weights are scored in a fresh process
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from harness.control import ControlServer
from harness.conversation import WITNESS, Built, Conversation, CurvePoint
from harness.errors import MachineLacks, VoidRun
from harness.evaluate.core.items import Outcome
from harness.evaluate.core_run import CoreQuestions
from harness.evaluate.final_scores import core_folder, questions_of, score_weights
from harness.evaluate.model_server import Place, ServedModel
from harness.events import EventLog
from harness.frozen import require_frozen
from harness.launch import SupervisedProcess, child_environment, private_folders, torchrun_command
from harness.prepared import PreparedData
from harness.record import Environment, Run, RunDigests, RunRole, SandboxName, Scores
from harness.sandbox.available import chosen, shortcoming
from harness.sandbox.policy import Policy
from harness.sandbox.surroundings import make_policy
from harness.seeds import Seed
from harness.staging import StagedFiles, dummy_rows, file_digest, make_durable, parameters_in, require_digest, stage_run, sweep_scratch
from harness.submission import Submission
from harness.track import Track

HELLO_TIMEOUT_S = 120.0
INITIALISE_TIMEOUT_S = 300.0
ANSWER_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class RunJob:
    """What to run. `run_id` names the run in the database; `pair` its place among interleaved pairs."""

    run_id: str
    track: Track
    submission: Submission
    data: PreparedData
    seed: Seed
    role: RunRole
    pair: int | None
    environment: Environment
    work_folder: Path
    """Scratch folders and console logs go below it."""
    sandbox: SandboxName | None = None
    """None: what `available.chosen` says."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """What a person sees of a run while it goes on."""

    on_phase: Callable[[str], None] = lambda phase: None
    on_step: Callable[[CurvePoint], None] = lambda point: None


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished or void run and its curve; `console` is the log of everything its processes printed."""

    run: Run
    curve: tuple[CurvePoint, ...]
    console: Path
    interrupted: bool = False
    """Whether a person or a signal stopped it."""
    outcomes: tuple[Outcome, ...] = ()
    """Of each example of CORE, where the track is decided by it."""


@dataclass(slots=True)
class _Progress:
    """What is known of a run so far; a void run keeps what it had."""

    log: EventLog = field(default_factory=EventLog)
    sandbox: SandboxName = "none"
    curve: list[CurvePoint] = field(default_factory=list)
    tokens: int = 0
    peak_memory_bytes: int = 0
    initial_digest: str | None = None
    final_digest: str | None = None
    parameters: int | None = None
    built: Built = field(default_factory=Built)
    scores: Scores | None = None
    outcomes: tuple[Outcome, ...] = ()
    void_reason: str | None = None
    by_entry: bool = False
    interrupted: bool = False


def perform(job: RunJob, watcher: Watcher | None = None) -> RunResult:
    """Do one run. A run that fails comes back with state `void` and its reason; KeyboardInterrupt makes it void too."""
    watcher = watcher or Watcher()
    started = datetime.now(UTC)
    progress = _Progress()
    work_folder = job.work_folder.resolve()
    console = _made(work_folder / "console") / f"{job.run_id}.log"
    sweep_scratch(_made(work_folder / "scratch"))
    scratch = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{job.run_id}-", dir=work_folder / "scratch"))
    try:
        require_frozen(job.track.baseline_digest)
        questions = questions_of(job.track, job.data)
        progress.sandbox = chosen(job.sandbox)
        _train(job, watcher, progress, scratch, console)
        _evaluate(job, questions, watcher, progress, scratch, console)
    except VoidRun as reason:
        progress.void_reason, progress.by_entry = str(reason), reason.by_entry
    except MachineLacks as lack:
        progress.void_reason = str(lack)
    except OSError as error:
        progress.void_reason = f"the harness could not go on: {error.strerror or error}"
    except KeyboardInterrupt:
        progress.void_reason, progress.interrupted = "interrupted", True
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    progress.log.mark("end")
    curve = tuple(replace(point, at_ns=progress.log.since_start(point.at_ns)) for point in progress.curve)
    return RunResult(_record(job, started, progress), curve, console, progress.interrupted, progress.outcomes)


# ---------------------------------------------------------------------- training


def _train(job: RunJob, watcher: Watcher, progress: _Progress, scratch: Path, console: Path) -> None:
    """Everything from staging to final weights; on the way out no process of the run is left."""
    track, log, config = job.track, progress.log, job.track.base_config()
    log.mark("start")
    watcher.on_phase("staging")
    files = stage_run(scratch, job.submission, config)
    with ExitStack() as stack:
        rows = stack.enter_context(job.data.train_rows.open("rb"))
        dummy = stack.enter_context(dummy_rows(config, scratch))
        socket_folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"speedrun-{os.getpid()}-"))
        socket = Path(socket_folder) / "control"
        ranks = set(range(track.launch.processes))
        server = stack.enter_context(ControlServer(socket, ranks | {WITNESS}))
        common = ["--control", str(socket), "--config", str(files.config), "--submission", str(files.submission)]
        shown = [files.config, files.submission, Path(socket_folder)]
        training, witness = (
            stack.enter_context(_confined(job, progress, command, folder, console, shown, out))
            for command, folder, out in (
                (torchrun_command(len(ranks), [*common, "--out", str(files.weights)]), scratch, files.weights),
                ([sys.executable, "-m", "baseline.train", "--witness", *common, "--out", str(files.witness)], files.witness, files.witness),
            )
        )
        require_digest(rows, job.data.train_rows_digest, job.data.train_rows)
        talk = Conversation(server, [training, witness], track.limits, scratch, watcher.on_step, progress.curve)
        try:
            _converse(talk, track, ranks, job.seed.value, rows, dummy, witness, files, progress, watcher)
        finally:
            progress.tokens, progress.peak_memory_bytes = talk.tokens, talk.peak_memory_bytes
    progress.final_digest = file_digest(files.final)
    progress.parameters = parameters_in(files.final)


def _converse(
    talk: Conversation,
    track: Track,
    ranks: set[int],
    seed: int,
    rows: IO[bytes],
    dummy: IO[bytes],
    witness: SupervisedProcess,
    files: StagedFiles,
    progress: _Progress,
    watcher: Watcher,
) -> None:
    """Hello, warm, ready, seed, initialised, go, done: each step waits for all ranks."""
    log, limits, server = progress.log, track.limits, talk.server
    talk.wait_for("hello", ranks, within_s=HELLO_TIMEOUT_S, waiting_for="starting the processes")
    log.mark("hello")
    watcher.on_phase("warm-up")
    for rank in ranks:
        server.send(rank, "warm", dummy.fileno())
    log.mark("ready", talk.wait_for("ready", ranks | {WITNESS}, within_s=limits.warmup_s, waiting_for="the warm-up"))
    progress.built = talk.built()
    watcher.on_phase("initialise")
    for rank in ranks | {WITNESS}:
        server.send(rank, "seed", seed=seed)
    talk.wait_for("initialised", ranks | {WITNESS}, within_s=INITIALISE_TIMEOUT_S, waiting_for="writing the initial weights")
    progress.initial_digest = file_digest(files.initial)
    if file_digest(files.witnessed) != progress.initial_digest:
        raise VoidRun("the initial weights differ from those of a fresh process: they must follow from the seed alone", by_entry=True)
    witness.stop()  # before the clock runs: on two cores its exit would cost the ranks time
    talk.require_silence()
    if files.final.exists():
        raise VoidRun("there were final weights before the clock ran", by_entry=True)
    watcher.on_phase("training")
    log.mark("go")
    for rank in ranks:
        server.send(rank, "go", rows.fileno())
    talk.wait_for("done", ranks, within_s=limits.run_s, waiting_for="training", silence_s=limits.silence_s)
    make_durable(files.final)
    log.mark("done")


def _confined(
    job: RunJob, progress: _Progress, command: list[str], folder: Path, console: Path, readable: list[Path], out: Path
) -> SupervisedProcess:
    """A process of the training that works in `folder` and can write to its private folders there and to `out`."""
    return SupervisedProcess(
        command,
        child_environment(folder, job.track.launch.threads_per_process),
        console,
        job.track.limits.scratch_bytes,
        folder,
        sandbox=_sandbox(job, progress, readable, [*private_folders(folder), out]),
    )


def _sandbox(job: RunJob, progress: _Progress, readable: list[Path], writable: list[Path]) -> Policy:
    """What a process of the run sees. Rows come to it as open files: data, results and other runs are not there."""
    return make_policy(
        progress.sandbox,
        readable=readable,
        writable=writable,
        hidden=(job.data.folder, core_folder(job.data), job.work_folder),
        shared_memory_bytes=job.track.limits.memory_bytes,
    )


# ---------------------------------------------------------------------- evaluation


def _evaluate(job: RunJob, questions: CoreQuestions | None, watcher: Watcher, progress: _Progress, scratch: Path, console: Path) -> None:
    """Probe and score the final weights in a fresh process; a model that fails a probe gets no score."""
    track, log = job.track, progress.log
    log.mark("evaluate")
    watcher.on_phase("evaluation")
    weights = StagedFiles(scratch).final
    if file_digest(weights) != progress.final_digest:
        raise VoidRun("the final weights changed after the clock had stopped", by_entry=True)
    fresh = Path(tempfile.mkdtemp(prefix="evaluation-", dir=scratch))  # what the training could write is not what scores
    files = stage_run(fresh, job.submission, track.base_config())
    model = ServedModel.trained(files.config, files.submission, weights, track.data.vocab_size)

    def place(name: str) -> Place:
        """What one process could leave behind, no other finds."""
        folder = _made(fresh / name)
        return Place(
            environment=child_environment(folder, track.launch.processes * track.launch.threads_per_process),
            scratch=folder,
            console=console,
            timeout_s=ANSWER_TIMEOUT_S,
            memory_bytes=track.limits.memory_bytes,
            sandbox=_sandbox(job, progress, [files.config, files.submission, weights], private_folders(folder)),
        )

    found = score_weights(track, job.data, questions, model, place)
    log.mark("evaluated")
    progress.scores, progress.outcomes = found.scores, found.outcomes


# ---------------------------------------------------------------------- the record


def _record(job: RunJob, started: datetime, progress: _Progress) -> Run:
    data, track = job.data, job.track
    return Run(
        id=job.run_id,
        track=track.name,
        track_version=track.version,
        submission=job.submission.name,
        role=job.role,
        pair=job.pair,
        seed_index=job.seed.index,
        nonce=job.seed.nonce,
        seed=job.seed.value,
        started_at=started,
        state="finished" if progress.void_reason is None else "void",
        void_reason=progress.void_reason,
        fault=None if progress.void_reason is None else "entry" if progress.by_entry else "machine",
        world_size=track.launch.processes,
        steps=len(progress.curve),
        tokens=progress.tokens,
        events=progress.log.events(),
        scores=progress.scores,
        digests=RunDigests(
            submission=job.submission.digest,
            baseline=track.baseline_digest,
            train_rows=data.train_rows_digest,
            val_rows=data.val_rows_digest,
            tokenizer=data.tokenizer_digest,
            initial_weights=progress.initial_digest,
            final_weights=progress.final_digest,
        ),
        sandbox=progress.sandbox,
        sandbox_shortcoming=shortcoming(progress.sandbox),
        environment=job.environment,
        peak_memory_bytes=progress.peak_memory_bytes or None,
        parameters=progress.parameters,
        flops_per_token=progress.built.flops_per_token,
        attention=progress.built.attention,
    )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
