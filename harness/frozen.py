"""The freeze of the baseline: `baseline/frozen.toml` lists the SHA-256 of each trainer file, and tracks pin the digest of that list.

A trainer file is one that the processes of a run import: training, scoring, and the inspection before them. Data preparation is
pinned by what it produces, the digests of tokenizer and rows. What people run beside the harness (training alone, sampling) may change.
`python -m harness.frozen` writes the list and the tracks' pins anew: a deliberate act that makes a new baseline version,
after which each measured track gets a new version and is calibrated again.
"""

from __future__ import annotations

import ast
import hashlib
import re
import tomllib
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from harness.errors import MachineLacks
from harness.launch import REPOSITORY

BASELINE = REPOSITORY / "baseline"
LIST = "frozen.toml"
ENTRY_POINTS = ("train.py", "serve.py", "inspection.py")
"""What the harness starts."""


def trainer_files(baseline: Path = BASELINE) -> dict[str, str]:
    """Relative path -> SHA-256 of the entry points and of every file of the baseline that they import, directly or not.

    Imports inside functions do not count: `train.py` loads so what only a run without a harness needs.
    """
    found: dict[str, str] = {}
    waiting = [baseline / name for name in ENTRY_POINTS]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(baseline).as_posix()
        if name in found or not path.is_file():
            continue
        content = path.read_bytes()
        found[name] = hashlib.sha256(content).hexdigest()
        waiting += _imported(content, baseline)
        waiting += [folder / "__init__.py" for folder in path.parents if folder.is_relative_to(baseline)]
    return found


def _shadows(names: Iterable[str], baseline: Path) -> set[str]:
    """What Python would load in place of a listed module: a package or an extension of its name."""
    modules = [Path(name).with_suffix("") for name in names]
    rivals = [module.with_name(module.name + ending) for module in modules for ending in ("", *EXTENSION_SUFFIXES)]
    return {rival.as_posix() for rival in rivals if (baseline / rival).exists()}


def _imported(content: bytes, baseline: Path) -> list[Path]:
    """Where the baseline's modules that a file imports when it is loaded would lie."""
    modules: list[str] = []
    statements: list[ast.AST] = [ast.parse(content)]
    while statements:
        statement = statements.pop()
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(statement, ast.Import):
            modules += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            modules += [statement.module, *(f"{statement.module}.{alias.name}" for alias in statement.names)]
        statements += ast.iter_child_nodes(statement)
    parts = [module.split(".")[1:] for module in modules if module.split(".")[0] == baseline.name]
    return [baseline.joinpath(*inner).with_suffix(".py") for inner in parts if inner]


def digest_of(files: dict[str, str]) -> str:
    """SHA-256 over the sorted `path digest` lines."""
    return hashlib.sha256("".join(f"{name} {files[name]}\n" for name in sorted(files)).encode()).hexdigest()


def require_frozen(pinned: str, baseline: Path = BASELINE) -> None:
    """Raise MachineLacks naming the first file that is not the one that was frozen, or a list that the track does not pin."""
    where = f"baseline/{LIST}"
    try:
        listed = tomllib.loads((baseline / LIST).read_text())["files"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise MachineLacks(f"cannot be read ({error})", where=where, mend="restore it with git") from None
    for name, digest in sorted(listed.items()):
        file = baseline / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise _differs(name, "was changed" if file.is_file() else "is missing")
    for name in sorted(set(trainer_files(baseline)) - set(listed) | _shadows(listed, baseline)):
        raise _differs(name, "was added")
    if digest_of(listed) != pinned:
        raise MachineLacks("the track pins another baseline", where=where, mend="check out the commit of the track's version")


def _differs(name: str, how: str) -> MachineLacks:
    mend = "restore it with git: runs need the frozen baseline"
    return MachineLacks(f"{how} since the baseline was frozen", where=f"baseline/{name}", mend=mend)


def write_list(baseline: Path = BASELINE) -> str:
    """Freeze the files as they are; returns the digest for the tracks to pin."""
    files = trainer_files(baseline)
    lines = ["# SHA-256 of each file of the frozen trainer. Written by `python -m harness.frozen`.", "", "[files]"]
    lines += [f'"{name}" = "{files[name]}"' for name in sorted(files)]
    (baseline / LIST).write_text("\n".join(lines) + "\n")
    return digest_of(files)


def pin_tracks(digest: str, tracks: Path) -> None:
    """Write the digest into every track's file."""
    for path in sorted(tracks.glob("*.toml")):
        path.write_text(re.sub(r'(?m)^baseline_digest = ".*"$', f'baseline_digest = "{digest}"', path.read_text()))


if __name__ == "__main__":
    frozen = write_list()
    pin_tracks(frozen, REPOSITORY / "harness" / "tracks")
    print(frozen)
