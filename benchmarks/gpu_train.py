"""Training on one card beside nanochat: tokens per second, MFU and peak memory, by depth, precision and attention.

    PYTHONPATH=. python -m benchmarks.gpu_train --nanochat ../nanochat
    PYTHONPATH=. python -m benchmarks.gpu_train --nanochat ../nanochat --dry-run          # the same code at toy size on a CPU

A row of the table is a contest: its contestants live in one process, warm up one after the other, and then step in turn. Each contest has
a process of its own, so that none can spoil the next by running out of memory or time. Contests for which too little of the budget is left
are skipped, and say so. Rows are random tokens. "own" is the attention that nanochat chooses itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from baseline.attention import choose_attention
from baseline.cards import peak_flops_of
from baseline.config import Dial, TrainConfig
from baseline.data.durable import whole_file
from baseline.data.rows import TOKEN_TYPE, RowFile, RowReader
from baseline.world import local_device
from benchmarks.environment import environment
from benchmarks.nanochat_head import NanochatTrainer, open_clone, use_attention
from benchmarks.side_by_side import BaselineTrainer, Spread, Trainer, interleave

RESULT = "gpu_train.json"
DIFFERENT_ROWS = 256
WARM_UP_STEPS = 2
STEPS_PER_BURST = 2
Attention = Literal["auto", "flash", "flex", "sdpa", "own"]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A trainer with an attention backend: one of ours by name, or nanochat's own."""

    trainer: Literal["baseline", "nanochat"]
    attention: Attention

    @property
    def name(self) -> str:
        return f"{self.trainer} {self.attention}"


@dataclass(frozen=True, slots=True)
class Contest:
    """What is trained, and by whom."""

    name: str
    depth: int
    fp8: bool
    rows_per_forward: int
    max_batch_tokens: int
    rounds: int
    needs_s: float
    """Seconds for which it is worth starting: warm-up with compilation, mostly. An estimate."""
    contestants: tuple[Contestant, ...]


OURS, EQUAL, OWN = Contestant("baseline", "auto"), Contestant("nanochat", "auto"), Contestant("nanochat", "own")
CONTESTS = (
    Contest("d12", 12, False, 32, 2**19, 6, 120, (OURS, EQUAL, OWN)),
    Contest("d12-fp8", 12, True, 32, 2**19, 6, 90, (OURS, EQUAL)),
    Contest("d24", 24, False, 8, 2**17, 4, 120, (OURS, EQUAL)),
    Contest("d24-fp8", 24, True, 8, 2**17, 4, 120, (OURS, EQUAL)),
    Contest("d20", 20, False, 8, 2**17, 4, 100, (OURS, EQUAL)),
    Contest("d12-attention", 12, False, 32, 2**19, 3, 120, tuple(Contestant("baseline", name) for name in ("flash", "flex", "sdpa"))),
)
"""In the order of their worth, should time run out. Batches beyond 2^17 tokens only repeat the forward pass; two models of depth 20 or
24 with their optimizers must fit side by side, hence their small forward passes."""


def config_of(contest: Contest, attention: Attention, dry: bool) -> TrainConfig:
    """The contest's config; at toy size for a dry run."""
    backend = "auto" if attention == "own" else attention
    common: dict[str, Any] = {"dtype": "bfloat16", "fp8": contest.fp8, "attention_backend": backend, "compile": not dry}
    if dry:
        return TrainConfig.from_depth(2, Dial(256, 128, 12.0, max_batch_tokens=512), rows_per_forward=2, **common)
    dial = Dial(32_768, 2_048, 12.0, max_batch_tokens=contest.max_batch_tokens)
    return TrainConfig.from_depth(contest.depth, dial, rows_per_forward=contest.rows_per_forward, **common)


# ---------------------------------------------------------------------- one contest, in a process of its own


def run_contest(contest: Contest, nanochat: Path, dry: bool, results: Connection) -> None:
    """Send one dictionary for each contestant: its figures, or {"name", "skipped": reason}."""
    device = local_device()
    torch.set_float32_matmul_precision("high")
    if dry:
        torch.compiler.set_stance("force_eager")
    config = config_of(contest, "auto", dry)
    shape = (DIFFERENT_ROWS, config.sequence_len + 1)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, shape).astype(TOKEN_TYPE)
    reader = RowReader(RowFile(tokens), 0, 1, device)
    ready: dict[str, Trainer] = {}
    facts: dict[str, dict[str, Any]] = {}
    for contestant in contest.contestants:
        try:
            ready[contestant.name], facts[contestant.name] = warmed_up(contest, contestant, nanochat, dry, reader, device)
        except Exception as error:  # the others shall still be measured
            results.send({"name": contestant.name, "skipped": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    seconds = interleave(ready, reader, WARM_UP_STEPS, 2 if dry else contest.rounds, STEPS_PER_BURST) if ready else {}
    peak = peak_flops_of(device)
    for name, times in seconds.items():
        speed = Spread.of([config.batch_tokens / t for t in times])
        mfu = speed.median * facts[name]["flops_per_token"] / peak if peak else None
        results.send({"name": name, **facts[name], "seconds_per_step": times, "tokens_per_s": asdict(speed), "mfu": mfu})


def warmed_up(
    contest: Contest, contestant: Contestant, nanochat: Path, dry: bool, reader: RowReader, device: torch.device
) -> tuple[Trainer, dict[str, Any]]:
    """The trainer after its warm-up, and what is known by then. Peak memory is that of a step, without what other contestants hold."""
    config = config_of(contest, contestant.attention, dry)
    held = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    before = time.perf_counter()
    trainer, attention = build(contestant, config, nanochat, device)
    for step in range(WARM_UP_STEPS):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.train_step(step, reader).item()
    return trainer, {
        "attention": attention,
        "tokens_per_step": config.batch_tokens,
        "rows_per_forward": config.rows_per_forward,
        "flops_per_token": BaselineTrainer.unwritten(config).flops_per_token(),
        "peak_memory_gib": (torch.cuda.max_memory_allocated() - held) / 2**30 if device.type == "cuda" else None,
        "warm_up_s": time.perf_counter() - before,
    }


def build(contestant: Contestant, config: TrainConfig, nanochat: Path, device: torch.device) -> tuple[Trainer, str]:
    """A trainer and the name of the attention that it uses."""
    attention = choose_attention(config, device)
    if contestant.trainer == "baseline":
        return BaselineTrainer(config, device, seed=0), attention.name
    clone = open_clone(nanochat, config.dtype)
    if contestant.attention == "own":
        return NanochatTrainer(clone, config, device, seed=0), "flash-3 from the hub" if clone.has_flash_kernel else "sdpa with a mask"
    use_attention(clone, attention)
    return NanochatTrainer(clone, config, device, seed=0), attention.name


# ---------------------------------------------------------------------- all contests


def measure(contests: Sequence[Contest], nanochat: Path, dry: bool, budget_s: float) -> dict[str, list[dict[str, Any]]]:
    """Results of each contest's contestants, within the budget in seconds."""
    began = time.monotonic()
    results: dict[str, list[dict[str, Any]]] = {}
    for contest in contests:
        left = budget_s - (time.monotonic() - began)
        results[contest.name] = in_own_process(contest, nanochat, dry, left)
        print(f"{contest.name}: done after {time.monotonic() - began:.0f} s", flush=True)
    return results


def in_own_process(contest: Contest, nanochat: Path, dry: bool, left_s: float) -> list[dict[str, Any]]:
    """The contest's results; those that did not arrive say why."""
    if left_s < contest.needs_s:
        return missing(contest, [], f"{left_s:.0f} s were left, and it needs about {contest.needs_s:.0f} s")
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_contest, args=(contest, nanochat, dry, sender))
    process.start()
    sender.close()
    deadline = time.monotonic() + left_s
    arrived: list[dict[str, Any]] = []
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            arrived.append(receiver.recv())
        reason = f"stopped after {left_s:.0f} s, when the budget was spent"
    except EOFError:
        process.join()
        reason = f"its process ended with status {process.exitcode}"
    process.kill()
    process.join()
    return [*arrived, *missing(contest, arrived, reason)]


def missing(contest: Contest, arrived: Sequence[dict[str, Any]], reason: str) -> list[dict[str, Any]]:
    """An entry with the reason for each contestant without a result."""
    names = {result["name"] for result in arrived}
    return [{"name": c.name, "skipped": reason} for c in contest.contestants if c.name not in names]


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """One line for each contestant; the ratio is to the first of its contest that has a result."""
    lines = [f"{'contest':14} {'trainer':16} {'attention':20} {'tokens/s':>10} {'MFU':>6} {'peak GiB':>9} {'speed':>7}"]
    for contest, entries in results.items():
        measured = [entry for entry in entries if "skipped" not in entry]
        for entry in entries:
            if "skipped" in entry:
                lines.append(f"{contest:14} {entry['name']:16} skipped: {entry['skipped']}")
                continue
            mfu = f"{entry['mfu']:.1%}" if entry["mfu"] is not None else "?"
            memory = f"{entry['peak_memory_gib']:.1f}" if entry["peak_memory_gib"] is not None else "?"
            pairs = zip(measured[0]["seconds_per_step"], entry["seconds_per_step"], strict=True)
            ratio = Spread.of([first / this for first, this in pairs]).median
            speed = entry["tokens_per_s"]["median"]
            lines.append(f"{contest:14} {entry['name']:16} {entry['attention']:20} {speed:>10,.0f} {mfu:>6} {memory:>9} {ratio:>7.3f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed on one card beside nanochat's.")
    parser.add_argument("--nanochat", type=Path, required=True, help="a clone of nanochat")
    names = [contest.name for contest in CONTESTS]
    parser.add_argument("--contests", nargs="+", choices=names, default=names, help="which (default: all, as long as time is left)")
    parser.add_argument("--budget-s", type=float, default=470, help="seconds for everything (default 470)")
    parser.add_argument("--dry-run", action="store_true", help="the same code at toy size, eager")
    parser.add_argument("--results", type=Path, default=Path("benchmarks", "results"), help=f"folder for {RESULT}")
    args = parser.parse_args()
    chosen = [contest for contest in CONTESTS if contest.name in args.contests]
    results = measure(chosen, args.nanochat, args.dry_run, args.budget_s)
    commit = open_clone(args.nanochat, "bfloat16").commit
    with whole_file(args.results / RESULT) as file:
        file.write(json.dumps({"nanochat": commit, "environment": environment(), "contests": results}, indent=1).encode() + b"\n")
    print(table(results))


if __name__ == "__main__":
    main()
