"""What a recipe's model and optimizer do on a small copy of themselves: initialise, one forward, one backward, one step."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from baseline.config import SMEAR_GATE_CHANNELS, TrainConfig
from baseline.contract import Recipe, Slot, World
from baseline.loop import build_model, initialise
from baseline.recipe import SlotError, SlotFunctions, slot_error

SMALL_VOCAB = 512
SMALL_LENGTH = 256
SMALL_HEADS = 2
ROWS = 2
FIRST_LOSS_TOLERANCE = 0.5
"""Nats that the loss may differ from ln(vocabulary) before the first step: untrained weights know nothing (rule R05)."""
LEAK_TOLERANCE = 1e-4
"""Largest change of earlier logits when a later token changes, relative to the largest logit."""


def small_config(config: TrainConfig) -> TrainConfig:
    """The same depth, head dimension and components at a small width, vocabulary and length: seconds on a laptop."""
    group = config.num_heads // config.num_kv_heads
    enough = max(SMALL_HEADS, math.ceil(SMEAR_GATE_CHANNELS / config.head_dim), group)
    heads = min(config.num_heads, math.ceil(enough / group) * group)
    vocab, length = min(config.vocab_size, SMALL_VOCAB), min(config.sequence_len, SMALL_LENGTH)
    return config.with_(
        dial=replace(config.dial, vocab_size=vocab, sequence_len=length),
        width=heads * config.head_dim,
        num_heads=heads,
        num_kv_heads=heads // group,
        vocab_size=vocab,
        sequence_len=length,
        batch_tokens=ROWS * length,
        rows_per_forward=ROWS,
    )


def try_out(slots: SlotFunctions, config: TrainConfig, device: torch.device) -> None:
    """Raise SlotError for the first thing that model or optimizer do wrong. `config` is resolved; it is made small here."""
    small = small_config(config)
    recipe = slots.compose(small, device)
    try:
        model = build_model(recipe, device)
        _check_initialisation(model, device)
        tokens = torch.randint(small.vocab_size, (ROWS, small.sequence_len + 1), generator=torch.Generator().manual_seed(1)).to(device)
        _check_loss(model, tokens, small.vocab_size)
        _check_logits(model, tokens[:, :-1], small.vocab_size)
    except Exception as error:
        raise _at_small_size("model", error, small) from error
    try:
        _check_step(recipe, model, device)
    except Exception as error:
        raise _at_small_size("optimizer", error, small) from error
    _check_causality(model, tokens[:, :-1])


def _at_small_size(slot: Slot, error: Exception, config: TrainConfig) -> SlotError:
    """Say at which size the slot's code raised: the entrant did not choose it."""
    if isinstance(error, SlotError):
        return error
    blamed = slot_error(slot, error)
    size = f"width {config.width}, {config.sequence_len} tokens, vocabulary {config.vocab_size}"
    return SlotError(slot, blamed.file, f"{blamed.message} (tried at {size})", missing_package=blamed.missing_package)


def _require(slot: Slot, holds: bool, message: str) -> None:
    if not holds:
        raise SlotError(slot, f"{slot}.py", message)


# ---------------------------------------------------------------------- model


def _check_initialisation(model: nn.Module, device: torch.device) -> None:
    """Every weight must come from the generator, and from nothing else."""
    first, again, other = (_initial_weights(model, seed, device) for seed in (1, 1, 2))
    for name, values in first.items():
        _require("model", bool(values.isfinite().all()), f"init_weights leaves {name} unwritten or not finite; write all of it")
        same = torch.equal(values, again[name])
        _require("model", same, f"init_weights writes other values into {name} for the same seed; draw from the generator alone")
    differs = any(not torch.equal(values, other[name]) for name, values in first.items())
    _require("model", differs, "init_weights gives the same weights for every seed; draw from the generator")


def _initial_weights(model: nn.Module, seed: int, device: torch.device) -> dict[str, Tensor]:
    """All floating-point parameters and buffers after initialisation over NaN, in float32."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    floating = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    with torch.no_grad():
        for tensor in floating.values():
            tensor.fill_(math.nan)
    initialise(model, seed, device)
    return {name: tensor.detach().float().clone() for name, tensor in floating.items()}


def _check_loss(model: nn.Module, tokens: Tensor, vocab_size: int) -> None:
    """The loss is a finite float32 scalar near ln(vocabulary), and its gradients are finite."""
    loss = model(tokens[:, :-1], tokens[:, 1:])
    scalar = isinstance(loss, Tensor) and loss.shape == () and loss.dtype == torch.float32
    shown = f"{tuple(loss.shape)} {loss.dtype}" if isinstance(loss, Tensor) else type(loss).__name__
    _require("model", scalar, f"with targets the model returns {shown}; it must be the mean loss, a float32 scalar")
    expected = math.log(vocab_size)
    near = abs(loss.item() - expected) <= FIRST_LOSS_TOLERANCE
    message = f"the loss before the first step is {loss.item():.3f}, not within {FIRST_LOSS_TOLERANCE} of ln({vocab_size}) = {expected:.3f}"
    _require("model", near, f"{message}; mend the initialisation or the loss")
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    _require("model", bool(gradients), "no parameter gets a gradient from the loss")
    for name, gradient in gradients.items():
        _require("model", bool(gradient.isfinite().all()), f"the gradient of {name} is not finite at the first step")


@torch.no_grad()
def _check_logits(model: nn.Module, tokens: Tensor, vocab_size: int) -> None:
    logits = model(tokens)
    wanted = (*tokens.shape, vocab_size)
    right = isinstance(logits, Tensor) and tuple(logits.shape) == wanted and logits.dtype == torch.float32
    shown = f"{tuple(logits.shape)} {logits.dtype}" if isinstance(logits, Tensor) else type(logits).__name__
    _require("model", right, f"without targets the model returns {shown}; it must be logits {wanted} torch.float32")


@torch.no_grad()
def _check_causality(model: nn.Module, tokens: Tensor) -> None:
    """What a model says of a token must not depend on later ones. After a step, when no weight is zero any more."""
    middle = tokens.shape[1] // 2
    changed = tokens.clone()
    changed[:, middle:] = changed[:, middle:].flip(1)
    before, after = model(tokens)[:, :middle], model(changed)[:, :middle]
    leak = float((before - after).abs().max() / before.abs().max().clamp_min(1e-12))
    _require("model", leak <= LEAK_TOLERANCE, f"logits change by {leak:.1g} when later tokens change; a token must not see those after it")


# ---------------------------------------------------------------------- optimizer


def _check_step(recipe: Recipe, model: nn.Module, device: torch.device) -> None:
    """One step on the gradients at hand moves parameters, keeps them finite, and leaves a state that can be loaded again."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = recipe.build_optimizer(model, recipe.config, recipe.ops, World(0, 1, device))
    optimizer.step(recipe.schedule(recipe.config.num_steps // 2, recipe.config))
    optimizer.zero_grad()
    for name, parameter in model.named_parameters():
        _require("optimizer", bool(parameter.isfinite().all()), f"a step makes {name} not finite")
    moved = any(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    _require("optimizer", moved, "a step in the middle of the run changes no parameter")
    left = [name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())]
    _require("optimizer", not left, f"zero_grad leaves the gradient of {left[0] if left else ''}")
    optimizer.load_state_dict(optimizer.state_dict())
