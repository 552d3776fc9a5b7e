"""A submission folder, read once as hostile input: `submission.toml`, `README.md` and at most one Python file per slot.

Nothing here executes code. The bytes that were read are the bytes that are hashed, checked and staged: a file that
changes on disk afterwards changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, get_args

from pydantic import ConfigDict, Field, ValidationError

from baseline.config_types import FIXED_FIELDS, value_problem
from harness.errors import RuleViolation, UsageProblem
from harness.record import Author, Component, Document, Line, Name, SlotName, Text

MANIFEST = "submission.toml"
README = "README.md"
BASELINE = "baseline"
"""The submission that overrides nothing; the only one without a parent."""

SLOT_FUNCTION: dict[SlotName, str] = {
    "config": "configure",
    "model": "build_model",
    "optimizer": "build_optimizer",
    "schedule": "schedule",
    "kernels": "replace_ops",
}
"""Slot -> the function that its file holds, as in `baseline.contract` (which needs torch to import)."""

SLOTS: tuple[SlotName, ...] = get_args(SlotName)
SLOT_FILES: dict[str, SlotName] = {f"{slot}.py": slot for slot in SLOTS}
LIMITS_BYTES = {MANIFEST: 16_384, README: 65_536, **dict.fromkeys(SLOT_FILES, 65_536)}
"""Every file that a submission may have, and its size cap. Room for a rewritten model, none for smuggled weights (rule R05)."""

LICENCES = ("MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT-0", "0BSD", "CC0-1.0", "Unlicense")
"""SPDX ids under which the next entry may build on this one."""


class Manifest(Document):
    """What `submission.toml` says."""

    model_config = ConfigDict(strict=True)

    name: Name
    title: Line
    summary: Annotated[Text, Field(min_length=1)]
    authors: Annotated[tuple[Author, ...], Field(alias="author", min_length=1, max_length=20, strict=False)]
    licence: Line = "MIT"
    parent: Name | None = None
    """The submission that this one builds on. The baseline where the file names none; None only for the baseline itself."""
    tracks: Annotated[tuple[Name, ...], Field(max_length=20, strict=False)] = ()
    """Tracks that the submission is meant for; empty means all."""
    depths: Annotated[tuple[int, int] | None, Field(strict=False)] = None
    """Lowest and highest depth at which the submission claims to work; `check` builds it at each of them."""
    components: Annotated[tuple[Component, ...], Field(alias="component", max_length=50, strict=False)] = ()

    def runs_on(self, track: str) -> bool:
        """Whether the submission is meant for this track."""
        return not self.tracks or track in self.tracks


class Submission(Manifest):
    """A submission as it was on disk when it was loaded."""

    path: Path
    files: Annotated[dict[str, bytes], Field(exclude=True, repr=False)]
    """File name -> content, sorted by name."""

    @property
    def slots(self) -> tuple[SlotName, ...]:
        """The slots that this submission overrides, in the contract's order."""
        return tuple(slot for slot in SLOTS if f"{slot}.py" in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 of all files; what `LC_ALL=C sha256sum * | sha256sum` prints in the folder."""
        lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(self.files.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @classmethod
    def load(cls, path: Path, expected_name: str | None = None) -> Submission:
        """Read and validate the folder. `expected_name` is the name it must have; without it, that of the folder.

        Raises UsageProblem when there is no such folder, RuleViolation for the first thing in it that is not allowed.
        """
        if not path.is_dir():
            mend = "name the folder, not a file in it" if path.exists() else "`speedrun new NAME` makes one"
            raise UsageProblem("is not a submission folder", where=str(path), mend=mend)
        path = path.resolve()
        files = _read_files(path)
        manifest = _parse_manifest(files[MANIFEST], path / MANIFEST)
        _check_manifest(manifest, expected_name or path.name, files, path / MANIFEST)
        if manifest.parent is None and manifest.name != BASELINE:
            manifest = manifest.model_copy(update={"parent": BASELINE})
        return cls.model_construct(**dict(manifest), path=path, files=files)


def stage(submission: Submission, into: Path) -> Path:
    """Write exactly the hashed bytes, read-only, into the new folder `into`, which the child process then reads."""
    into.mkdir(parents=True)
    for name, content in submission.files.items():
        target = into / name
        target.write_bytes(content)
        target.chmod(0o444)
    return into


# ---------------------------------------------------------------------- reading the folder


def _read_files(folder: Path) -> dict[str, bytes]:
    """All files of the folder, by name. Raises RuleViolation at the first that is not allowed."""
    files = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            files[entry.name] = _read_file(Path(entry.path))
    for required in (MANIFEST, README):
        if not files.get(required, b"").strip():
            problem = "is empty" if required in files else "is missing"
            raise RuleViolation(problem, where=str(folder / required), mend="write it; `speedrun new NAME` shows a complete folder")
    return dict(sorted(files.items()))


def _read_file(file: Path) -> bytes:
    """Content of one regular text file with an allowed name and size; never follows a link, never waits for a pipe."""
    limit = LIMITS_BYTES.get(file.name)
    mode = file.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise RuleViolation("is a symbolic link", where=str(file), mend="put the file itself there")
    if stat.S_ISDIR(mode):
        raise RuleViolation("is a folder", where=str(file), mend="delete it; a submission is one flat folder")
    if limit is None:
        raise RuleViolation("is none of a submission's files", where=str(file), mend="delete it; allowed are " + ", ".join(LIMITS_BYTES))
    if not stat.S_ISREG(mode):
        raise RuleViolation("is not a regular file", where=str(file), mend="put a text file there")
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise UsageProblem(f"cannot be read: {error.strerror}", where=str(file), mend="make it readable") from error
    if len(content) > limit:
        raise RuleViolation(f"is larger than {limit:,} bytes", where=str(file), mend="a slot file is code for people to read; shorten it")
    if b"\0" in content or not _is_utf8(content):
        raise RuleViolation("is binary", where=str(file), mend="a submission is UTF-8 text only")
    return content


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


# ---------------------------------------------------------------------- submission.toml


def _parse_manifest(content: bytes, file: Path) -> Manifest:
    """The typed manifest. Raises RuleViolation with the line of a syntax error, or the first wrong field."""
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise RuleViolation(f"is not TOML: {reason}", where=str(file), mend="mend that line") from error
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        problem, mend = _first_problem(error)
        raise RuleViolation(problem, where=str(file), mend=mend) from error


def _first_problem(error: ValidationError) -> tuple[str, str]:
    """(what is wrong, mend) for the first error of a validation."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    leaf = next((str(part) for part in reversed(first["loc"]) if isinstance(part, str)), "")
    if first["type"] == "missing":
        return f"field '{field}' is missing", "add it; `speedrun new NAME` shows a complete file"
    if first["type"] == "extra_forbidden":
        similar = get_close_matches(leaf, sorted(_FIELDS), n=1)
        return f"unknown field '{field}'", f"did you mean '{similar[0]}'?" if similar else "remove it"
    shown = repr(first["input"])
    shown = shown if len(shown) <= 60 else shown[:59] + "…"
    return f"field '{field}' = {shown} is not allowed", _MENDS.get(leaf, first["msg"][:1].lower() + first["msg"][1:])


_FIELDS = {field.alias or name for model in (Manifest, Author, Component) for name, field in model.model_fields.items()}
_NAME_MEND = "use lower-case letters, digits and underscores, a letter first, at most 64"
_MENDS = {
    "name": _NAME_MEND,
    "parent": _NAME_MEND,
    "url": "use an https:// address",
    "kind": 'use "person" or "agent"',
    "off_slot": "use one of " + ", ".join(SLOTS),
    "title": "use one line of 1 to 300 characters",
    "author": "write [[author]] with a name",
    "component": "write [[component]] with name, summary and off or off_slot",
    "tracks": 'use a list of track names, such as ["gpt2"]',
    "depths": "use two whole numbers, such as [8, 24]",
}


def _check_manifest(manifest: Manifest, expected_name: str, files: dict[str, bytes], file: Path) -> None:
    """Raise RuleViolation for the first statement that contradicts another or the folder."""
    for problem, mend in _contradictions(manifest, expected_name, set(files)):
        raise RuleViolation(problem, where=str(file), mend=mend)


def _contradictions(manifest: Manifest, expected_name: str, files: set[str]) -> list[tuple[str, str]]:
    """(what is wrong, mend) for everything that the types alone do not catch."""
    found = []
    if manifest.name != expected_name:
        found.append((f"field 'name' = '{manifest.name}' differs from the folder's name '{expected_name}'", "make them equal"))
    if manifest.name == BASELINE and (manifest.parent or files & set(SLOT_FILES)):
        found.append(("the baseline has no parent and no slot files", "choose another name with `speedrun new NAME`"))
    if manifest.parent == manifest.name:
        found.append((f"field 'parent' = '{manifest.parent}' is the submission itself", "name what it builds on"))
    if manifest.licence not in LICENCES:
        found.append((f"field 'licence' = '{manifest.licence}' is not accepted", "use one of " + ", ".join(LICENCES)))
    if len(set(manifest.tracks)) != len(manifest.tracks):
        found.append(("field 'tracks' names a track twice", "name each once"))
    if manifest.depths and not 1 <= manifest.depths[0] <= manifest.depths[1] <= 64:
        found.append((f"field 'depths' = {list(manifest.depths)} is not a range", "use [lowest, highest], between 1 and 64"))
    for component in manifest.components:
        found += _component_problems(component, manifest, files)
    return found


def _component_problems(component: Component, manifest: Manifest, files: set[str]) -> list[tuple[str, str]]:
    """(what is wrong, mend) for one declared component."""
    where = f"component '{component.name}'"
    if [c.name for c in manifest.components].count(component.name) > 1:
        return [(f"{where} is declared twice", "give each its own name")]
    if bool(component.off) == bool(component.off_slot):
        return [(f"{where} needs exactly one of 'off' and 'off_slot'", "say how the component is turned off")]
    if component.off_slot and f"{component.off_slot}.py" not in files:
        return [(f"{where}: off_slot = '{component.off_slot}' is a slot that this submission does not override", "name one it does")]
    return [(f"{where}, off: {problem}", "") for field, value in component.off.items() if (problem := _off_problem(field, value))]


def _off_problem(field: str, value: object) -> str | None:
    """Why the config field cannot take this value to turn a component off."""
    return f"{field} is the track's alone; name another field" if field in FIXED_FIELDS else value_problem(field, value)
