"""Causal attention backends behind one signature, and the choice among them.

Every backend takes q (B, T, H, D), k and v (B, T, Hkv, D) and a window, and returns (B, T, H, D). Query t sees the keys
max(0, t - window) … t; window -1 means all of 0 … t. Scores are scaled by 1/√D. H is a multiple of Hkv; query heads share
key heads in consecutive groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils._triton import has_triton

from baseline.config import TrainConfig
from baseline.flash import FLASH_LOADERS

AttentionFn = Callable[[Tensor, Tensor, Tensor, int], Tensor]

MIN_QUERY_BLOCK = 64
"""Queries per SDPA call under a window, at least. Measured on one Zen 4 core at B=16, T=256, H=4, D=32, window 64, float32, forward
and backward: 32 queries 22 ms, 64 queries 21 ms, 128 queries 27 ms, all 256 with a T×T mask 32 ms."""

FLASH_TOLERANCE = 0.02
"""Relative Frobenius error that a flash backend may have in bfloat16 (unit roundoff 2^-8 = 0.004) against the reference in float32."""


class AttentionBackendError(RuntimeError):
    """The requested attention backend cannot run here. The message says why and what to set instead."""


@dataclass(frozen=True, slots=True)
class AttentionBackend:
    """An attention function, and the name under which a run records that it was used."""

    name: str
    function: AttentionFn

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        return self.function(q, k, v, window)


def choose_attention(config: TrainConfig, device: torch.device) -> AttentionBackend:
    """`config.attention_backend` on `device`; "auto" takes the first that works of flash, flex, sdpa.

    The name tells flash variants apart ("flash-4", "flash-3", "flash-2"). On a CPU "auto" is sdpa: FlexAttention has no backward
    there, and sdpa takes half the time of the masked reference (21 against 61 ms at the sizes above).

    Raises AttentionBackendError when a backend is asked for by name and cannot run here.
    """
    if config.attention_backend == "auto":
        order = ("flash", "flex", "sdpa") if device.type == "cuda" else ("sdpa",)
    else:
        order = (config.attention_backend,)
    reasons = []
    for name in order:
        try:
            return _BACKENDS[name](config, device)
        except AttentionBackendError as error:
            reasons.append(str(error))
    raise AttentionBackendError(f'{"; ".join(reasons)}. Set attention_backend = "auto" to take the best that works here')


# ---------------------------------------------------------------------- the reference


def visible(queries: Tensor, keys: Tensor, window: int) -> Tensor:
    """Which keys each query sees. Positions (Tq,) and (Tk,) -> bool (Tq, Tk)."""
    distance = queries[:, None] - keys[None, :]
    seen = distance >= 0
    return seen if window < 0 else seen & (distance <= window)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """The definition, spelled out and computed in float32. Builds the whole (B, H, T, T); for small sizes and tests."""
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    positions = torch.arange(q.shape[1], device=q.device)
    scores = torch.einsum("bthd,bshd->bhts", q.float(), k.float()) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~visible(positions, positions, window), float("-inf")).softmax(dim=-1)
    return torch.einsum("bhts,bshd->bthd", weights, v.float()).to(q.dtype)


# ---------------------------------------------------------------------- scaled_dot_product_attention


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """PyTorch's scaled_dot_product_attention. Under a window, block by block of queries, so that no T×T mask exists."""
    length = q.shape[1]
    if window < 0 or window >= length - 1:
        return dot_product_attention(q, k, v, None)
    # A block is at least as long as the window, so its queries reach no farther back than the block before.
    block = max(MIN_QUERY_BLOCK, window)
    positions = torch.split(torch.arange(length, device=q.device), block)
    # Splitting and joining whole blocks: the backward of a slice would fill a T-long gradient with zeros for each block.
    q_blocks, k_blocks, v_blocks = (torch.split(x, block, dim=1) for x in (q, k, v))
    out = []
    for i, q_block in enumerate(q_blocks):
        reach = slice(max(0, i - 1), i + 1)
        mask = visible(positions[i], torch.cat(positions[reach]), window)
        out.append(dot_product_attention(q_block, torch.cat(k_blocks[reach], dim=1), torch.cat(v_blocks[reach], dim=1), mask))
    return torch.cat(out, dim=1)


def dot_product_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """q (B, Tq, H, D), k and v (B, Tk, Hkv, D) -> (B, Tq, H, D); mask (Tq, Tk) of visible keys, or None for plain causal attention."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    grouped = q.shape[1] != k.shape[1]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)
    return y.transpose(1, 2)


# ---------------------------------------------------------------------- FlexAttention


class FlexWindows:
    """FlexAttention for one length of sequence, with a block-sparse mask per window: what lies outside a window costs nothing.

    Its kernel is compiled for that length. Other lengths, which only evaluation brings, go to `sdpa_attention`: a compilation for
    each of the many lengths of evaluation prompts would take longer than all the attention in them.
    """

    def __init__(self, device: torch.device, length: int, windows: list[int]) -> None:
        self.length = length
        self.masks = {window: _block_mask(device, length, window) for window in windows}
        # Without a compiler flex_attention builds the T×T scores; on a CPU that is all it can do.
        self.kernel = torch.compile(flex_attention, dynamic=False) if device.type == "cuda" else flex_attention

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        if q.shape[1] != self.length or window not in self.masks:
            return sdpa_attention(q, k, v, window)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        y = self.kernel(q, k, v, block_mask=self.masks[window], enable_gqa=q.shape[1] != k.shape[1])
        return y.transpose(1, 2)


def _block_mask(device: torch.device, length: int, window: int) -> BlockMask:
    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        causal = query >= key
        return causal if window < 0 else causal & (query - key <= window)

    return create_block_mask(seen, None, None, length, length, device=str(device))


# ---------------------------------------------------------------------- what works where


def _choose_flash(config: TrainConfig, device: torch.device) -> AttentionBackend:
    if device.type != "cuda" or config.dtype != "bfloat16":
        raise AttentionBackendError(f"flash: FlashAttention needs a CUDA card and dtype = bfloat16; here are {device} and {config.dtype}")
    reasons = []
    for name, load in FLASH_LOADERS.items():
        try:
            attention = load()
            check_against_reference(attention, config, device)
        except Exception as error:  # whatever a foreign package raises, it cannot be used here
            reasons.append(f"{name}: {type(error).__name__}: {error}")
        else:
            return AttentionBackend(name, attention)
    raise AttentionBackendError("; ".join(reasons))


def check_against_reference(attention: AttentionFn, config: TrainConfig, device: torch.device) -> None:
    """Run forward and backward on a small input in bfloat16 and compare with the reference. Raises AttentionBackendError if they differ.

    That a package imports says little: wheels lack kernels for some cards, and others compile their kernels at the first call.
    """
    generator = torch.Generator(device).manual_seed(0)
    heads = (config.num_heads, config.num_kv_heads, config.num_kv_heads, config.num_heads)
    shapes = [(1, 256, h, config.head_dim) for h in heads]
    q, k, v, grad = (torch.randn(s, generator=generator, device=device, dtype=torch.bfloat16, requires_grad=True) for s in shapes)
    for window in (-1, 64):
        results = [(y, *torch.autograd.grad(y, (q, k, v), grad)) for y in (f(q, k, v, window) for f in (attention, masked_attention))]
        for ours, reference in zip(*results, strict=True):
            error = (ours.float() - reference.float()).norm() / reference.float().norm()
            if not error < FLASH_TOLERANCE:
                raise AttentionBackendError(f"window {window}: relative error {error:.3g} against the masked reference")


def _choose_flex(config: TrainConfig, device: torch.device) -> AttentionBackend:
    if device.type != "cuda":
        raise AttentionBackendError(f"flex: FlexAttention has a backward pass on CUDA only, and this device is {device}")
    if not has_triton():
        raise AttentionBackendError("flex: Triton is not installed, and FlexAttention is compiled with it")
    return AttentionBackend("flex", FlexWindows(device, config.sequence_len, config.windows()))


def _choose_sdpa(config: TrainConfig, device: torch.device) -> AttentionBackend:
    return AttentionBackend("sdpa", sdpa_attention)


def _choose_masked(config: TrainConfig, device: torch.device) -> AttentionBackend:
    return AttentionBackend("masked", masked_attention)


_BACKENDS: dict[str, Callable[[TrainConfig, torch.device], AttentionBackend]] = {
    "flash": _choose_flash,
    "flex": _choose_flex,
    "sdpa": _choose_sdpa,
    "masked": _choose_masked,
}
