"""Training without a harness: packed rows in, checkpoints out, a progress line between, exact resume."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from baseline.checkpoint import CheckpointError, latest_checkpoint, read_optimizer_state, read_state, read_weights, save_checkpoint
from baseline.config import EXECUTION_FIELDS, ConfigError, Dial, TrainConfig
from baseline.config_types import FIXED_FIELDS, value_problem
from baseline.contract import Optimizer, Recipe, World
from baseline.data.manifest import ROWS_FILE, DataSettings, Manifest
from baseline.data.rows import RowFile, RowReader
from baseline.loop import Position, StepResult, build_model, compiled, initialise, train
from baseline.progress import JsonLines, Speedometer, TerminalLine, Tracker, WandbLike
from baseline.recipe import load_recipe
from baseline.world import join_world


def run_alone(args: argparse.Namespace) -> None:
    """Train from a folder of packed rows to the horizon, or to `--stop-after`."""
    world = join_world()
    manifest = Manifest.read(args.rows)
    rows = RowFile.open(args.rows / ROWS_FILE, manifest.rows, manifest.row_length)
    recipe = load_recipe(standalone_config(args, manifest.settings, world), args.submission, world.device)
    model = build_model(recipe, world.device)
    initialise(model, args.seed, world.device)
    optimizer = recipe.build_optimizer(model, recipe.config, recipe.ops, world)
    position = _resume(args.out, recipe, model, optimizer) if args.resume else Position()
    forward = compiled(model, recipe.config)
    trackers = _trackers(args, recipe) if world.rank == 0 else []
    speedometer = Speedometer(model.flops_per_token(), world.size, world.device)  # type: ignore[operator]

    def save() -> None:
        state = optimizer.state_dict()
        if world.rank == 0:
            checkpoint = {"model": model, "optimizer_state": state, "config": recipe.config, "seed": args.seed}
            save_checkpoint(args.out, step=position.step, cursor=position.cursor, **checkpoint)
        if world.size > 1:
            dist.barrier()

    def on_step(result: StepResult) -> None:
        report = speedometer.report(
            step=result.step, steps=recipe.config.num_steps, loss=result.loss, learning_rate=result.plan.learning_rate, tokens=result.tokens
        )
        for tracker in trackers:
            tracker.log(report)
        if args.save_every and result.step % args.save_every == 0:
            save()

    args.out.mkdir(parents=True, exist_ok=True)
    train(recipe, forward, optimizer, RowReader(rows, world.rank, world.size, world.device), world, position, on_step, args.stop_after)
    save()
    for tracker in trackers:
        tracker.close()


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
    return TrainConfig.from_depth(args.depth, dial, **{**execution, **dict(_assignment(text) for text in args.set)})


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


def _resume(folder: Path, recipe: Recipe, model: nn.Module, optimizer: Optimizer) -> Position:
    """Continue from the newest whole checkpoint in `folder`; from the beginning when there is none."""
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        return Position()
    state = read_state(checkpoint)
    execution = {name: getattr(recipe.config, name) for name in EXECUTION_FIELDS}
    if state["config"].with_(**execution) != recipe.config:
        raise CheckpointError(f"{checkpoint}: was trained with another config; resume with the options it was started with")
    read_weights(model, checkpoint / "weights.safetensors")
    optimizer.load_state_dict(read_optimizer_state(checkpoint, state["optimizer_scalars"]))
    return Position(step=state["step"], cursor=state["cursor"])


def _trackers(args: argparse.Namespace, recipe: Recipe) -> list[Tracker]:
    args.out.mkdir(parents=True, exist_ok=True)
    trackers: list[Tracker] = [TerminalLine(), JsonLines(args.out / "steps.jsonl")]
    if args.tracker:
        trackers.append(WandbLike(args.tracker, "speedrun", recipe.config.to_dict()))
    return trackers
