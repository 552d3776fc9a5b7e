"""FlashAttention in whichever version is installed: 4 (CuTe DSL), 3 (Hopper) or 2.

Each loader imports one package and returns a function with the signature of `baseline.attention`. Whether it also works on the
card at hand is found out there, by trying it against the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

FlashFn = Callable[[Tensor, Tensor, Tensor, int], Tensor]


@cache  # an operator's name can be registered once in a process
def load_flash_4() -> FlashFn:
    """FlashAttention-4 from the package `flash_attn.cute`. Raises ImportError when it is not installed.

    Its functions launch kernels that a compiler cannot trace, so forward and backward are registered as two opaque operators;
    without that the model's graph would break at every layer.
    """
    interface = import_module("flash_attn.cute.interface")

    @torch.library.custom_op("baseline::flash_4", mutates_args=(), schema="(Tensor q, Tensor k, Tensor v, int window) -> (Tensor, Tensor)")
    def forward(q: Tensor, k: Tensor, v: Tensor, window: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            out, lse = interface.flash_attn_func(q, k, v, causal=True, window_size=(_left(window), 0), return_lse=True)
        return out, lse

    @torch.library.custom_op(
        "baseline::flash_4_backward",
        mutates_args=(),
        schema="(Tensor q, Tensor k, Tensor v, Tensor out, Tensor grad, Tensor lse, int window) -> (Tensor, Tensor, Tensor)",
    )
    def backward(q: Tensor, k: Tensor, v: Tensor, out: Tensor, grad: Tensor, lse: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
        scale = q.shape[-1] ** -0.5
        left = _left(window)
        grads = interface._flash_attn_bwd(q, k, v, out, grad, lse, scale, True, window_size_left=left, window_size_right=0)
        return grads[0], grads[1], grads[2]

    register_flash_operators(forward, backward)

    def attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        out: Tensor = forward(q.contiguous(), k.contiguous(), v.contiguous(), window)[0]
        return out

    return attention


def register_flash_operators(forward: CustomOpDef, backward: CustomOpDef) -> None:
    """Tell the compiler the shapes of both operators' results, and autograd that the second differentiates the first.

    forward: q (B, T, H, D), k, v (B, T, Hkv, D), window -> out (B, T, H, D) and float32 log-sum-exp (B, H, T).
    backward: q, k, v, out, gradient of out, log-sum-exp, window -> gradients of q, k, v. All contiguous.
    """

    def forward_shapes(q: Tensor, k: Tensor, v: Tensor, window: int) -> tuple[Tensor, Tensor]:
        rows, length, heads, _ = q.shape
        return torch.empty_like(q), q.new_empty((rows, heads, length), dtype=torch.float32)

    def backward_shapes(
        q: Tensor, k: Tensor, v: Tensor, out: Tensor, grad: Tensor, lse: Tensor, window: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)

    def save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        q, k, v, window = inputs
        ctx.save_for_backward(q, k, v, *output)
        ctx.window = window

    def differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        grads = backward(q, k, v, out, grad.contiguous(), lse, ctx.window)
        return (*grads, None)

    forward.register_fake(forward_shapes)
    backward.register_fake(backward_shapes)
    forward.register_autograd(differentiate, setup_context=save)


def load_flash_3() -> FlashFn:
    """FlashAttention-3 from the package `flash_attn_interface`. Raises ImportError when it is not installed."""
    function = import_module("flash_attn_interface").flash_attn_func

    def attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        out = function(q, k, v, causal=True, window_size=(window, 0))
        y: Tensor = out[0] if isinstance(out, tuple) else out  # early releases return the log-sum-exp as well
        return y

    return attention


def load_flash_2() -> FlashFn:
    """FlashAttention-2 from the package `flash_attn`. Raises ImportError when it is not installed."""
    module = import_module("flash_attn")
    if not hasattr(module, "flash_attn_func"):
        raise ImportError("the installed package flash_attn does not contain FlashAttention-2")

    def attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        out: Tensor = module.flash_attn_func(q, k, v, causal=True, window_size=(window, 0))
        return out

    return attention


def _left(window: int) -> int | None:
    """Version 4 writes "no limit" as None, the others as -1."""
    return None if window < 0 else window


FLASH_LOADERS: dict[str, Callable[[], FlashFn]] = {"flash-4": load_flash_4, "flash-3": load_flash_3, "flash-2": load_flash_2}
"""Newest first."""
