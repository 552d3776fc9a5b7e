"""An English corpus that needs no download: the docstrings of two exactly pinned wheels, 7.76 MB.

The documents are the docstrings of modules, classes and functions, read from source with `ast`, without importing the packages.
They are the same on every platform and on Python 3.11 to 3.13, which CORPUS_SHA256 holds: tests are left out (they are two
thirds of the source and 1 % of the text) and so is the one module that scipy's build writes for each platform.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from baseline.data.durable import whole_file
from baseline.data.errors import DataError
from baseline.data.progress import Progress, Tally, silent
from baseline.data.shards import Shard, ShardSplit, TextDigest, read_documents

PINNED = {"pandas": "3.1.1", "scipy": "1.17.1"}
GENERATED = frozenset({"scipy/__config__.py"})
MIN_CHARACTERS = 200
"""Shorter docstrings are mostly one-line summaries that repeat each other."""
SHUFFLE_SEED = "docstrings 1"
VALIDATION_SHARE = 0.06
DOCUMENTS_PER_SHARD = 1024

CORPUS_SHA256 = "ad7d0a54857fb718c5cfd1ebbf1dffdf0cb515b474fa6c43d50ddc2c66ea3f0c"
"""TextDigest of all documents, in order."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One Python file of an installed package."""

    name: str
    """Path inside site-packages, with forward slashes."""
    path: Path


def write_shards(folder: Path, site: Path | None = None, progress: Progress = silent) -> ShardSplit:
    """Write the corpus to `folder` as JSON lines, `docstrings_00000.jsonl` and on; the last shard is the validation split.

    Shards that are there and hold the pinned corpus are left alone. `site` is a site-packages folder other than this interpreter's.
    Raises DataError when a package is missing, has another version, or has been edited.
    """
    if (split := _existing(folder)) is not None:
        return split
    documents = extract(site, progress)
    digest = digest_of(documents)
    if digest != CORPUS_SHA256:
        raise DataError(
            f"the docstrings of {_requirement()} have SHA-256 {digest[:12]}…, and {CORPUS_SHA256[:12]}… is pinned: "
            f"an installed file has been changed. Reinstall both: pip install --force-reinstall --no-deps {_requirement()}"
        )
    for name, part in _parts(documents):
        with whole_file(folder / name) as file:
            for text in part:
                file.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
    split = _existing(folder)
    assert split is not None
    return split


def extract(site: Path | None = None, progress: Progress = silent) -> list[str]:
    """Every distinct docstring above MIN_CHARACTERS, in the order of SHA-256(seed + text): a shuffle that depends on the texts alone."""
    files = _source_files(site)
    tally = Tally("extract", len(files), progress)
    found: set[str] = set()
    with _collector_paused():
        for file in files:
            found.update(text for text in docstrings_of(_read(file), file.name) if len(text) > MIN_CHARACTERS)
            tally.advance(1)
    return sorted(found, key=lambda text: hashlib.sha256((SHUFFLE_SEED + text).encode()).digest())


def digest_of(documents: list[str]) -> str:
    """TextDigest of the documents, in hexadecimal."""
    digest = TextDigest()
    for text in documents:
        digest.update(text)
    return digest.hexdigest()


def docstrings_of(source: bytes, name: str) -> Iterator[str]:
    """The normalised docstrings of a module's source, outer definitions before inner ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings are not news to our reader
        try:
            pending: list[ast.AST] = [ast.parse(source)]
        except SyntaxError as error:
            raise DataError(f"{name} cannot be parsed ({error.msg}): use Python 3.11 or newer, or reinstall the package") from None
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            raw = ast.get_docstring(node, clean=False)
            if raw is not None:
                yield normalise(raw)
        # Only statements can hold definitions; expressions are most of the tree and are not walked.
        pending.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case))


def normalise(docstring: str) -> str:
    """The docstring without its common indentation, trailing blanks and outer empty lines.

    Written out, because `inspect.cleandoc` changed in Python 3.13 and the corpus must not.
    """
    lines = [line.rstrip(" ") for line in docstring.expandtabs(8).split("\n")]
    margin = min((len(line) - len(line.lstrip(" ")) for line in lines[1:] if line), default=0)
    return "\n".join([lines[0].lstrip(" "), *(line[margin:] for line in lines[1:])]).strip("\n")


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collections inside: syntax trees have no cycles, and collecting among them doubles the time in a process with torch."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _source_files(site: Path | None) -> list[SourceFile]:
    """The Python files of the pinned packages, by name."""
    distributions = {name: _distribution(name, site) for name in PINNED}
    wrong = [
        f"{name} {needed} is needed and " + (f"{found.version} is installed" if found else "is not installed")
        for (name, needed), found in zip(PINNED.items(), distributions.values(), strict=True)
        if found is None or found.version != needed
    ]
    if wrong:
        raise DataError(f"the embedded corpus is made of exact versions: {'; '.join(wrong)}. Run: pip install {_requirement()}")
    files = []
    for package, found in distributions.items():
        assert found is not None
        listed = found.files
        if not listed:
            raise DataError(
                f"{package} {PINNED[package]} has no list of its files: install the wheel with pip, pip install {_requirement()}"
            )
        names = {file.as_posix(): Path(str(found.locate_file(file))) for file in listed}
        files += [SourceFile(name, path) for name, path in names.items() if _belongs(name, package)]
    return sorted(files, key=lambda file: file.name)


def _distribution(name: str, site: Path | None) -> metadata.Distribution | None:
    """The installed package, or None."""
    path = [str(site)] if site else None
    found = metadata.distributions(name=name, path=path) if path else metadata.distributions(name=name)
    return next(iter(found), None)


def _belongs(name: str, package: str) -> bool:
    parts = name.split("/")
    return parts[0] == package and name.endswith(".py") and "tests" not in parts and name not in GENERATED


def _read(file: SourceFile) -> bytes:
    try:
        return file.path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{file.path} cannot be read ({error.strerror}): reinstall with pip install --force-reinstall {_requirement()}"
        ) from None


def _requirement() -> str:
    return " ".join(f"{name}=={version}" for name, version in PINNED.items())


def _parts(documents: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(file name, documents) of each shard: training shards of DOCUMENTS_PER_SHARD, then the last VALIDATION_SHARE of documents."""
    boundary = len(documents) - round(len(documents) * VALIDATION_SHARE)
    starts = range(0, boundary, DOCUMENTS_PER_SHARD)
    parts = [documents[start : min(start + DOCUMENTS_PER_SHARD, boundary)] for start in starts] + [documents[boundary:]]
    return ((f"docstrings_{index:05d}.jsonl", part) for index, part in enumerate(parts))


def _existing(folder: Path) -> ShardSplit | None:
    """The shards in `folder`, if together they hold the pinned corpus."""
    shards = [Shard(path, path.stat().st_size) for path in sorted(folder.glob("docstrings_*.jsonl"))]
    digest = TextDigest()
    try:
        for shard in shards:
            for batch in read_documents(shard):
                for text in batch.texts:
                    digest.update(text)
    except DataError:
        return None
    return ShardSplit(tuple(shards[:-1]), (shards[-1],)) if digest.hexdigest() == CORPUS_SHA256 else None
