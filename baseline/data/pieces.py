"""The token ids of one shard as files: the unit of parallel work, and of what a restart need not repeat.

A piece is a folder with the shard's name: `tokens` holds the documents one after another (uint16, little-endian, BOS before each), and
`voucher.json`, which is written last, vouches for it. BOS occurs nowhere else, so it also marks where documents begin.

Several workers are processes of their own. One whose parent is killed ends with its next report; until then its lock on the piece keeps a
successor waiting.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baseline.data.durable import exclusive, read_sealed, sha256_of, whole_file, write_sealed
from baseline.data.encoding import BatchEncoder
from baseline.data.errors import DataError
from baseline.data.manifest import SourceShard
from baseline.data.progress import Progress, Tally
from baseline.data.shards import Shard, TextDigest, read_documents
from baseline.data.tokenizer import Tokenizer

Link: TypeAlias = "Connection[Any, Any]"
"""To a worker go shards; from it come bytes of its shard that are done with, and then the Piece or what went wrong."""


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
    sha256: str
    """The tokenizer's digest."""

    @classmethod
    def of(cls, folder: Path, tokenizer: Tokenizer) -> Workbench:
        return cls(folder, tokenizer, tokenizer.digest)


def make_pieces(shards: Sequence[Shard], bench: Workbench, workers: int, progress: Progress) -> list[Piece]:
    """The piece of each shard, in order, made by `workers` processes; a single one is this process. Finished pieces are reused.

    The bytes do not depend on the number of workers. Raises DataError when a shard is unusable or a worker dies.
    """
    tally = Tally("tokenize", sum(shard.size for shard in shards), progress)
    workers = min(workers, len(shards))
    if workers == 1:
        maker = PieceMaker(bench, BatchEncoder(bench.tokenizer), tally.advance)
        return [maker.piece_of(shard) for shard in shards]
    with _crew(bench, workers) as links:
        found = _collect(shards, links, tally)
    return [found[shard.name] for shard in shards]


@contextmanager
def _crew(bench: Workbench, workers: int) -> Iterator[list[Link]]:
    """Links to `workers` processes, which end with this block. They share nothing but pipes: named semaphores outlive a kill."""
    context = multiprocessing.get_context("spawn")  # a forked copy of a process with threads may hang
    links: list[Link] = []
    processes: list[SpawnProcess] = []
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, bench), daemon=True)
            process.start()
            theirs.close()
            links.append(ours)
            processes.append(process)
        yield links
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _collect(shards: Sequence[Shard], links: Sequence[Link], tally: Tally) -> dict[str, Piece]:
    """Hand out the shards and take in the pieces, by name. Raises what a worker raised."""
    upcoming, pieces = iter(shards), dict[str, Piece]()
    for link, shard in zip(links, upcoming, strict=False):
        link.send(shard)
    while len(pieces) < len(shards):
        ready = wait(links)
        for link in (link for link in links if link in ready):
            try:
                message = link.recv()
            except (EOFError, ConnectionError):
                raise DataError("a worker process died, perhaps for lack of memory: start again; finished shards are kept") from None
            if isinstance(message, int):
                tally.advance(message)
            elif isinstance(message, Piece):
                pieces[message.source.name] = message
                if following := next(upcoming, None):
                    link.send(following)
            else:
                raise message
    return pieces


def _work(link: Link, bench: Workbench) -> None:
    """A worker process: a piece for each shard that comes in, until the other end of the link is closed, or its owner killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt reaches the parent too, which ends this process
    maker = PieceMaker(bench, BatchEncoder(bench.tokenizer), link.send)
    try:
        while True:
            shard = link.recv()
            try:
                link.send(maker.piece_of(shard))
            except ConnectionError:
                raise
            except Exception as error:
                link.send(error)
    except (EOFError, ConnectionError):
        return


@dataclass(frozen=True, slots=True)
class PieceMaker:
    """Makes pieces, one at a time."""

    bench: Workbench
    encoder: BatchEncoder
    report: Callable[[int], None]
    """Told how many bytes of the shard have just been finished with."""

    def piece_of(self, shard: Shard) -> Piece:
        """The finished piece of an earlier attempt, or a new one."""
        folder = self.bench.folder / shard.name
        with exclusive(folder):
            finished = _finished_piece(shard, folder, self.bench)
            if finished:
                self.report(shard.size)
            return finished or self._new_piece(shard, folder)

    def _new_piece(self, shard: Shard, folder: Path) -> Piece:
        path = folder / "tokens"
        texts, ids_sha256, tokens = TextDigest(), hashlib.sha256(), 0
        with whole_file(path) as file:
            for batch in read_documents(shard):
                documents = batch.utf8()
                texts.update_all(documents)
                ids = self.encoder.encode(documents)
                file.write(ids.data)
                ids_sha256.update(ids.data)
                tokens += len(ids)
                self.report(batch.source_bytes)
        source = SourceShard(shard.name, shard.size, texts.documents, texts.bytes, texts.hexdigest())
        voucher = {
            "tokenizer_sha256": self.bench.sha256,
            "tokens": tokens,
            "tokens_sha256": ids_sha256.hexdigest(),
            "source": asdict(source),
        }
        write_sealed(folder / "voucher.json", voucher)
        return Piece(path, self.bench.tokenizer.bos_id, tokens, source)


def _finished_piece(shard: Shard, folder: Path, bench: Workbench) -> Piece | None:
    """The piece that an earlier attempt left, if it is whole and was made from this shard by this tokenizer."""
    path = folder / "tokens"
    try:
        voucher = read_sealed(folder / "voucher.json")
        intact = sha256_of(path) == voucher["tokens_sha256"]
    except (DataError, OSError):
        return None
    source = SourceShard(**voucher["source"])
    if not intact or voucher["tokenizer_sha256"] != bench.sha256 or source.size != shard.size:
        return None
    return Piece(path, bench.tokenizer.bos_id, voucher["tokens"], source)
