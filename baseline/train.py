"""Train one model, under torchrun: alone, or driven by a parent that holds the clock.

    torchrun --nproc_per_node=8 -m baseline.train --rows data/gpt2/train --depth 24 --out runs/d24

Alone, it reads packed rows, prints a line per step and leaves checkpoints (`baseline.standalone`). With --control it
takes seed, rows and the starting signal from the parent (`baseline.control`) and leaves its initial and final weights.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from baseline.checkpoint import CheckpointError, write_weights
from baseline.config import REFERENCE_BATCH_TOKENS, ConfigError, TrainConfig
from baseline.contract import Recipe, World
from baseline.control import ControlSocket, report_failure
from baseline.data.errors import DataError
from baseline.data.rows import TOKEN_TYPE, RowFile, RowReader
from baseline.loop import Position, StepResult, TrainingError, build_model, compiled, initialise, train, warm_up
from baseline.recipe import SlotError, description, load_recipe
from baseline.roles import RoleError
from baseline.shards import StateError
from baseline.world import die_with_parent, join_world, leave_world, local_device

INITIAL_WEIGHTS = "initial.safetensors"
FINAL_WEIGHTS = "final.safetensors"
WITNESS_RANK = -1
REFUSED = 3
"""Exit status for input that cannot be trained; the reason is one line on stderr."""

Expected = (
    ConfigError,
    SlotError,
    RoleError,
    StateError,
    TrainingError,
    CheckpointError,
    DataError,
    torch.OutOfMemoryError,
    MemoryError,
    OSError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of every rank. Returns the exit status."""
    args = parse(arguments)
    if args.control or "RANK" in os.environ:
        die_with_parent()  # started by hand, it outlives the shell
    try:
        run(args)
        leave_world()
    except Exception as error:
        reason = one_line(error)
        if args.control:
            report_failure(args.control, WITNESS_RANK if args.witness else int(os.environ.get("RANK", "0")), reason)
        if not isinstance(error, Expected):
            raise
        print(f"baseline.train: {reason}", file=sys.stderr)
        return REFUSED
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


def run(args: argparse.Namespace) -> None:
    """One of the three ways to run."""
    if args.witness:
        witness(args)
    elif args.control:
        run_controlled(args)
    else:
        from baseline.standalone import run_alone

        run_alone(args)


def run_controlled(args: argparse.Namespace) -> None:
    """Build, warm up on dummy rows, then train from the seed and the rows that the parent sends."""
    control = ControlSocket(args.control, int(os.environ["RANK"]))
    world = join_world()
    recipe = track_recipe(args, world.device)
    model = build_model(recipe, world.device)
    forward = compiled(model, recipe.config)
    warm_up(recipe, model, forward, reader_of(control.expect_descriptor("warm"), recipe, world), world)
    control.say("ready", **description(recipe, model))
    seed = int(control.expect("seed")["seed"])
    initialise(model, seed, world.device)
    if world.rank == 0:
        write_weights(model, args.out / INITIAL_WEIGHTS)
    optimizer = recipe.build_optimizer(model, recipe.config, recipe.ops, world)
    control.say("initialised")
    reader = reader_of(control.expect_descriptor("go"), recipe, world)

    def tell(result: StepResult) -> None:
        control.say("step", step=result.step, loss=result.loss, tokens=result.tokens)

    train(recipe, forward, optimizer, reader, world, Position(), tell)
    if world.rank == 0:
        write_weights(model, args.out / FINAL_WEIGHTS)
    control.say("done")


def witness(args: argparse.Namespace) -> None:
    """Write the initial weights for the parent's seed, in a fresh process that never warmed up."""
    control = ControlSocket(args.control, WITNESS_RANK)
    device = local_device()
    recipe = track_recipe(args, device)
    model = build_model(recipe, device)
    control.say("ready")
    initialise(model, int(control.expect("seed")["seed"]), device)
    write_weights(model, args.out / INITIAL_WEIGHTS)
    control.say("initialised")


def reader_of(descriptor: int, recipe: Recipe, world: World) -> RowReader:
    """Rows of T+1 tokens behind a descriptor from the parent; the file's size says how many."""
    row_length = recipe.config.sequence_len + 1
    rows = os.fstat(descriptor).st_size // (row_length * TOKEN_TYPE.itemsize)
    return RowReader(RowFile.open(descriptor, rows, row_length), world.rank, world.size, world.device)


def track_recipe(args: argparse.Namespace, device: torch.device) -> Recipe:
    """The submission composed with the baseline at the track's config, which the parent wrote to a file."""
    config = TrainConfig.from_dict(json.loads(args.config.read_text()))
    return load_recipe(config, args.submission, device)


def one_line(error: BaseException) -> str:
    """An exception as one line; unexpected ones keep their type."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"{str(error).split('. ')[0]}; lower rows_per_forward, which changes no result"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, Expected) else f"{type(error).__name__}: {text}"


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def rows_or_auto(text: str) -> int | str:
    """A whole number above 0, or the word auto, for argparse."""
    return text if text == "auto" else positive(text)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="baseline.train", description="Train one model; see the module's text.")
    parser.add_argument("--submission", type=Path, help="folder with slot files; without it, the baseline itself")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and checkpoints")
    driven = parser.add_argument_group("driven by the harness")
    driven.add_argument("--control", help="the parent's Unix socket")
    driven.add_argument("--config", type=Path, help="the track's TrainConfig as JSON")
    driven.add_argument("--witness", action="store_true", help="only write the initial weights")
    alone = parser.add_argument_group("alone")
    alone.add_argument("--rows", type=Path, help="folder with rows.bin and manifest.json")
    alone.add_argument("--depth", type=int, default=24, help="the one dial (default 24)")
    alone.add_argument("--tokens-per-parameter", type=float, default=8.0, help="horizon per scaling parameter (default 8)")
    alone.add_argument("--aspect-ratio", type=int, default=64, help="width per layer (default 64)")
    alone.add_argument("--head-dim", type=int, default=128)
    alone.add_argument("--reference-batch-tokens", type=int, default=REFERENCE_BATCH_TOKENS, help="best batch at depth 12")
    alone.add_argument("--short-window-multiple", type=int, default=128)
    alone.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="replace a field of TrainConfig; repeatable")
    alone.add_argument(
        "--device-batch-size",
        type=rows_or_auto,
        metavar="ROWS",
        help="rows in one forward pass of each process, or auto for the most that fit; changes gradient accumulation, never the result",
    )
    alone.add_argument("--seed", type=int, help="of the initial weights (default 0; a resumed run keeps its own)")
    alone.add_argument("--stop-after", type=positive, help="stop after this many steps; the schedule keeps the full horizon")
    alone.add_argument("--save-every", type=positive, help="steps between checkpoints; always one at the end")
    alone.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    alone.add_argument("--tracker", choices=("wandb", "trackio"), help="also log there")
    args = parser.parse_args(arguments)
    if args.control and not args.config:
        parser.error("--control needs --config")
    if not args.control and not args.rows:
        parser.error("--rows is missing: the folder of packed rows to train on")
    return args


if __name__ == "__main__":
    sys.exit(main())
