"""Whether an `Ops` computes what the baseline's references define, forward and backward, on random inputs of the config's shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baseline.attention import masked_attention
from baseline.config import TrainConfig
from baseline.contract import Ops
from baseline.ops import cross_entropy, linear, polar_express, relu_squared_mlp, rms_norm

ROWS = 2
LENGTHS = (256, 37)
"""Tokens per row: one that suits a kernel's blocks, and one that does not; evaluation brings every length."""
MLP_RATIO = 4
LOGIT_SPREAD = 4.0
"""Standard deviation of the logits in `cross_entropy`: at 1 a missing softcap changes its gradients by under 1 %, at 3 by 23 %."""
POLAR_SHAPES = ((2, 128, 128), (2, 128, 256), (2, 256, 128))
"""Stacks (K, m, n) for `orthogonalize`: square, wide and tall."""


@dataclass(frozen=True, slots=True)
class Case:
    """One op at one set of inputs."""

    op: str
    label: str
    reference: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    """Tensors with gradients, or of token ids."""
    settings: tuple[Any, ...] = ()


def disagreements(ops: Ops, config: TrainConfig, device: torch.device, tolerance: float) -> list[str]:
    """One line for each op whose output or gradient is off by more than `tolerance`, as ‖ours − reference‖ / ‖reference‖.

    The inputs are rounded to the config's dtype; the references compute with them in float32.
    """
    generator = torch.Generator(device).manual_seed(0)
    draw = _Draw(generator, device, getattr(torch, config.dtype))
    found: dict[str, str] = {}
    for case in _cases(config, draw):
        if case.op not in found and (problem := _disagreement(getattr(ops, case.op), case, draw, tolerance)):
            found[case.op] = problem
    problem = _polar_disagreement(ops.orthogonalize, draw, tolerance)
    return [*found.values(), *([problem] if problem else [])]


@dataclass(frozen=True, slots=True)
class _Draw:
    """Random tensors for comparisons."""

    generator: torch.Generator
    device: torch.device
    dtype: torch.dtype

    def activation(self, *shape: int) -> Tensor:
        """N(0, 1) in the compute dtype."""
        values = torch.randn(shape, generator=self.generator, device=self.device)
        return values.to(self.dtype).requires_grad_()

    def weight(self, rows: int, columns: int, spread: float = 1.0) -> Tensor:
        """N(0, spread²/columns), representable in the compute dtype, stored as the float32 master that it is."""
        values = torch.randn(rows, columns, generator=self.generator, device=self.device) * (spread / math.sqrt(columns))
        return values.to(self.dtype).float().requires_grad_()

    def targets(self, count: int, vocab_size: int) -> Tensor:
        targets: Tensor = torch.randint(vocab_size, (count,), generator=self.generator, device=self.device)
        return targets

    def like(self, tensor: Tensor) -> Tensor:
        """N(0, 1) of the tensor's shape and dtype."""
        values: Tensor = torch.randn(tensor.shape, generator=self.generator, device=self.device).to(tensor.dtype)
        return values


def _cases(config: TrainConfig, draw: _Draw) -> Iterator[Case]:
    width, vocab = config.width, config.padded_vocab_size
    for length in LENGTHS:
        tokens, label = ROWS * length, f"{ROWS} x {length} tokens"
        hidden = draw.activation(ROWS, length, width)
        yield Case("rms_norm", label, rms_norm, (hidden,))
        yield Case("linear", label, linear, (hidden, draw.weight(width, width)))
        up, down = draw.weight(MLP_RATIO * width, width), draw.weight(width, MLP_RATIO * width)
        yield Case("relu_squared_mlp", label, relu_squared_mlp, (hidden, up, down))
        flat, head = draw.activation(tokens, width), draw.weight(vocab, width, LOGIT_SPREAD)
        targets = draw.targets(tokens, config.vocab_size)
        yield Case("cross_entropy", label, cross_entropy, (flat, head, targets), (config.vocab_size, config.softcap))
        for window in sorted(set(config.windows())):
            q, k, v = (draw.activation(ROWS, length, h, config.head_dim) for h in (config.num_heads, *[config.num_kv_heads] * 2))
            yield Case("attention", f"{label}, window {window}", masked_attention, (q, k, v), (window,))


def _disagreement(op: Callable[..., Tensor], case: Case, draw: _Draw, tolerance: float) -> str | None:
    """What is wrong with one op at one case, or None."""
    exact = tuple(t.detach().float().requires_grad_() if t.is_floating_point() else t for t in case.inputs)
    expected = case.reference(*exact, *case.settings)
    ours = op(*case.inputs, *case.settings)
    if ours.shape != expected.shape:
        return f"{case.op} gives shape {tuple(ours.shape)}, not {tuple(expected.shape)} ({case.label})"
    cotangent = draw.like(ours)
    parts = {"output": (ours, expected)}
    gradients = (_gradients(ours, case.inputs, cotangent), _gradients(expected, exact, cotangent.float()))
    for index, (mine, theirs) in enumerate(zip(*gradients, strict=True)):
        parts[f"gradient of input {index}"] = (mine, theirs)
    for part, (mine, theirs) in parts.items():
        error = relative_error(mine, theirs)
        if not error <= tolerance:
            return f"{case.op}: {part} is off by {error:.2g} of its norm, {tolerance:g} is allowed ({case.label}); mend the kernel"
    return None


def _gradients(output: Tensor, inputs: tuple[Tensor, ...], cotangent: Tensor) -> list[Tensor]:
    """Gradients of the inputs that have one; zeros where the op does not depend on an input."""
    wanted = [t for t in inputs if t.requires_grad]
    found = torch.autograd.grad(output, wanted, cotangent, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(wanted, found, strict=True)]


def _polar_disagreement(orthogonalize: Callable[[Tensor], Tensor], draw: _Draw, tolerance: float) -> str | None:
    """An orthogonalisation may be no farther from the exact polar factor U·Vᵀ than the baseline's, plus the tolerance."""
    for shape in POLAR_SHAPES:
        stack = draw.activation(*shape).detach()
        u, _, vh = torch.linalg.svd(stack.double(), full_matrices=False)
        exact = (u @ vh).float()
        ours, theirs = orthogonalize(stack), polar_express(stack)
        if ours.shape != exact.shape:
            return f"orthogonalize gives shape {tuple(ours.shape)} for {shape}"
        error, allowed = relative_error(ours, exact), relative_error(theirs, exact) + tolerance
        if not error <= allowed:
            return (
                f"orthogonalize: off the polar factor by {error:.2g} of its norm, {allowed:.2g} is allowed (stack {shape}); mend the kernel"
            )
    return None


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """‖ours − reference‖ / ‖reference‖ in float32; not finite where `ours` is not."""
    difference = (ours.detach().float() - reference.detach().float()).norm()
    return float(difference / reference.detach().float().norm().clamp_min(1e-12))
