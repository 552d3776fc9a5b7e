"""`speedrun data`: prepare a track's rows, or say what is there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from baseline.data.manifest import Manifest
from baseline.data.progress import Stage
from harness.cli.options import DATA, json_option, print_json, track_option
from harness.prepared import PreparedData, open_data, prepare_data
from harness.track import Track, load_track

STAGE_TITLES: dict[Stage, str] = {
    "extract": "Reading docstrings",
    "download": "Downloading shards",
    "tokenizer": "Training the tokenizer",
    "tokenize": "Tokenizing",
    "pack": "Packing rows",
    "verify": "Verifying digests",
}


@click.group()
def data() -> None:
    """Prepare a track's shards, tokenizer and packed rows, or show them."""


@data.command()
@track_option
@json_option
def prepare(track_name: str, as_json: bool) -> None:
    """Make the track's rows, or verify and reuse what is there."""
    track = load_track(track_name)
    _show(prepare_with_bars(track), as_json)


@data.command()
@track_option
@json_option
def status(track_name: str, as_json: bool) -> None:
    """Verify every byte of the track's prepared data."""
    _show(open_data(load_track(track_name), DATA), as_json)


def prepare_with_bars(track: Track) -> PreparedData:
    """Prepare with one progress bar a stage, on stderr."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[Stage, TaskID] = {}

        def draw(stage: Stage, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(STAGE_TITLES[stage], total=total)
            bars.update(tasks[stage], completed=done, total=total)

        return prepare_data(track, DATA, draw)


def _show(prepared: PreparedData, as_json: bool) -> None:
    splits = {name: _split(manifest) for name, manifest in (("train", prepared.train), ("val", prepared.val))}
    if as_json:
        print_json({"folder": prepared.folder, "tokenizer_sha256": prepared.tokenizer_digest, **splits})
        return
    click.echo(f"{prepared.folder}: every digest verified")
    for name, split in splits.items():
        click.echo(
            f"  {name:<6} {split['rows']:>8,} rows of {split['row_length']} tokens from {split['documents']:,} documents, "
            f"{split['cropped_share']:.1%} of tokens cropped, rows.bin {split['rows_sha256'][:12]}…"
        )


def _split(manifest: Manifest) -> dict[str, Any]:
    return {**asdict(manifest), "row_length": manifest.row_length, "shards": len(manifest.shards)}
