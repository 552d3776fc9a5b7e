"""`speedrun eval`: CORE or bits per byte of a checkpoint or a pretrained model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from harness.cli.options import DATA, json_option, print_json, track_option
from harness.cli.sample import prepared_tokenizers
from harness.errors import NotMet, UsageProblem
from harness.evaluate.checkpoints import find_checkpoint, open_subject
from harness.evaluate.core.bundle import Bundle, open_bundle
from harness.evaluate.core.download import download_bundle
from harness.evaluate.core.items import CoreResult
from harness.evaluate.core.outcome_table import write_outcomes
from harness.evaluate.core.tasks import CORE_TASKS, Task, select
from harness.evaluate.core_run import CoreEvaluation, CoreQuestions, Subject, Watching, evaluate_core
from harness.evaluate.crew import Crew
from harness.evaluate.held_out import evaluate_held_out
from harness.evaluate.model_server import Place
from harness.launch import child_environment
from harness.prepared import open_data
from harness.record import Probe
from harness.track import Track, load_track

CORE_DATA = DATA / "core"
PATH = click.Path(path_type=Path)
ANSWER_TIMEOUT_S = 1800.0
MEMORY_SHARE = 0.9
"""Of this machine's memory, for a server."""


@click.command("eval")
@click.argument("checkpoint")
@click.option("--metric", type=click.Choice(["core", "bpb"]), default="core", show_default=True, help="What to measure.")
@click.option("--tasks", default=None, metavar="A,B,…", help="Some of CORE's tasks, by label.  [default: all 22]")
@click.option("--limit", type=click.IntRange(1), default=None, help="Examples of each task, or held-out rows, to score.  [default: all]")
@click.option("--core", "bundle", type=PATH, default=None, metavar="DIR", help="Folder or zip of CORE's examples.  [default: data/core]")
@click.option("--tokenizer", type=PATH, default=None, metavar="FILE", help="Its tokenizer.json.  [default: of the prepared data that fits]")
@click.option("--submission", type=PATH, default=None, metavar="DIR", help="The submission that the checkpoint was trained with.")
@click.option("--out", type=PATH, default=None, metavar="FILE", help="Write each example's outcome there, as parquet.")
@track_option
@json_option
def evaluate(
    checkpoint: str,
    metric: str,
    tasks: str | None,
    limit: int | None,
    bundle: Path | None,
    tokenizer: Path | None,
    submission: Path | None,
    out: Path | None,
    track_name: str,
    as_json: bool,
) -> None:
    """Measure CHECKPOINT: a folder step_NNNNNN, the --out folder of a training (its newest), or a pretrained model.

    A pretrained model is a folder in Hugging Face's format, a .gguf file, or a name on the hub; it needs the extra hf. The --track is
    the one whose held-out rows give the bits per byte.
    """
    with tempfile.TemporaryDirectory(prefix=f"speedrun-{os.getpid()}-") as scratch:
        if metric == "bpb":
            _bits_per_byte(checkpoint, load_track(track_name), limit, submission, Path(scratch), as_json)
        else:
            tokenizers = [tokenizer] if tokenizer else prepared_tokenizers()
            subject, model_bytes = open_subject(checkpoint, tokenizers, submission, Path(scratch))
            questions = CoreQuestions(_bundle(bundle), _selected(tasks), limit, CORE_DATA / "prepared")
            _core(checkpoint, subject, Crew.of_this_machine(model_bytes), questions, Path(scratch), out, as_json)


# ---------------------------------------------------------------------- CORE


def _core(name: str, subject: Subject, crew: Crew, questions: CoreQuestions, scratch: Path, out: Path | None, as_json: bool) -> None:
    with _bars() as bars:
        reading, scoring = bars.add_task("Reading the examples", total=None), bars.add_task("Scoring", total=None)

        def on_prepared(label: str, done: int, total: int) -> None:
            bars.update(reading, completed=done, total=total)

        def on_scored(done: int, total: int) -> None:
            bars.update(scoring, completed=done, total=total)

        places = _place(scratch, "servers"), _place(scratch, "fresh")
        found = evaluate_core(subject, questions, crew, *places, Watching(on_prepared, on_scored))
    if out is not None:
        provenance = {"model": name, "limit": str(questions.limit), "tokenizer": subject.tokenizer.digest}
        write_outcomes(out, (outcome for outcomes in found.outcomes.values() for outcome in outcomes), provenance)
    if as_json:
        print_json(_values(found))
    elif found.result is not None:
        _print_result(name, found.result)
    _require_honest(found.probes)


def _bundle(path: Path | None) -> Bundle:
    """The examples: at the given place, or in the data folder, where they are downloaded to if they are not there."""
    if path is not None:
        return open_bundle(path)
    with _bars() as bars:
        download = bars.add_task("Fetching the examples", total=None, visible=False)

        def on_bytes(done: int, total: int) -> None:
            bars.update(download, completed=done, total=total or None, visible=True)

        return download_bundle(CORE_DATA, progress=on_bytes)


def _selected(labels: str | None) -> tuple[Task, ...]:
    return CORE_TASKS if labels is None else select(label.strip() for label in labels.split(",") if label.strip())


def _values(found: CoreEvaluation) -> dict[str, Any]:
    result = found.result
    scores = {} if result is None else {"core": result.core, "core_corrected": result.core_corrected, **asdict(result)}
    return {**scores, "probes": [probe.model_dump(mode="json") for probe in found.probes]}


def _print_result(name: str, result: CoreResult) -> None:
    table = Table("task", title=escape(name))
    for heading in ("examples", "accuracy", "centered", "±", "seconds"):
        table.add_column(heading, justify="right")
    for task in result.tasks:
        figures = (f"{task.accuracy:.4f}", f"{task.centered:.4f}", f"{task.stderr_bootstrap:.4f}", f"{task.seconds:.1f}")
        table.add_row(task.label, f"{task.examples:,}", *figures)
    seconds = sum(task.seconds for task in result.tasks)
    whole = "CORE" if result.complete else "mean of these"
    table.add_section()
    table.add_row(whole, "", "", f"{result.mean_centered:.4f}", f"{result.stderr_bootstrap:.4f}", f"{seconds:.1f}")
    Console().print(table)
    if not result.complete:
        click.echo("This is no CORE: that takes all examples of all 22 tasks.")


# ---------------------------------------------------------------------- bits per byte


def _bits_per_byte(name: str, track: Track, limit: int | None, submission: Path | None, scratch: Path, as_json: bool) -> None:
    checkpoint = find_checkpoint(name)
    if checkpoint is None:
        raise UsageProblem("holds no checkpoint, and the held-out rows are in the track's tokens", where=name, mend="use --metric core")
    if checkpoint.config.vocab_size != track.data.vocab_size:
        known, held = checkpoint.config.vocab_size, track.data.vocab_size
        raise UsageProblem(f"the model knows {known:,} tokens, and the track's rows have {held:,}", where=f"--track {track.name}")
    held_out = open_data(track, DATA).held_out(min(limit or track.data.val_rows, track.data.val_rows))
    with _bars() as bars:
        scoring = bars.add_task("Scoring", total=len(held_out.rows))
        model, crew = checkpoint.served(submission, scratch), Crew.of_this_machine(checkpoint.loaded_bytes)
        place = _place(scratch, "servers")
        score = evaluate_held_out(model, checkpoint.config.dtype, held_out, crew, place, lambda rows: bars.update(scoring, completed=rows))
    if as_json:
        probes = [probe.model_dump(mode="json") for probe in score.probes]
        print_json({"val_bpb": score.bits_per_byte, **asdict(score.loss), "probes": probes})
    elif score.bits_per_byte is not None:
        click.echo(f"{score.bits_per_byte:.4f} bits per byte on {score.loss.tokens:,} held-out tokens of {track.name}, {checkpoint.folder}")
    _require_honest(score.probes)


# ---------------------------------------------------------------------- both


def _place(scratch: Path, name: str) -> Place:
    """Where servers run; what they write to lies apart from what others of another name write to."""
    folder = scratch / name
    folder.mkdir()
    memory = int(psutil.virtual_memory().total * MEMORY_SHARE)
    return Place(child_environment(folder, 1), folder, folder / "console", ANSWER_TIMEOUT_S, memory)


def _require_honest(probes: Sequence[Probe]) -> None:
    """Raises NotMet with what the failed probes saw."""
    if failed := [f"{probe.name}: {probe.evidence}" for probe in probes if not probe.passed]:
        raise NotMet(f"no score, because the model failed {len(failed)} of {len(probes)} probes: {'; '.join(failed)}")


def _bars() -> Progress:
    columns = (TextColumn("{task.description:<22}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
