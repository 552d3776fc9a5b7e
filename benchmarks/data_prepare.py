"""Preparing rows ahead of the clock beside packing them while training: tokens per second, and how much text is cropped away.

    python benchmarks/data_prepare.py ../shared/text/wikipedia --train-shards 1

Both sides use the tokenizer that the preparation trains and see the training shards in order. `StreamingLoader` behaves as nanochat's
loader does: batches of 128 documents tokenized on threads, a buffer refilled to at least 1,000 documents, a linear scan of the buffer
for each placement. Here its stream ends, and like the preparation it then places what is left in the buffer: long documents gather
there, and a count without them would flatter either side.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import tiktoken
from rich.console import Console
from rich.table import Table

from baseline.data.integrity import Prepared
from baseline.data.manifest import TOKENIZER_FILE, DataSettings
from baseline.data.prepare import prepare
from baseline.data.progress import Stage
from baseline.data.shards import Shard, ShardSplit, read_documents, split_folder
from baseline.data.tokenizer import Tokenizer

BATCH_DOCUMENTS = 128
BUFFER_DOCUMENTS = 1_000


class StageClock:
    """Wall time of each stage, from its progress reports."""

    def __init__(self) -> None:
        self._first: dict[Stage, float] = {}
        self._last: dict[Stage, float] = {}

    def __call__(self, stage: Stage, done: int, total: int) -> None:
        now = time.perf_counter()
        self._first.setdefault(stage, now)
        self._last[stage] = now

    def seconds(self, stage: Stage) -> float:
        return self._last[stage] - self._first[stage]


class StreamingLoader:
    """Tokenizes and packs while rows are asked for."""

    def __init__(self, shards: tuple[Shard, ...], tokenizer: Tokenizer, encoding: tiktoken.Encoding, threads: int) -> None:
        self._batches = self._tokenized(shards, tokenizer.bos_id, encoding, threads)
        self._buffer: list[list[int]] = []
        self.used_tokens = 0
        self.rows = 0
        self.tokenizing_s = 0.0

    def _tokenized(self, shards: tuple[Shard, ...], bos_id: int, encoding: tiktoken.Encoding, threads: int) -> Iterator[list[list[int]]]:
        for shard in shards:
            for batch in read_documents(shard):
                for start in range(0, len(batch.texts), BATCH_DOCUMENTS):
                    texts = batch.texts[start : start + BATCH_DOCUMENTS]
                    before = time.perf_counter()
                    documents = [[bos_id, *ids] for ids in encoding.encode_ordinary_batch(texts, num_threads=threads)]
                    self.tokenizing_s += time.perf_counter() - before
                    yield documents

    def _refilled(self) -> bool:
        """Whether there is a document to place."""
        while len(self._buffer) < BUFFER_DOCUMENTS:
            batch = next(self._batches, None)
            if batch is None:
                break
            self._buffer += batch
        return bool(self._buffer)

    def run(self, row_length: int) -> None:
        """Make rows until the shards are used up."""
        row: list[int] = []
        while self._refilled():
            space = row_length - len(row)
            best, best_length = -1, 0
            for index, document in enumerate(self._buffer):
                if best_length < len(document) <= space:
                    best, best_length = index, len(document)
            if best < 0:
                best = min(range(len(self._buffer)), key=lambda index: len(self._buffer[index]))
            document = self._buffer.pop(best)
            row += document[:space]
            self.used_tokens += len(document)
            if len(row) == row_length:
                self.rows += 1
                row = []


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure data preparation beside a streaming loader.")
    parser.add_argument("folder", type=Path, help="folder of shards")
    parser.add_argument("--train-shards", type=int, default=1)
    parser.add_argument("--vocab-size", type=int, default=32_768)
    parser.add_argument("--sequence-len", type=int, default=2_048)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    source = split_folder(args.folder, args.train_shards)
    settings = DataSettings(args.sequence_len, args.vocab_size)
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as scratch:
        clock = StageClock()
        prepared = prepare(source, Path(scratch), settings, workers=args.threads, progress=clock)
        tokenizer = Tokenizer.load(Path(scratch) / TOKENIZER_FILE)
        loader, loader_s = measure_loader(source, tokenizer, args.sequence_len + 1, args.threads)
    console.print(comparison(prepared, clock, loader, loader_s, args.sequence_len + 1))
    console.print(
        f"{prepared.train.text_bytes / 1e6:.0f} MB of training text, {prepared.train.documents:,} documents, "
        f"{prepared.train.text_bytes / prepared.train.tokens:.2f} bytes per token; "
        f"tokenizer trained in {clock.seconds('tokenizer'):.1f} s, "
        f"rows verified in {clock.seconds('verify'):.2f} s; {args.threads} threads"
    )


def measure_loader(source: ShardSplit, tokenizer: Tokenizer, row_length: int, threads: int) -> tuple[StreamingLoader, float]:
    """(the loader after one pass over the training shards, its wall time in seconds)."""
    loader = StreamingLoader(source.train, tokenizer, tokenizer.encoding(), threads)
    before = time.perf_counter()
    loader.run(row_length)
    return loader, time.perf_counter() - before


def comparison(prepared: Prepared, clock: StageClock, loader: StreamingLoader, loader_s: float, row_length: int) -> Table:
    """One column per side. Rates are tokens read from documents, before cropping, per second of wall time."""
    tokens = prepared.train.tokens + prepared.val.tokens
    tokenize_s, pack_s = clock.seconds("tokenize"), clock.seconds("pack")
    loader_pack_s = loader_s - loader.tokenizing_s
    table = Table(title=f"rows of {row_length} tokens, vocabulary {prepared.train.settings.vocab_size}")
    table.add_column("")
    table.add_column("prepared", justify="right")
    table.add_column("streaming loader", justify="right")
    rows = [
        ("tokenizing, tokens/s", f"{tokens / tokenize_s:,.0f}", f"{loader.used_tokens / loader.tokenizing_s:,.0f}"),
        ("packing, tokens/s", f"{tokens / pack_s:,.0f}", f"{loader.used_tokens / loader_pack_s:,.0f}"),
        ("both, tokens/s", f"{tokens / (tokenize_s + pack_s):,.0f}", f"{loader.used_tokens / loader_s:,.0f}"),
        ("packing over tokenizing", f"{pack_s / tokenize_s:.1%}", f"{loader_pack_s / loader.tokenizing_s:.1%}"),
        ("cropped away", f"{prepared.train.cropped_share:.1%}", f"{1 - loader.rows * row_length / loader.used_tokens:.1%}"),
        ("training rows", f"{prepared.train.rows:,}", f"{loader.rows:,}"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    main()
