"""Our trainer beside nanochat's at equal settings on equal rows, each from its own initial weights: do they differ more than seeds do?

    python -m benchmarks.loss_curves --nanochat ../nanochat --rows runs/wikipedia-512/train

Depth 4, batches of 4 rows, float32, eager. The committed result was read on English Wikipedia, rows of 512 tokens, vocabulary 4,096:

    prepare(split_folder(Path("../shared/text/wikipedia"), 1), Path("runs/wikipedia-512"), DataSettings(512, 4096))

with the functions of `baseline.data`. Every seed reads the same rows in the same order, so seeds differ in their initial weights only.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from baseline.config import Dial, TrainConfig
from baseline.data.durable import whole_file
from baseline.data.manifest import ROWS_FILE, Manifest
from baseline.data.rows import RowFile, RowReader
from benchmarks.environment import environment
from benchmarks.nanochat_head import Clone, NanochatTrainer, open_clone
from benchmarks.side_by_side import BaselineTrainer, Trainer

DEPTH = 4
ROWS_PER_STEP = 4
REFERENCE_BATCH_TOKENS = 8192
"""As on the nano track: at 2^19 the learning rates of so small a batch would leave the model near its initial weights."""
TAIL_STEPS = 50
SMOOTHING_STEPS = 25
CURVES = "loss_curves.json"
PLOT = "loss_curves.svg"
TRAINERS = ("baseline", "nanochat")

Curves = dict[str, list[list[float]]]
"""Losses in nats of each trainer: one list of steps for each seed."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the curves say. Losses in nats."""

    tail_mean: dict[str, float]
    """Mean loss of the last TAIL_STEPS steps over all seeds, by trainer."""
    tail_sd: dict[str, float]
    """Standard deviation of that mean from seed to seed."""
    largest_gap: float
    """Largest difference between the two trainers' smoothed mean curves."""
    largest_gap_step: int
    noise_there: float
    """Standard error of such a difference at that step, from the spread of the seeds."""


def compare(curves: Curves) -> Comparison:
    """Needs at least two seeds of each trainer."""
    losses = {name: np.array(runs) for name, runs in curves.items()}
    tails = {name: runs[:, -TAIL_STEPS:].mean(axis=1) for name, runs in losses.items()}
    ours, theirs = (smoothed(losses[name]) for name in TRAINERS)
    gap = np.abs(ours.mean(axis=0) - theirs.mean(axis=0))
    variance = ours.var(axis=0, ddof=1) / len(ours) + theirs.var(axis=0, ddof=1) / len(theirs)
    widest = int(gap.argmax())
    return Comparison(
        tail_mean={name: float(tail.mean()) for name, tail in tails.items()},
        tail_sd={name: float(tail.std(ddof=1)) for name, tail in tails.items()},
        largest_gap=float(gap[widest]),
        largest_gap_step=widest + SMOOTHING_STEPS,
        noise_there=float(np.sqrt(variance[widest])),
    )


def smoothed(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """(seeds, N) -> (seeds, N - SMOOTHING_STEPS + 1): the mean of each step and those before it."""
    means: NDArray[np.float64] = np.lib.stride_tricks.sliding_window_view(losses, SMOOTHING_STEPS, axis=1).mean(axis=-1)
    return means


def table(comparison: Comparison, seeds: int) -> str:
    """The comparison as text."""
    lines = [f"{'trainer':10} {f'mean loss of the last {TAIL_STEPS} steps':>34} {f'sd over {seeds} seeds':>20}"]
    lines += [f"{name:10} {comparison.tail_mean[name]:>34.4f} {comparison.tail_sd[name]:>20.4f}" for name in TRAINERS]
    lines.append(
        f"largest gap of the mean curves, smoothed over {SMOOTHING_STEPS} steps: {comparison.largest_gap:.4f} "
        f"at step {comparison.largest_gap_step}, where its standard error by the seeds is {comparison.noise_there:.4f}"
    )
    return "\n".join(lines)


# ---------------------------------------------------------------------- training


def config_for(manifest: Manifest, steps: int) -> TrainConfig:
    """Depth 4 for these rows, `steps` optimizer steps of ROWS_PER_STEP rows."""
    dial = Dial(
        vocab_size=manifest.settings.vocab_size,
        sequence_len=manifest.settings.sequence_len,
        tokens_per_parameter=12,
        reference_batch_tokens=REFERENCE_BATCH_TOKENS,
        max_batch_tokens=ROWS_PER_STEP * manifest.settings.sequence_len,
    )
    return TrainConfig.from_depth(DEPTH, dial, num_steps=steps, rows_per_forward=ROWS_PER_STEP)


def train(clone: Clone, config: TrainConfig, reader: RowReader, seeds: int) -> Curves:
    """All seeds of both trainers, in turn."""
    device = torch.device("cpu")
    curves: Curves = {name: [] for name in TRAINERS}
    for seed in range(seeds):
        trainers: dict[str, Trainer] = {
            "baseline": BaselineTrainer(config, device, seed),
            "nanochat": NanochatTrainer(clone, config, device, seed),
        }
        for name, trainer in trainers.items():
            before = time.perf_counter()
            curves[name].append([trainer.train_step(step, reader).item() for step in range(config.num_steps)])
            print(f"{name} seed {seed}: loss {curves[name][-1][-1]:.4f} after {time.perf_counter() - before:.0f} s", flush=True)
    return curves


# ---------------------------------------------------------------------- the plot


def plot(curves: Curves) -> str:
    """SVG of the smoothed curves: each trainer's mean, and the range of its seeds as a band."""
    import altair as alt  # not needed where only numbers are wanted
    import vl_convert

    points = []
    for name in TRAINERS:
        runs = smoothed(np.array(curves[name]))
        columns = zip(runs.mean(axis=0), runs.min(axis=0), runs.max(axis=0), strict=True)
        points += [
            {"trainer": name, "step": step, "loss": float(mean), "low": float(low), "high": float(high)}
            for step, (mean, low, high) in enumerate(columns, start=SMOOTHING_STEPS)
        ]
    base = alt.Chart(alt.InlineData(points)).encode(
        x=alt.X("step:Q", title="optimizer step"),
        color=alt.Color("trainer:N", title=None, scale=alt.Scale(domain=list(TRAINERS), range=["#0b6e99", "#d9480f"])),
    )
    loss = alt.Scale(zero=False)
    band = base.mark_area(opacity=0.25).encode(y=alt.Y("low:Q", title="training loss, nats per token", scale=loss), y2="high:Q")
    line = base.mark_line(strokeWidth=1.5).encode(y=alt.Y("loss:Q", scale=loss), strokeDash=alt.StrokeDash("trainer:N", legend=None))
    chart = (band + line).properties(width=640, height=320, background="white")
    return str(vl_convert.vegalite_to_svg(chart.to_json()))


# ---------------------------------------------------------------------- command


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare loss curves with nanochat's.")
    parser.add_argument("--nanochat", type=Path, required=True, help="a clone of nanochat")
    parser.add_argument("--rows", type=Path, required=True, help="folder with rows.bin and manifest.json")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each trainer, at least 2 (default 3)")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of a run (default 300)")
    parser.add_argument("--results", type=Path, default=Path("benchmarks", "results"), help=f"folder for {CURVES}")
    parser.add_argument("--images", type=Path, default=Path("docs", "img"), help=f"folder for {PLOT}")
    args = parser.parse_args()
    manifest = Manifest.read(args.rows)
    config = config_for(manifest, args.steps)
    clone = open_clone(args.nanochat, config.dtype)
    torch.compiler.set_stance("force_eager")
    file = RowFile.open(args.rows / ROWS_FILE, manifest.rows, manifest.row_length)
    curves = train(clone, config, RowReader(file, 0, 1, torch.device("cpu")), args.seeds)
    facts = {"nanochat": clone.commit, "rows_sha256": manifest.rows_sha256, "config": config.to_dict(), "environment": environment()}
    with whole_file(args.results / CURVES) as result:
        result.write(json.dumps({**facts, "losses": curves}, indent=1).encode() + b"\n")
    with whole_file(args.images / PLOT) as image:
        image.write(plot(curves).encode())
    print(table(compare(curves), args.seeds))


if __name__ == "__main__":
    main()
