"""Training without a harness: packed rows in, checkpoints out, a progress line between, exact resume."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from baseline.checkpoint import CheckpointError, latest_checkpoint, read_optimizer_state, read_state, read_weights, save_checkpoint
from baseline.config import EXECUTION_FIELDS, ConfigError, Dial, TrainConfig
from baseline.config_types import FIXED_FIELDS, value_problem
from baseline.contract import Optimizer, Recipe, World
from baseline.data.manifest import ROWS_FILE, DataSettings, Manifest
from baseline.data.rows import RowFile, RowReader
from baseline.device_batch import advice, candidates, largest_that_fits
from baseline.loop import Position, StepResult, TrainingError, build_model, compiled, initialise, micro_batch, train
from baseline.progress import JsonLines, Speedometer, TerminalLine, Tracker, WandbLike, headline
from baseline.recipe import description, load_recipe
from baseline.world import join_world


def run_alone(args: argparse.Namespace) -> None:
    """Train from a folder of packed rows to the horizon, or to `--stop-after`."""
    world = join_world()
    manifest = Manifest.read(args.rows)
    rows = RowFile.open(args.rows / ROWS_FILE, manifest.rows, manifest.row_length)
    recipe = load_recipe(standalone_config(args, manifest.settings, world), args.submission, world.device)
    checkpoint = _checkpoint_to_resume(args)
    seed = _seed(args, checkpoint)
    model = build_model(recipe, world.device)
    initialise(model, seed, world.device)
    forward = compiled(model, recipe.config)
    optimizer = recipe.build_optimizer(model, recipe.config, recipe.ops, world)
    if args.device_batch_size == "auto":
        recipe = _with_rows(recipe, largest_that_fits(recipe, forward, candidates(recipe.config.batch_rows, world.size), world))
    position = _resume(checkpoint, recipe, model, optimizer) if checkpoint else Position()
    built = description(recipe, model)
    speedometer = Speedometer(built["flops_per_token"], world.size, world.device)

    def save() -> None:
        state = optimizer.state_dict()
        if world.rank == 0:
            done = {"step": position.step, "cursor": position.cursor, "seed": seed}
            save_checkpoint(args.out, model=model, optimizer_state=state, config=recipe.config, **done)
        if world.size > 1:
            dist.barrier()
        speedometer.skip()

    with _trackers(args, recipe, built, position, world) as trackers:

        def on_step(result: StepResult) -> None:
            learning_rate = result.plan.learning_rate
            report = speedometer.report(
                step=result.step, steps=recipe.config.num_steps, loss=result.loss, learning_rate=learning_rate, tokens=result.tokens
            )
            for tracker in trackers:
                tracker.log(report)
            if args.save_every and result.step % args.save_every == 0:
                save()

        reader = RowReader(rows, world.rank, world.size, world.device)
        try:
            train(recipe, forward, optimizer, reader, world, position, on_step, args.stop_after)
        except torch.OutOfMemoryError:
            optimizer.zero_grad()
            failed = micro_batch(recipe.config.batch_rows, recipe.config.rows_per_forward, world.size)[1]
            raise TrainingError(advice(recipe, forward, failed, world)) from None
        save()


def standalone_config(args: argparse.Namespace, data: DataSettings, world: World) -> TrainConfig:
    """The dial's config for these rows, with `--set field=value` applied."""
    dial = Dial(
        vocab_size=data.vocab_size,
        sequence_len=data.sequence_len,
        tokens_per_parameter=args.tokens_per_parameter,
        aspect_ratio=args.aspect_ratio,
        head_dim=args.head_dim,
        reference_batch_tokens=args.reference_batch_tokens,
        short_window_multiple=args.short_window_multiple,
    )
    on_card = world.device.type == "cuda"
    execution: dict[str, Any] = {"dtype": "bfloat16" if on_card else "float32", "compile": on_card}
    if isinstance(args.device_batch_size, int):
        execution["rows_per_forward"] = args.device_batch_size
    return TrainConfig.from_depth(args.depth, dial, **{**execution, **dict(_assignment(text) for text in args.set)})


def _with_rows(recipe: Recipe, rows: int) -> Recipe:
    return replace(recipe, config=recipe.config.with_(rows_per_forward=rows))


def _assignment(text: str) -> tuple[str, Any]:
    """`field=value` with a value that the field may hold. Raises ConfigError."""
    name, equals, word = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text!r}; write --set field=value")
    if name in FIXED_FIELDS:
        raise ConfigError(f"--set {name}: the packed rows fix it; prepare other rows instead")
    value = _value(word)
    if problem := value_problem(name, value):
        raise ConfigError(f"--set {problem}")
    return name, value


def _value(word: str) -> bool | int | float | str:
    """true/false, a whole number, a number, else the word itself."""
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    for convert in (int, float):
        try:
            return convert(word)
        except ValueError:
            continue
    return word


def _checkpoint_to_resume(args: argparse.Namespace) -> Path | None:
    """The newest whole checkpoint in `--out`, None if there is none. Without `--resume` one is a CheckpointError: runs must not mix."""
    newest = latest_checkpoint(args.out)
    if newest is not None and not args.resume:
        raise CheckpointError(f"{args.out} holds checkpoints up to {newest.name}; go on from there with --resume, or choose another --out")
    return newest


def _seed(args: argparse.Namespace, checkpoint: Path | None) -> int:
    """The run's seed: a checkpoint's own, else `--seed`, else 0."""
    if checkpoint is None:
        return int(args.seed or 0)
    seed = int(read_state(checkpoint)["seed"])
    if args.seed not in (None, seed):
        raise CheckpointError(f"{checkpoint}: was trained with --seed {seed}, not {args.seed}; resume without --seed")
    return seed


def _resume(checkpoint: Path, recipe: Recipe, model: nn.Module, optimizer: Optimizer) -> Position:
    """Load weights and optimizer state; returns where the run goes on."""
    state = read_state(checkpoint)
    execution = {name: getattr(recipe.config, name) for name in EXECUTION_FIELDS}
    if state["config"].with_(**execution) != recipe.config:
        raise CheckpointError(f"{checkpoint}: was trained with another config; resume with the options it was started with")
    read_weights(model, checkpoint / "weights.safetensors")
    optimizer.load_state_dict(read_optimizer_state(checkpoint, state["optimizer_scalars"]))
    return Position(step=state["step"], cursor=state["cursor"])


@contextmanager
def _trackers(args: argparse.Namespace, recipe: Recipe, built: dict[str, Any], position: Position, world: World) -> Iterator[list[Tracker]]:
    """Rank 0's trackers; each is closed on the way out, however the run ends."""
    with ExitStack() as stack:
        trackers: list[Tracker] = []

        def add(tracker: Tracker) -> None:
            stack.callback(tracker.close)
            trackers.append(tracker)

        if world.rank == 0:
            args.out.mkdir(parents=True, exist_ok=True)
            if args.tracker:
                add(WandbLike(args.tracker, "speedrun", {**recipe.config.to_dict(), **built}))
            print(headline(recipe.config, built, world), file=sys.stderr)
            add(TerminalLine())
            add(JsonLines(args.out / "steps.jsonl", position.step))
        yield trackers
