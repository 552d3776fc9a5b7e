"""A folder of shards read as one sequence of documents; the alphabetically last shard is the validation split.

The global order of documents: files by name, and inside a file the order in which it holds them. `.parquet` files have a
column `text`; `.jsonl` files a JSON object with the field `text` in each line; a `.txt` file is one document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from baseline.data.errors import DataError

SUFFIXES = (".parquet", ".jsonl", ".txt")
DOCUMENTS_PER_BATCH = 1024
TEXT_TYPES = (pa.string(), pa.large_string(), pa.null())
"""Of a parquet column; one without any value may have been written without a type."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of documents."""

    path: Path
    size: int
    """Bytes."""

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class ShardSplit:
    """The shards of one preparation, each part in the global order."""

    train: tuple[Shard, ...]
    val: tuple[Shard, ...]


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """Documents that follow one another, and how many bytes of the shard were consumed for them (the sum over a shard is its size)."""

    column: pa.LargeStringArray
    """The documents, none of them null, all of them valid UTF-8."""
    source_bytes: int

    @property
    def texts(self) -> list[str]:
        """The documents as Python strings."""
        texts: list[str] = self.column.to_pylist()
        return texts

    def utf8(self) -> Utf8Batch:
        """The documents' bytes, without a copy."""
        offsets = np.frombuffer(self.column.buffers()[1], dtype=np.int64)[self.column.offset :][: len(self.column) + 1]
        data = self.column.buffers()[2]
        return Utf8Batch(data if data is not None else pa.py_buffer(b""), offsets)


@dataclass(frozen=True, slots=True)
class Utf8Batch:
    """Documents as they lie in memory: document i is data[offsets[i] : offsets[i + 1]]."""

    data: pa.Buffer
    offsets: NDArray[np.int64]
    """(documents + 1,), never decreasing; the first need not be 0."""


class TextDigest:
    """SHA-256 over documents, whatever file holds them: for each, its length in bytes (8 bytes, little-endian) and its UTF-8 bytes."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.documents = 0
        self.bytes = 0

    def update(self, text: str | memoryview) -> None:
        """Add one document: a string, or its UTF-8 bytes."""
        data = text.encode() if isinstance(text, str) else text
        self._sha256.update(len(data).to_bytes(8, "little"))
        self._sha256.update(data)
        self.documents += 1
        self.bytes += len(data)

    def update_all(self, batch: Utf8Batch) -> None:
        """Add the documents of a batch, in order."""
        data = memoryview(batch.data)
        for start, end in pairwise(batch.offsets.tolist()):
            self.update(data[start:end])

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def split_folder(folder: Path, train_shards: int | None = None) -> ShardSplit:
    """The shards of `folder`: the last by name for validation, the first `train_shards` of the others (all, when None) for training.

    Raises DataError when the folder does not hold that many shards and one for validation.
    """
    shards = list_shards(folder)
    wanted = 1 if train_shards is None else train_shards
    if len(shards) < wanted + 1:
        raise DataError(
            f"{folder} holds {len(shards)} shard(s) ({', '.join(SUFFIXES)}), and {wanted + 1} are needed: "
            f"{wanted} for training and the alphabetically last for validation. Download or copy the missing ones there"
        )
    return ShardSplit(tuple(shards[:-1][:train_shards]), (shards[-1],))


def list_shards(folder: Path) -> list[Shard]:
    """The shards directly inside `folder`, by name."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give the one that holds the shards")
    files = (path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file() and not path.name.startswith("."))
    return [Shard(path, path.stat().st_size) for path in sorted(files, key=lambda path: path.name)]


def read_documents(shard: Shard) -> Iterator[DocumentBatch]:
    """The shard's documents in order, at most 1,024 in memory at a time. DataError names file and row of a document without text."""
    readers = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".txt": _read_txt}
    try:
        yield from readers[shard.path.suffix](shard)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{shard.path} cannot be read: {reason}. Delete it and download it again") from None


def _read_parquet(shard: Shard) -> Iterator[DocumentBatch]:
    with pq.ParquetFile(shard.path) as file:
        if "text" not in file.schema_arrow.names:
            raise DataError(f"{shard.path} has no column `text`; it has {', '.join(file.schema_arrow.names)}")
        rows, reported = 0, 0
        kind = file.schema_arrow.field("text").type
        if kind not in TEXT_TYPES:
            raise DataError(f"{shard.path}: column `text` holds {kind}, not text. Write it as strings")
        for batch in file.iter_batches(DOCUMENTS_PER_BATCH, columns=["text"], use_threads=False):
            column = batch.column(0).cast(pa.large_string())
            if column.null_count:
                row = rows + column.is_null().index(True).as_py()
                raise DataError(f"{shard.path}: row {row} has no text in column `text`. Remove the row")
            column.validate(full=True)  # the file format does not promise that its strings are UTF-8
            rows += len(column)
            reached = shard.size * rows // file.metadata.num_rows
            yield DocumentBatch(column, reached - reported)
            reported = reached
    if reported < shard.size:
        yield _batch([], shard.size - reported)


def _batch(texts: list[str], source_bytes: int) -> DocumentBatch:
    return DocumentBatch(pa.array(texts, pa.large_string()), source_bytes)


def _read_jsonl(shard: Shard) -> Iterator[DocumentBatch]:
    texts: list[str] = []
    consumed = 0
    with shard.path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            consumed += len(line)
            if line.strip():
                texts.append(_text_of_line(shard.path, number, line))
            if len(texts) == DOCUMENTS_PER_BATCH:
                yield _batch(texts, consumed)
                texts, consumed = [], 0
    yield _batch(texts, consumed)


def _text_of_line(path: Path, number: int, line: bytes) -> str:
    try:
        text = json.loads(line)["text"]
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{path}:{number}: the text holds half of a surrogate pair, which is no character. Remove the line") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f'{path}:{number}: expected a JSON object with a string "text". Remove or mend the line') from None
    assert isinstance(text, str)
    return text


def _read_txt(shard: Shard) -> Iterator[DocumentBatch]:
    yield _batch([shard.path.read_bytes().decode()], shard.size)
