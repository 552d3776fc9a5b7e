"""Checkpoints: safetensors for tensors, JSON for everything else, each written so that it is whole or absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from baseline.config import TrainConfig
from baseline.data.durable import whole_file

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
SEPARATOR = "|"
"""Between the levels of a nested optimizer state; no parameter name contains it."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used. The message names the file and the mend."""


def write_weights(model: nn.Module, path: Path) -> None:
    """Write the model's state dict, contiguous and on the CPU, under its plain parameter names."""
    tensors = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in model.state_dict().items()}
    _write(path, save(tensors))


def read_weights(model: nn.Module, path: Path) -> None:
    """Load weights written by `write_weights` into a model of the same shape; raises CheckpointError on any difference."""
    try:
        model.load_state_dict(_tensors_in(path), strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: does not fit this model ({' '.join(str(error).split())}); use the config it was trained with"
        ) from None


def save_checkpoint(
    folder: Path, *, model: nn.Module, optimizer_state: dict[str, Any], config: TrainConfig, step: int, cursor: int, seed: int
) -> Path:
    """Write `folder/step_NNNNNN`; the last file written is the JSON, so a folder that has it is whole.

    `step` is the number of finished steps, `cursor` the number of rows consumed; both are independent of the world size.
    """
    target = folder / f"step_{step:06d}"
    target.mkdir(parents=True, exist_ok=True)
    write_weights(model, target / WEIGHTS)
    tensors, scalars = _flatten(optimizer_state)
    _write(target / OPTIMIZER, save(tensors))
    state = {"step": step, "cursor": cursor, "seed": seed, "config": config.to_dict(), "optimizer_scalars": scalars}
    _write(target / STATE, json.dumps(state, indent=2, sort_keys=True).encode() + b"\n")
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint with the highest step in `folder`, or None."""
    whole = sorted(path.parent for path in folder.glob(f"step_*/{STATE}"))
    return whole[-1] if whole else None


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint: step, cursor, seed, config (as TrainConfig), optimizer_scalars."""
    try:
        state = json.loads((folder / STATE).read_text())
        state["config"] = TrainConfig.from_dict(state["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / STATE}: not a checkpoint's state ({error}); choose a folder named step_NNNNNN") from None
    return dict(state)


def read_optimizer_state(folder: Path, scalars: dict[str, Any]) -> dict[str, Any]:
    """The nested optimizer state, tensors on the CPU. Raises CheckpointError for a file that cannot be read."""
    flat: dict[str, Any] = {**scalars, **_tensors_in(folder / OPTIMIZER)}
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *levels, last = key.split(SEPARATOR)
        place = nested
        for level in levels:
            place = place.setdefault(level, {})
        place[last] = value
    return nested


def _tensors_in(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU."""
    try:
        return load_file(path)
    except Exception as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); train again") from None


def _flatten(state: dict[str, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split a nested state into tensors and JSON scalars, both under joined keys."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for key, value in state.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            inner_tensors, inner_scalars = _flatten(value, name + SEPARATOR)
            tensors |= inner_tensors
            scalars |= inner_scalars
        elif isinstance(value, torch.Tensor):
            tensors[name] = value.detach().to("cpu").contiguous().clone()
        else:
            scalars[name] = value
    return tensors, scalars


def _write(path: Path, data: bytes) -> None:
    """Write a whole file; when this returns, it survives a power cut."""
    with whole_file(path) as file:
        file.write(data)
