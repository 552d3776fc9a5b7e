"""Linear layers whose three matrix products run in 8-bit floating point, with one scale per tensor, found anew each time.

    product                          operands                      accumulation
    forward   y  = x · Wᵀ            e4m3 · e4m3                   fast
    backward  dx = dy · W            e5m2 · e4m3                   full precision
    backward  dW = dyᵀ · x           e5m2 · e4m3                   full precision

e4m3 has more mantissa and serves activations and weights; e5m2 has more range and serves gradients. A tensor is multiplied by
(largest 8-bit value / its largest magnitude), rounded, and the product is divided by the two scales again (FP8 formats for deep
learning, arXiv 2209.05433). The 8-bit tensors of the forward pass are kept for the backward pass, which halves what is saved.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 16
"""The matrix product wants every dimension to be a multiple of this."""
MIN_DIMENSION = 128
"""Smaller layers lose more on scaling than they win on the product."""
MIN_CAPABILITY = (8, 9)
"""First CUDA compute capability with 8-bit matrix products (Ada, then Hopper)."""


class Fp8UnavailableError(RuntimeError):
    """fp8 was asked for on a device that has no 8-bit matrix product."""


def require_fp8(device: torch.device) -> None:
    """Raise Fp8UnavailableError unless `device` can multiply 8-bit matrices. A CPU can, slowly: good for tests."""
    if device.type == "cpu":
        return
    if device.type != "cuda":
        raise Fp8UnavailableError(f"fp8 = true: {device} has no 8-bit matrix product; set fp8 = false")
    if torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise Fp8UnavailableError(f"fp8 = true: {name} is older than compute capability 8.9; set fp8 = false")


def qualifies(x: Tensor, weight: Tensor) -> bool:
    """Whether x (..., K) times weight (N, K) can and should be done in 8 bits."""
    rows = x.numel() // x.shape[-1]
    aligned = not any(size % ALIGNMENT for size in (rows, *weight.shape))
    return aligned and rows > 0 and min(weight.shape) >= MIN_DIMENSION


def fp8_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., K), weight (N, K) in any float dtype -> (..., N) in x's dtype. Both must satisfy `qualifies`."""
    y: Tensor = _multiply(x.flatten(0, -2), weight)
    return y.view(*x.shape[:-1], weight.shape[0])


def quantize(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x -> (x · scale rounded to the 8-bit dtype, 1/scale as a float32 scalar), where scale makes the largest magnitude fit exactly."""
    largest = torch.finfo(dtype).max
    amax = x.abs().amax().float().clamp(min=1e-12)
    scaled = (x.float() * (largest / amax)).clamp(-largest, largest)  # rounding may overshoot, and the cast would give NaN
    return scaled.to(dtype), amax / largest


class _Fp8Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """x (R, K), weight (N, K) -> (R, N)."""
        x8, x_scale = quantize(x, torch.float8_e4m3fn)
        w8, w_scale = quantize(weight, torch.float8_e4m3fn)
        ctx.save_for_backward(x8, x_scale, w8, w_scale)
        ctx.weight_dtype = weight.dtype
        return torch._scaled_mm(x8, w8.t(), scale_a=x_scale, scale_b=w_scale, out_dtype=x.dtype, use_fast_accum=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x8, x_scale, w8, w_scale = ctx.saved_tensors
        g8, g_scale = quantize(grad, torch.float8_e5m2)
        g8 = g8.contiguous()
        # The first operand must lie row by row in memory and the second column by column, hence the copies before the transposes.
        dx = torch._scaled_mm(g8, w8.t().contiguous().t(), scale_a=g_scale, scale_b=w_scale, out_dtype=grad.dtype)
        weight_dtype: torch.dtype = ctx.weight_dtype
        dw = torch._scaled_mm(g8.t().contiguous(), x8.t().contiguous().t(), scale_a=g_scale, scale_b=x_scale, out_dtype=weight_dtype)
        return dx, dw


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _multiply(x: Tensor, weight: Tensor) -> Tensor:
    """One node for dynamo, which would otherwise look for the scales inside the graph it traces; the compiler below it sees all."""
    y: Tensor = _Fp8Linear.apply(x, weight)  # type: ignore[no-untyped-call]
    return y
