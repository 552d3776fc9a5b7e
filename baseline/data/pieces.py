"""The token ids of one shard as a file: the unit of parallel work, and of what a restart need not repeat.

A piece is `NAME.tokens`, the documents one after another (uint16, little-endian, BOS before each), and `NAME.json`, which is written
last and vouches for it. BOS occurs nowhere else, so it also marks where documents begin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from threading import Event

import numpy as np
import tiktoken
from numpy.typing import NDArray

from baseline.data.durable import read_sealed, sha256_of, whole_file, write_sealed
from baseline.data.errors import DataError
from baseline.data.manifest import SourceShard
from baseline.data.progress import Progress, Tally
from baseline.data.shards import Shard, TextDigest, read_documents
from baseline.data.tokenizer import Tokenizer, encode_document


@dataclass(frozen=True, slots=True)
class Piece:
    """The token ids of one shard, on disk."""

    path: Path
    bos_id: int
    tokens: int
    source: SourceShard

    def documents(self) -> Iterator[NDArray[np.uint16]]:
        """Each document's token ids, views of the memory-mapped file."""
        if not self.tokens:
            return
        ids = np.memmap(self.path, dtype="<u2", mode="r", shape=(self.tokens,))
        plain = np.asarray(ids)  # slices of a memmap subclass cost ten times as much as those of a plain array
        ends = [*np.flatnonzero(plain == self.bos_id).tolist(), self.tokens]
        for start, end in pairwise(ends):
            yield plain[start:end]


@dataclass(frozen=True, slots=True)
class Workbench:
    """Where pieces are made, and with what."""

    folder: Path
    tokenizer: Tokenizer
    encoding: tiktoken.Encoding
    tokenizer_sha256: str
    stop: Event
    """Set when one piece has failed, so that the others end early."""

    @classmethod
    def of(cls, folder: Path, tokenizer: Tokenizer) -> Workbench:
        return cls(folder, tokenizer, tokenizer.encoding(), tokenizer.digest, Event())


class StoppedError(Exception):
    """Another piece failed; this one was given up."""


def make_pieces(shards: Sequence[Shard], bench: Workbench, workers: int, progress: Progress) -> list[Piece]:
    """The piece of each shard, in order, on `workers` threads (tiktoken works outside Python's lock). Finished pieces are reused.

    The bytes do not depend on the number of workers.
    """
    tally = Tally("tokenize", sum(shard.size for shard in shards), progress)
    pool = ThreadPoolExecutor(workers)
    try:
        jobs = [pool.submit(_make_piece, shard, bench, tally) for shard in shards]
        wait(jobs, return_when=FIRST_EXCEPTION)
        for job in jobs:
            if job.done():
                job.result()  # raises what stopped the work, before waiting for anything
        return [job.result() for job in jobs]
    finally:
        bench.stop.set()
        pool.shutdown(cancel_futures=True)


def _make_piece(shard: Shard, bench: Workbench, tally: Tally) -> Piece:
    finished = _finished_piece(shard, bench)
    if finished:
        tally.advance(shard.size)
        return finished
    path = bench.folder / f"{shard.name}.tokens"
    texts, ids_sha256, tokens = TextDigest(), hashlib.sha256(), 0
    with whole_file(path) as file:
        for batch in read_documents(shard):
            for text in batch.texts:
                if bench.stop.is_set():
                    raise StoppedError
                texts.update(text)
                ids = encode_document(bench.encoding, bench.tokenizer.bos_id, text)
                data = ids.tobytes()
                file.write(data)
                ids_sha256.update(data)
                tokens += len(ids)
            tally.advance(batch.source_bytes)
    source = SourceShard(shard.name, shard.size, texts.documents, texts.bytes, texts.hexdigest())
    voucher = {
        "tokenizer_sha256": bench.tokenizer_sha256,
        "tokens": tokens,
        "tokens_sha256": ids_sha256.hexdigest(),
        "source": asdict(source),
    }
    write_sealed(bench.folder / f"{shard.name}.json", voucher)
    return Piece(path, bench.tokenizer.bos_id, tokens, source)


def _finished_piece(shard: Shard, bench: Workbench) -> Piece | None:
    """The piece that an earlier attempt left, if it is whole and was made from this shard by this tokenizer."""
    path = bench.folder / f"{shard.name}.tokens"
    try:
        voucher = read_sealed(bench.folder / f"{shard.name}.json")
        intact = sha256_of(path) == voucher["tokens_sha256"]
    except (DataError, OSError):
        return None
    source = SourceShard(**voucher["source"])
    if not intact or voucher["tokenizer_sha256"] != bench.tokenizer_sha256 or source.size != shard.size:
        return None
    return Piece(path, bench.tokenizer.bos_id, voucher["tokens"], source)
