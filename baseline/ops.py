"""Plain torch versions of the operations in `contract.Ops`. They define what a kernel must compute; `baseline_ops` picks among them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from baseline.attention import choose_attention
from baseline.config import TrainConfig
from baseline.contract import Ops
from baseline.fp8 import fp8_linear, qualifies, require_fp8
from baseline.fused_cpu import chunked_cross_entropy, fused_rms_norm

Product = Callable[[Tensor, Tensor], Tensor]

NORM_EPSILON = torch.finfo(torch.float32).eps
"""2^-23, whatever the dtype of the input. Torch's default for bfloat16 is the same number: it computes, and takes its ε, in float32."""

POLAR_EXPRESS_COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""(a, b, c) of five odd quintics that together bring singular values from [1e-3, 1] into [0.859, 1.141], the best that five can do
(Polar Express, arXiv 2505.16932; safety 2e-2, cushion 2)."""

NEWTON_SCHULZ_COEFFICIENTS = ((3.4445, -4.7750, 2.0315),) * 5
"""Muon's original quintic, five times: singular values from [3e-3, 1] into [0.682, 1.202] (Keller Jordan, 2024)."""


# ---------------------------------------------------------------------- model


def rms_norm(x: Tensor) -> Tensor:
    """x / √(mean of x² over the last dimension + ε), (..., C) -> (..., C), in x's dtype with a float32 sum and ε."""
    return F.rms_norm(x, (x.shape[-1],), eps=NORM_EPSILON)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x · Wᵀ, x (..., K), weight (N, K) -> (..., N) in x's dtype. The cast of the float32 master weight is the only mixed precision."""
    return F.linear(x, weight.to(x.dtype))


def relu_squared_mlp(x: Tensor, up: Tensor, down: Tensor, *, product: Product = linear) -> Tensor:
    """down · relu(up · x)², x (..., C), up (F, C), down (C, F) -> (..., C) (Primer, arXiv 2109.08668)."""
    return product(F.relu(product(x, up)).square(), down)


def softcapped(logits: Tensor, softcap: float) -> Tensor:
    """softcap · tanh(logits / softcap): bounds logits to (-softcap, softcap), smoothly. 0 leaves them alone."""
    return softcap * torch.tanh(logits / softcap) if softcap else logits


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, softcap: float, *, product: Product = linear) -> Tensor:
    """Mean cross entropy in nats of softcapped logits, float32 scalar.

    hidden (N, C), weight (V, C), targets (N,) int64 below `vocab_size`; rows of `weight` from `vocab_size` on are padding and take no part.
    The product is in hidden's dtype, all that follows in float32.
    """
    logits = product(hidden, weight)[:, :vocab_size].float()
    return F.cross_entropy(softcapped(logits, softcap), targets)


# ---------------------------------------------------------------------- optimizer


def polar_express(x: Tensor) -> Tensor:
    """Approximate polar factor U·Vᵀ of each matrix in a stack (K, m, n), by five matrix polynomials (arXiv 2505.16932).

    The 1.01 keeps every singular value below 1 in spite of rounding in bfloat16.
    """
    return _iterate(x / (x.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-6), POLAR_EXPRESS_COEFFICIENTS)


def newton_schulz(x: Tensor) -> Tensor:
    """The same by Muon's Newton–Schulz iteration, which is cruder."""
    return _iterate(x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7), NEWTON_SCHULZ_COEFFICIENTS)


def _iterate(x: Tensor, coefficients: tuple[tuple[float, float, float], ...]) -> Tensor:
    """X <- a·X + (b·A + c·A²)·X with A = X·Xᵀ, on the shorter side of each matrix."""
    tall = x.shape[-2] > x.shape[-1]
    for a, b, c in coefficients:
        gram = x.mT @ x if tall else x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, polynomial, beta=a) if tall else torch.baddbmm(x, polynomial, x, beta=a)
    return x


# ---------------------------------------------------------------------- composition


def fp8_when_training(x: Tensor, weight: Tensor) -> Tensor:
    """`linear` in 8 bits where that pays and gradients are wanted. Without gradients it is an evaluation, which never runs in 8 bits."""
    return fp8_linear(x, weight) if torch.is_grad_enabled() and qualifies(x, weight) else linear(x, weight)


def baseline_ops(config: TrainConfig, device: torch.device) -> Ops:
    """The operations that the baseline uses for `config` on `device`.

    Raises AttentionBackendError or Fp8UnavailableError when the config asks for what the device cannot do.
    """
    if config.fp8:
        require_fp8(device)
    product = fp8_when_training if config.fp8 else linear
    # Without a compiler every elementwise operation is a pass over memory. On a GPU config.compile mends that.
    cpu = device.type == "cpu"
    fused = cpu and not config.compile and config.dtype == "float32"
    return Ops(
        rms_norm=fused_rms_norm if fused else rms_norm,
        linear=product,
        relu_squared_mlp=partial(relu_squared_mlp, product=product),
        attention=choose_attention(config, device),
        # A compiler does not keep the logits in the cache: measured compiled, it pays on a CPU too.
        cross_entropy=chunked_cross_entropy if cpu and not config.fp8 else partial(cross_entropy, product=product),
        orthogonalize=polar_express if config.orthogonalization == "polar_express" else newton_schulz,
    )
