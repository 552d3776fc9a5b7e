"""Training on a CPU beside nanochat: tokens per second of both, compiled, in turn in one process.

    OMP_NUM_THREADS=2 python -m benchmarks.cpu_train --nanochat ../nanochat

Depth 4, rows of 512 random tokens, vocabulary 4,096, float32, 8 rows in each forward pass and step. Both compile their model and their
optimizer's steps as they do in a run. A step is all of it: batch, forward, backward, update, and reading the loss.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from baseline.config import Dial, TrainConfig
from baseline.data.durable import whole_file
from baseline.data.rows import TOKEN_TYPE, RowFile, RowReader
from benchmarks.environment import environment
from benchmarks.nanochat_head import Clone, NanochatTrainer, open_clone
from benchmarks.side_by_side import BaselineTrainer, Spread, Trainer, interleave, speed_ratio

DEPTH = 4
DIAL = Dial(vocab_size=4096, sequence_len=512, tokens_per_parameter=12, max_batch_tokens=8 * 512)
ROWS_PER_STEP = 8
DIFFERENT_ROWS = 256
WARM_UP_STEPS = 2
STEPS_PER_BURST = 2


def config_for(compile: bool) -> TrainConfig:
    """What both trainers train."""
    return TrainConfig.from_depth(DEPTH, DIAL, rows_per_forward=ROWS_PER_STEP, compile=compile)


def random_rows(config: TrainConfig, rows: int) -> RowFile:
    """Uniformly random tokens: throughput does not depend on what they say."""
    shape = (rows, config.sequence_len + 1)
    return RowFile(np.random.default_rng(0).integers(0, config.vocab_size, shape).astype(TOKEN_TYPE))


def warmed_up(clone: Clone, config: TrainConfig, reader: RowReader) -> dict[str, Trainer]:
    """Both trainers, compiled. Prints how long that took."""
    device = torch.device("cpu")
    trainers: dict[str, Trainer] = {
        "baseline": BaselineTrainer(config, device, seed=0),
        "nanochat": NanochatTrainer(clone, config, device, seed=0),
    }
    for name, trainer in trainers.items():
        before = time.perf_counter()
        for step in range(WARM_UP_STEPS):
            trainer.train_step(step, reader).item()
        print(f"{name}: {WARM_UP_STEPS} steps to warm up took {time.perf_counter() - before:.0f} s", flush=True)
    return trainers


def table(seconds: dict[str, list[float]], tokens: int) -> str:
    """Tokens per second of each trainer and their ratio, with quartiles."""
    lines = [f"{'trainer':10} {'tokens/s':>10} {'quartiles':>18} {'ms/step':>9}"]
    for name, times in seconds.items():
        speed, step = Spread.of([tokens / t for t in times]), Spread.of(times)
        lines.append(f"{name:10} {speed.median:>10,.0f} {speed.low:>8,.0f} to {speed.high:>6,.0f} {step.median * 1e3:>9,.0f}")
    ratio = speed_ratio(seconds, "baseline", "nanochat")
    lines.append(
        f"baseline / nanochat {ratio.median:.3f}, quartiles {ratio.low:.3f} to {ratio.high:.3f}, {len(seconds['baseline'])} rounds"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed on a CPU beside nanochat's.")
    parser.add_argument("--nanochat", type=Path, required=True, help="a clone of nanochat")
    parser.add_argument("--rounds", type=int, default=20, help="bursts of each trainer (default 20)")
    parser.add_argument("--eager", action="store_true", help="compile nothing; our trainer then takes its hand-written backward passes")
    parser.add_argument(
        "--results", type=Path, default=Path("benchmarks", "results"), help="folder for cpu_train.json (or cpu_train.eager.json)"
    )
    args = parser.parse_args()
    if args.eager:
        torch.compiler.set_stance("force_eager")
    torch.set_float32_matmul_precision("high")  # as both do
    config = config_for(compile=not args.eager)
    clone = open_clone(args.nanochat, config.dtype)
    reader = RowReader(random_rows(config, DIFFERENT_ROWS), 0, 1, torch.device("cpu"))
    seconds = interleave(warmed_up(clone, config, reader), reader, WARM_UP_STEPS, args.rounds, STEPS_PER_BURST)
    ratio = speed_ratio(seconds, "baseline", "nanochat")
    facts = {"nanochat": clone.commit, "compiled": config.compile, "config": config.to_dict(), "environment": environment()}
    with whole_file(args.results / ("cpu_train.eager.json" if args.eager else "cpu_train.json")) as file:
        result = {**facts, "seconds_per_step": seconds, "ratio": asdict(ratio)}
        file.write(json.dumps(result, indent=1).encode() + b"\n")
    print(table(seconds, config.batch_tokens))


if __name__ == "__main__":
    main()
