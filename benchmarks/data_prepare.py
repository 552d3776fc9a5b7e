r"""Preparing rows ahead of the clock beside nanochat's own loader, which tokenizes and packs while training: tokens per second per core.

    python benchmarks/data_prepare.py ../shared/text/wikipedia --train-shards 3 --nanochat ../nanochat \
        --out benchmarks/results/data_prepare.wikipedia.json

Both sides use the tokenizer that the preparation trains and see the same training shards in order, each in a fresh process, in turn.
nanochat's code is imported from its checkout and run as it is: rank 0 of 1 on a CPU, its default 4 tokenizer threads, 128 documents a
batch, 1,000 in the buffer. First both are confined to one core, then both may use all. Tokens are those read from documents, BOS
included, before cropping. On nanochat's side all that were tokenized count, although the last 1,000 documents are never placed. On this
side the time includes reading, digests, files that are durable on disk, and the validation split; not training the tokenizer.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from baseline.data.manifest import TOKENIZER_FILE, DataSettings
from baseline.data.prepare import prepare
from baseline.data.progress import Stage
from baseline.data.shards import split_folder
from baseline.data.tokenizer import BOS, Tokenizer

Side = Literal["prepared", "nanochat"]
NANOCHAT_BATCH_ROWS = 32
VALIDATION_STAND_IN = "zzzzz.parquet"
"""nanochat takes the last file for validation; its loader never opens it here."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one process measures."""

    folder: Path
    train_shards: int
    settings: DataSettings
    cores: int
    tokenizer: Path
    nanochat: Path


@dataclass(frozen=True, slots=True)
class Measured:
    """One pass over the shards."""

    side: Side
    cores: int
    tokens: int
    """Read from documents, before cropping."""
    documents: int
    rows: int
    wall_s: float
    cpu_s: float
    tokenizing_s: float
    """Wall time."""
    packing_s: float
    """Wall time of the rest."""
    cropped_share: float
    peak_memory_bytes: int

    @property
    def tokens_per_s_per_core(self) -> float:
        """Per second of wall time and core that was allowed."""
        return self.tokens / self.wall_s / self.cores


class StageClock:
    """When each stage was first and last heard of: (wall time, CPU time of this process and its ended children), in seconds."""

    def __init__(self) -> None:
        self.first: dict[Stage, tuple[float, float]] = {}
        self.last: dict[Stage, tuple[float, float]] = {}

    def __call__(self, stage: Stage, done: int, total: int) -> None:
        now = (time.perf_counter(), cpu_seconds())
        self.first.setdefault(stage, now)
        self.last[stage] = now


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def confine(cores: int) -> None:
    """Let this process run on the first `cores` of the cores it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def peak_memory() -> int:
    """Bytes, of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_prepared(job: Job) -> Measured:
    """Prepare the shards into a folder of their own, and keep the tokenizer for the other side."""
    confine(job.cores)
    clock = StageClock()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        prepared = prepare(split_folder(job.folder, job.train_shards), out, job.settings, workers=job.cores, progress=clock)
        job.tokenizer.write_bytes((out / TOKENIZER_FILE).read_bytes())
    (begun, cpu_begun), (ended, cpu_ended) = clock.first["tokenize"], clock.first["verify"]
    tokenized = clock.first["pack"][0]
    return Measured(
        side="prepared",
        cores=job.cores,
        tokens=prepared.train.tokens + prepared.val.tokens,
        documents=prepared.train.documents + prepared.val.documents,
        rows=prepared.train.rows + prepared.val.rows,
        wall_s=ended - begun,
        cpu_s=cpu_ended - cpu_begun,
        tokenizing_s=tokenized - begun,
        packing_s=ended - tokenized,
        cropped_share=prepared.train.cropped_share,
        peak_memory_bytes=peak_memory(),
    )


def measure_nanochat(job: Job) -> Measured:
    """Run nanochat's loader over the training shards once."""
    confine(job.cores)
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch) / "base_data_climbmix"
        shards.mkdir()
        train = split_folder(job.folder, job.train_shards).train
        for name, path in [*((shard.name, shard.path) for shard in train), (VALIDATION_STAND_IN, train[-1].path)]:
            (shards / name).symlink_to(path.resolve())
        os.environ["NANOCHAT_BASE_DIR"] = scratch
        sys.path.insert(0, str(job.nanochat.resolve()))
        import torch
        from nanochat.dataloader import (  # type: ignore[import-not-found,unused-ignore]
            tokenizing_distributed_data_loader_with_state_bos_bestfit as loader,
        )
        from nanochat.tokenizer import RustBPETokenizer  # type: ignore[import-not-found,unused-ignore]

        torch.set_num_threads(job.cores)
        tokenizer = Watched(RustBPETokenizer(Tokenizer.load(job.tokenizer).encoding(), BOS))
        length = job.settings.sequence_len
        begun, cpu_begun, rows = time.perf_counter(), cpu_seconds(), 0
        batches = loader(tokenizer, NANOCHAT_BATCH_ROWS, length, "train", device="cpu")
        for _, _, state in batches:
            if state["epoch"] > 1:
                break
            rows += NANOCHAT_BATCH_ROWS
        wall_s, cpu_s = time.perf_counter() - begun, cpu_seconds() - cpu_begun
        waiting = sum(map(len, batches.gi_frame.f_locals["doc_buffer"]))
    return Measured(
        side="nanochat",
        cores=job.cores,
        tokens=tokenizer.tokens,
        documents=tokenizer.documents,
        rows=rows,
        wall_s=wall_s,
        cpu_s=cpu_s,
        tokenizing_s=tokenizer.seconds,
        packing_s=wall_s - tokenizer.seconds,
        cropped_share=1 - (rows + NANOCHAT_BATCH_ROWS) * (length + 1) / (tokenizer.tokens - waiting),
        peak_memory_bytes=peak_memory(),
    )


class Watched:
    """nanochat's tokenizer, with what passes through it counted and timed."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.tokens = self.documents = 0
        self.seconds = 0.0

    def get_bos_token_id(self) -> int:
        return int(self._tokenizer.get_bos_token_id())

    def encode(self, texts: list[str], **options: Any) -> list[list[int]]:
        begun = time.perf_counter()
        documents: list[list[int]] = self._tokenizer.encode(texts, **options)
        self.seconds += time.perf_counter() - begun
        self.tokens += sum(map(len, documents))
        self.documents += len(documents)
        return documents


def in_fresh_process(measure: Callable[[Job], Measured], job: Job) -> Measured:
    """What `measure` finds in a process that has done nothing before. Raises EOFError when it fails; its traceback is on stderr."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure_into, args=(theirs, measure, job))
    process.start()
    theirs.close()
    try:
        measured = ours.recv()
    finally:
        process.join()
    assert isinstance(measured, Measured)
    return measured


def _measure_into(link: Connection[Any, Any], measure: Callable[[Job], Measured], job: Job) -> None:
    link.send(measure(job))


def table_of(runs: list[Measured]) -> Table:
    """Medians over the rounds, one column for each side at each number of cores."""
    table = Table("", title="tokens are counted before cropping")
    groups: dict[tuple[str, int], list[Measured]] = {
        (side, cores): [] for cores in sorted({run.cores for run in runs}) for side in ("prepared", "nanochat")
    }
    for run in runs:
        groups[run.side, run.cores].append(run)
    for side, cores in groups:
        table.add_column(f"{side}, {cores} core{'s' * (cores > 1)}", justify="right")
    lines: dict[str, Callable[[Measured], float]] = {
        "tokens/s per core": lambda run: run.tokens_per_s_per_core,
        "tokens per CPU second": lambda run: run.tokens / run.cpu_s,
        "tokenizing, tokens/s": lambda run: run.tokens / run.tokenizing_s,
        "packing, tokens/s": lambda run: run.tokens / run.packing_s,
        "packing over tokenizing, %": lambda run: 100 * run.packing_s / run.tokenizing_s,
        "cropped away, %": lambda run: 100 * run.cropped_share,
        "peak memory, MB": lambda run: run.peak_memory_bytes / 1e6,
    }
    for name, value in lines.items():
        table.add_row(name, *(f"{median(map(value, group)):,.1f}".removesuffix(".0") for group in groups.values()))
    return table


def ratios(runs: list[Measured]) -> dict[str, list[float]]:
    """How many times nanochat's rate the preparation reaches, round by round, by cores and by what a core's time is."""
    found: dict[str, list[float]] = {}
    for cores in sorted({run.cores for run in runs}):
        ours = [run for run in runs if (run.side, run.cores) == ("prepared", cores)]
        theirs = [run for run in runs if (run.side, run.cores) == ("nanochat", cores)]
        pairs = list(zip(ours, theirs, strict=True))
        found[f"{cores} cores, wall"] = [a.tokens_per_s_per_core / b.tokens_per_s_per_core for a, b in pairs]
        found[f"{cores} cores, CPU"] = [a.tokens / a.cpu_s / (b.tokens / b.cpu_s) for a, b in pairs]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure data preparation beside nanochat's loader.")
    parser.add_argument("folder", type=Path, help="folder of parquet shards")
    parser.add_argument("--nanochat", type=Path, required=True, help="checkout of nanochat")
    parser.add_argument("--train-shards", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocab-size", type=int, default=32_768)
    parser.add_argument("--sequence-len", type=int, default=2_048)
    parser.add_argument("--out", type=Path, help="JSON file for every run")
    args = parser.parse_args()
    settings = DataSettings(args.sequence_len, args.vocab_size)
    all_cores = len(os.sched_getaffinity(0))
    runs: list[Measured] = []
    with tempfile.TemporaryDirectory() as scratch:
        for cores in sorted({1, all_cores}):
            job = Job(args.folder, args.train_shards, settings, cores, Path(scratch) / "tokenizer.json", args.nanochat)
            for _ in range(args.rounds):
                runs += [in_fresh_process(measure_prepared, job), in_fresh_process(measure_nanochat, job)]
    console = Console(width=120)
    console.print(table_of(runs))
    for name, values in ratios(runs).items():
        console.print(f"{name}: {median(values):.2f} times nanochat's rate ({min(values):.2f} to {max(values):.2f})")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        packages = {name: version(name) for name in ("numpy", "pyarrow", "tiktoken", "torch")}
        content = {
            "measured": "data preparation beside nanochat's loader",
            "text": args.folder.name,
            "train_shards": args.train_shards,
            "settings": asdict(settings),
            "machine": {"cores": all_cores, "processor": platform.processor() or platform.machine(), "python": platform.python_version()},
            "packages": packages,
            "ratios": ratios(runs),
            "runs": [asdict(run) for run in runs],
        }
        args.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
