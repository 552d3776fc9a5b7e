"""What a run's final weights are scored by: bits per byte on every track, CORE where the track is decided by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from baseline.data.manifest import TOKENIZER_FILE
from baseline.data.tokenizer import Tokenizer
from harness.evaluate.core.bundle import Bundle, open_bundle
from harness.evaluate.core.items import CoreResult, Outcome
from harness.evaluate.core.tasks import CORE_TASKS
from harness.evaluate.core.tokenizer import TiktokenTokenizer
from harness.evaluate.core_run import CoreQuestions, Subject, evaluate_core
from harness.evaluate.crew import Crew
from harness.evaluate.held_out import evaluate_held_out
from harness.evaluate.model_server import Place, ServedModel
from harness.evaluate.probes import TOLERANCE
from harness.prepared import PreparedData
from harness.record import Scores, TaskScore
from harness.track import Track

CORE_FOLDER = "core"
"""Beside the tracks' data."""


@dataclass(frozen=True, slots=True)
class FinalScores:
    """What goes into the record, and what lies beside it."""

    scores: Scores
    outcomes: tuple[Outcome, ...]
    """Of each example of CORE; none on a track without it."""


def questions_of(track: Track, data: PreparedData) -> CoreQuestions | None:
    """The examples that decide a track; None for a track that is decided by bits per byte.

    Verifies every file, so that no run is trained that cannot be scored. Raises MachineLacks.
    """
    if track.target.metric != "core":
        return None
    bundle: Bundle = open_bundle(core_folder(data))
    bundle.verify(CORE_TASKS)
    return CoreQuestions(bundle, CORE_TASKS, cache=core_folder(data) / "prepared")


def core_folder(data: PreparedData) -> Path:
    """Where CORE's examples and right answers lie; no process of a run may see it."""
    return data.folder.parent / CORE_FOLDER


def score_weights(
    track: Track, data: PreparedData, questions: CoreQuestions | None, model: ServedModel, place: Callable[[str], Place]
) -> FinalScores:
    """Score and probe a model on fresh servers. `place` makes a place of that name, apart from all others. Raises VoidRun."""
    crew, dtype = crew_of(track), track.base_config().dtype
    held = evaluate_held_out(model, dtype, data.held_out(track.data.val_rows), crew, place("held_out"))
    if questions is None:
        return FinalScores(
            Scores(val_bpb=held.bits_per_byte, val_tokens=held.loss.tokens, val_bytes=held.loss.bytes, probes=held.probes), ()
        )
    tokenizer = Tokenizer.load(data.folder / TOKENIZER_FILE)
    subject = Subject(model, TiktokenTokenizer(tokenizer.encoding(), tokenizer.bos_id), TOLERANCE[dtype], None)
    found = evaluate_core(subject, questions, crew, place("core"), place("fresh"))
    honest = held.bits_per_byte is not None and found.result is not None
    scores = Scores(
        val_bpb=held.bits_per_byte if honest else None,
        val_tokens=held.loss.tokens,
        val_bytes=held.loss.bytes,
        core=found.result.core if honest and found.result else None,
        core_tasks=task_scores(found.result) if honest and found.result else (),
        probes=(*held.probes, *found.probes),
    )
    return FinalScores(scores, tuple(outcome for outcomes in found.outcomes.values() for outcome in outcomes))


def crew_of(track: Track) -> Crew:
    """As many servers as a run has cards; on CPU tracks one, with the threads of all processes."""
    launch = track.launch
    if launch.device == "cuda":
        return Crew(launch.processes, launch.threads_per_process, True)
    return Crew(1, launch.processes * launch.threads_per_process, False)


def task_scores(result: CoreResult) -> tuple[TaskScore, ...]:
    return tuple(
        TaskScore(
            label=task.label,
            examples=task.examples,
            accuracy=task.accuracy,
            centered=task.centered,
            stderr=task.stderr_bootstrap,
            seconds=task.seconds,
        )
        for task in result.tasks
    )
