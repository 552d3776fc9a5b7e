"""Options and places that several commands share."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from harness.launch import REPOSITORY
from harness.track import track_names
from leaderboard.database import Database
from leaderboard.merged import MergedDatabase

COMMITTED = REPOSITORY / "leaderboard"
LOCAL = REPOSITORY / "runs"
DATA = REPOSITORY / "data"
SUBMISSIONS = REPOSITORY / "submissions"
SITE = REPOSITORY / "site"

AnyFunction = Callable[..., Any]


def json_option(command: AnyFunction) -> AnyFunction:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")(command)


def track_option(command: AnyFunction) -> AnyFunction:
    return click.option("--track", "track_name", default="nano", show_default=True, help=f"One of: {', '.join(track_names())}.")(command)


def database_option(command: AnyFunction) -> AnyFunction:
    text = "Folder of the results database to write; `leaderboard` is the committed one."
    return click.option(
        "--db", "database", type=click.Path(file_okay=False, path_type=Path), default=LOCAL, show_default="runs", help=text
    )(command)


def by_option(command: AnyFunction) -> AnyFunction:
    return click.option("--by", default=None, help="Who did it, for the record.  [default: git's user.name]")(command)


def everything(database: Path = LOCAL) -> MergedDatabase:
    """The chosen database over the committed one; the chosen one wins."""
    roots = [database, COMMITTED] if database.resolve() != COMMITTED.resolve() else [COMMITTED]
    return MergedDatabase([Database(root) for root in roots])


def signer(by: str | None) -> str:
    """The name that a record carries."""
    if by:
        return by
    try:
        name = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, cwd=REPOSITORY, check=False).stdout.strip()
    except OSError:
        name = ""
    return name or os.environ.get("USER") or "unnamed"


def print_json(values: Any) -> None:
    click.echo(json.dumps(values, indent=2, sort_keys=True, default=str))
