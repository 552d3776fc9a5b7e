"""The bundle of CORE's examples, in a folder or still in its zip file: opened, and every byte verified before it is used.

A zip is read in place. Only members that the table names are opened, each to its pinned length, so that neither a member's path
nor its compression ratio can do harm. The published zip has no published digest; the digests of the files inside decide.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MachineLacks, UsageProblem
from harness.evaluate.core.examples import Example, parse_examples
from harness.evaluate.core.tasks import Task

DEFAULT_FOLDER = Path("data") / "core"
"""Relative to the working folder."""
ZIP_NAME = "eval_bundle.zip"
DATA_FOLDERS = ("eval_data", "eval_bundle/eval_data")
"""Where the task files may lie inside a bundle, as a folder or as a zip."""
BRING = "`--core DIR` names a folder or zip that has it"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A place that holds the task files. Nothing is held open."""

    path: Path
    """The folder or the zip file."""
    prefix: str
    """Path from there to the task files."""

    def where(self, task: Task) -> str:
        """The task's file in words, for messages."""
        return f"{self.path}/{self.prefix}/{task.file}"

    def read(self, task: Task) -> bytes:
        """The bytes of the task's file, equal to the pinned ones. Raises MachineLacks that names the file and how it differs."""
        member = f"{self.prefix}/{task.file}"
        reader = _read_file if self.path.is_dir() else _read_member
        # Pages of a longer file are not read: one byte more than pinned tells.
        content = _readable(lambda: reader(self.path, member, task.bytes + 1), self.where(task))
        if problem := _difference(task, content):
            raise MachineLacks(problem, where=self.where(task), mend=f"delete it and bring the bundle again, or {BRING}")
        return content

    def verify(self, tasks: tuple[Task, ...]) -> None:
        """Read every file of `tasks`; raises MachineLacks for the first that is missing or not the pinned one."""
        for task in {task.file: task for task in tasks}.values():
            self.read(task)

    def examples(self, task: Task) -> list[Example]:
        """The task's examples in file order, from verified bytes."""
        return parse_examples(task, self.read(task), self.where(task))


def open_bundle(path: Path = DEFAULT_FOLDER) -> Bundle:
    """The bundle at `path`: a zip file, or a folder with `eval_data/`, `eval_bundle/` or `eval_bundle.zip` in it.

    Verifies nothing yet: see `Bundle.verify`. Raises MachineLacks when there is none, and UsageProblem for a file that is no zip.
    """
    if path.is_file():
        return _in_zip(path)
    for prefix in DATA_FOLDERS:
        if (path / prefix).is_dir():
            return Bundle(path, prefix)
    if (path / ZIP_NAME).is_file():
        return _in_zip(path / ZIP_NAME)
    what = f"holds neither {DATA_FOLDERS[0]}/ nor {ZIP_NAME}" if path.is_dir() else "is not there"
    raise MachineLacks(f"the examples of CORE are missing: the folder {what}", where=str(path), mend=f"download them, or {BRING}")


def _in_zip(path: Path) -> Bundle:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # as in _readable
        raise UsageProblem(f"is no whole zip file ({error})", where=str(path), mend=f"give the folder, or {ZIP_NAME}") from None
    prefix = next((prefix for prefix in DATA_FOLDERS if any(name.startswith(prefix + "/") for name in names)), DATA_FOLDERS[0])
    return Bundle(path, prefix)


def _read_file(root: Path, member: str, limit: int) -> bytes:
    with (root / member).open("rb") as file:
        return file.read(limit)


def _read_member(archive_path: Path, member: str, limit: int) -> bytes:
    with zipfile.ZipFile(archive_path) as archive, archive.open(member) as file:
        return file.read(limit)


def _readable(read: Callable[[], bytes], where: str) -> bytes:
    """What `read` returns, its failures in words."""
    try:
        return read()
    except (FileNotFoundError, KeyError):
        raise MachineLacks("is missing", where=where, mend=BRING) from None
    except Exception as error:  # a damaged zip makes zipfile raise errors of a dozen types
        raise MachineLacks(f"cannot be read ({error})", where=where, mend=f"bring the bundle again, or {BRING}") from None


def _difference(task: Task, content: bytes) -> str | None:
    """How `content` differs from the pinned file, in words."""
    if len(content) < task.bytes:
        return f"is cut short: {len(content):,} of {task.bytes:,} bytes"
    if len(content) > task.bytes:
        return f"is longer than the pinned {task.bytes:,} bytes"
    found = hashlib.sha256(content).hexdigest()
    return None if found == task.sha256 else f"differs from the pinned file: SHA-256 {found[:12]}…, not {task.sha256[:12]}…"
