"""`speedrun data`: prepare a track's rows, or say what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from baseline.data.manifest import Manifest
from baseline.data.prepare import is_prepared
from baseline.data.progress import Progress as Report
from baseline.data.progress import Stage
from harness.cli.options import DATA, json_option, print_json, track_option
from harness.errors import MachineLacks
from harness.prepared import ORIGIN_WORDS, PreparedData, dataset_of, open_data, prepare_data, require_counting, shards_folder
from harness.track import Track, load_track, track_names

STAGE_TITLES: dict[Stage, str] = {
    "extract": "Reading docstrings",
    "download": "Fetching shards",
    "tokenizer": "Training the tokenizer",
    "tokenize": "Tokenizing",
    "pack": "Packing rows",
    "verify": "Verifying digests",
}
STAGES_IN_BYTES: frozenset[Stage] = frozenset({"download", "tokenize", "pack", "verify"})


@click.group()
def data() -> None:
    """Prepare a track's shards, tokenizer and packed rows, or show them."""


@data.command()
@track_option
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="Folder to take the shards from instead of downloading them; other text in parquet, JSON lines or text files works too, "
    "and runs on it are not recorded.",
)
@json_option
def prepare(track_name: str, source: Path | None, as_json: bool) -> None:
    """Make the track's rows, or verify and reuse what is there; downloads what a public corpus needs."""
    track = load_track(track_name)
    with stage_bars() as draw:
        prepared = prepare_data(track, DATA, source, draw)
    if as_json:
        print_json(_as_values(prepared))
    else:
        _show(track, prepared)


@data.command()
@click.option("--track", "track_name", default=None, help=f"One of: {', '.join(track_names())}.  [default: all]")
@json_option
def status(track_name: str | None, as_json: bool) -> None:
    """Verify every byte of what is prepared, and say what is missing."""
    if track_name:
        track = load_track(track_name)
        with stage_bars() as draw:
            prepared = open_data(track, DATA, draw)
        if as_json:
            print_json(_as_values(prepared))
        else:
            _show(track, prepared)
        return
    tracks = [load_track(name) for name in track_names()]
    values = {track.name: _status(track, as_json) for track in tracks}
    if as_json:
        print_json(values)
    if problems := [value["problem"] for value in values.values() if "problem" in value]:
        raise MachineLacks(problems[0])


def prepare_with_bars(track: Track, *, recorded: bool = True) -> PreparedData:
    """The data for a run: made on the spot where that needs no download, else what `data prepare` made.

    Raises MachineLacks for rows that a recorded run may not use.
    """
    with stage_bars() as draw:
        prepared = open_data(track, DATA, draw) if track.data.is_public else prepare_data(track, DATA, progress=draw)
    return require_counting(track, prepared) if recorded else prepared


@contextmanager
def stage_bars() -> Iterator[Report]:
    """A function that draws one progress bar a stage, on stderr: bytes, rate and time left."""
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        OfBytes(DownloadColumn()),
        OfBytes(TransferSpeedColumn()),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[Stage, TaskID] = {}

        def draw(stage: Stage, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(STAGE_TITLES[stage], total=total, in_bytes=stage in STAGES_IN_BYTES)
            bars.update(tasks[stage], completed=done, total=total)

        yield draw


class OfBytes(ProgressColumn):
    """A column that stays empty for stages that do not count bytes."""

    def __init__(self, column: ProgressColumn) -> None:
        self._column = column
        super().__init__()

    def render(self, task: Task) -> RenderableType:
        return self._column.render(task) if task.fields["in_bytes"] else ""


# ---------------------------------------------------------------------- what is shown


def _status(track: Track, as_json: bool) -> dict[str, Any]:
    """One track's state, printed unless the caller prints JSON."""
    if not is_prepared(DATA / track.name):
        value: dict[str, Any] = {"prepared": False, **_shards_here(track)}
        line = f"not prepared; `speedrun data prepare --track {track.name}` does it"
        if track.data.is_public:
            line += f" ({value['shards_here']} of {value['shards_needed']} shards are here)"
    else:
        try:
            with stage_bars() as draw:
                prepared = open_data(track, DATA, draw)
        except MachineLacks as problem:
            value, line = {"prepared": False, "problem": str(problem)}, str(problem)
        else:
            value = {"prepared": True, **_as_values(prepared)}
            if not as_json:
                _show(track, prepared)
                return value
    if not as_json:
        click.echo(f"{track.name}: {line}")
    return value


def _shards_here(track: Track) -> dict[str, int]:
    """How many of a public corpus's shards lie in their folder, by name."""
    if not track.data.is_public:
        return {}
    names = dataset_of(track).names(track.data.train_shards or 0)
    folder = shards_folder(track, DATA)
    return {"shards_needed": len(names), "shards_here": sum((folder / name).is_file() for name in names)}


def _show(track: Track, prepared: PreparedData) -> None:
    click.echo(f"{track.name}: every digest verified in {prepared.folder}")
    for name, split in _splits(prepared).items():
        click.echo(
            f"  {name:<6} {split['rows']:>8,} rows of {split['row_length']} tokens from {split['documents']:,} documents, "
            f"{split['bytes_per_token']} bytes a token, {split['cropped_share']:.1%} of tokens cropped, "
            f"rows.bin {split['rows_sha256'][:12]}…"
        )
    if track.data.is_public:
        words = ORIGIN_WORDS[prepared.origin.kind] if prepared.origin else "text of unknown origin"
        click.echo(f"  made from {words}" + ("" if prepared.counts else "; runs on these rows are not recorded"))
        if not track.data.is_pinned:
            click.echo("  the track pins no digests of them yet")


def _as_values(prepared: PreparedData) -> dict[str, Any]:
    origin = asdict(prepared.origin) if prepared.origin else None
    return {
        "folder": prepared.folder,
        "tokenizer_sha256": prepared.tokenizer_digest,
        "origin": origin,
        "counts": prepared.counts,
        **_splits(prepared),
    }


def _splits(prepared: PreparedData) -> dict[str, dict[str, Any]]:
    return {name: _split(manifest) for name, manifest in (("train", prepared.train), ("val", prepared.val))}


def _split(manifest: Manifest) -> dict[str, Any]:
    text_tokens = manifest.tokens - manifest.documents  # without BOS
    return {
        **asdict(manifest),
        "row_length": manifest.row_length,
        "shards": len(manifest.shards),
        "bytes_per_token": round(manifest.text_bytes / max(text_tokens, 1), 3),
    }
