"""The reference operations against their definitions in float64, and the versions that the baseline picks against the references."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baseline.attention import AttentionBackend, sdpa_attention
from baseline.config import Dial, TrainConfig
from baseline.fused_cpu import chunked_cross_entropy, fused_rms_norm
from baseline.ops import (
    baseline_ops,
    cross_entropy,
    fp8_when_training,
    linear,
    newton_schulz,
    polar_express,
    relu_squared_mlp,
    rms_norm,
    softcapped,
)

CPU = torch.device("cpu")
CONFIG = TrainConfig.from_depth(2, Dial(vocab_size=100, sequence_len=64, tokens_per_parameter=1, head_dim=32, short_window_multiple=16))

CrossEntropy = Callable[[Tensor, Tensor, Tensor, int, float], Tensor]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).requires_grad_()


# ---------------------------------------------------------------------- cross entropy


def exact_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, softcap: float) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients of hidden and weight in float64, from the definition."""
    h, w = (x.detach().double().requires_grad_() for x in (hidden, weight))
    logits = (h @ w.T)[:, :vocab_size]
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    loss = -(logits.exp() / logits.exp().sum(1, keepdim=True)).log()[torch.arange(len(targets)), targets].mean()
    return loss.detach(), *torch.autograd.grad(loss, (h, w))


@pytest.mark.parametrize("softcap", [0.0, 15.0, 1.5])
@pytest.mark.parametrize("rows", [1, 7, 16, 17, 40])
@pytest.mark.parametrize("implementation", [cross_entropy, chunked_cross_entropy])
def test_cross_entropy_and_its_gradients(implementation: CrossEntropy, rows: int, softcap: float) -> None:
    # Width 16: chunks of 16 rows, so that 16 is a boundary, 17 leaves one row over and 40 half a chunk.
    hidden, weight = random(rows, 16), random(128, 16, seed=1)
    targets = torch.randint(100, (rows,), generator=torch.Generator().manual_seed(2))
    loss = implementation(hidden, weight, targets, 100, softcap)
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    expected = exact_cross_entropy(hidden, weight, targets, 100, softcap)
    for ours, exact in zip((loss, *torch.autograd.grad(loss, (hidden, weight))), expected, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("implementation", [cross_entropy, chunked_cross_entropy])
def test_padding_takes_no_part(implementation: CrossEntropy) -> None:
    hidden, weight, targets = random(20, 16), random(128, 16, seed=1), torch.arange(20)
    loss = implementation(hidden, weight, targets, 100, 15.0)
    (gradient,) = torch.autograd.grad(loss, weight)
    assert not gradient[100:].any()
    padded_with_more = weight.detach().clone()
    padded_with_more[100:] = 1e3
    torch.testing.assert_close(implementation(hidden, padded_with_more, targets, 100, 15.0), loss)


@given(scale=st.floats(-100, 100))
@settings(max_examples=20, deadline=None)
def test_chunked_gradients_follow_what_comes_from_above(scale: float) -> None:
    hidden, weight, targets = random(40, 16), random(128, 16, seed=1), torch.arange(40)
    plain = torch.autograd.grad(chunked_cross_entropy(hidden, weight, targets, 100, 15.0), (hidden, weight))
    scaled = torch.autograd.grad(chunked_cross_entropy(hidden, weight, targets, 100, 15.0) * scale, (hidden, weight))
    for ours, expected in zip(scaled, plain, strict=True):
        torch.testing.assert_close(ours, expected * scale)


def test_chunked_gradients_can_be_asked_for_twice() -> None:
    hidden, weight, targets = random(40, 16), random(128, 16, seed=1), torch.arange(40)
    loss = chunked_cross_entropy(hidden, weight, targets, 100, 15.0)
    first = torch.autograd.grad(loss, weight, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, weight)[0])


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_chunked_leaves_out_a_gradient_that_nobody_wants(frozen: str) -> None:
    tensors = {"hidden": random(40, 16), "weight": random(128, 16, seed=1)}
    tensors[frozen].requires_grad_(False)
    chunked_cross_entropy(*tensors.values(), torch.arange(40), 100, 15.0).backward()
    assert tensors[frozen].grad is None
    assert all(tensor.grad is not None for name, tensor in tensors.items() if name != frozen)


def test_chunked_without_gradients_gives_the_same_loss() -> None:
    hidden, weight, targets = random(40, 16), random(128, 16, seed=1), torch.arange(40)
    with torch.no_grad():
        loss = chunked_cross_entropy(hidden, weight, targets, 100, 15.0)
    assert not loss.requires_grad
    assert torch.equal(loss, chunked_cross_entropy(hidden, weight, targets, 100, 15.0).detach())


@pytest.mark.parametrize("implementation", [cross_entropy, chunked_cross_entropy])
def test_cross_entropy_of_bfloat16_states_keeps_a_float32_master(implementation: CrossEntropy) -> None:
    hidden, weight, targets = random(40, 64).detach().bfloat16().requires_grad_(), random(128, 64, seed=1, scale=0.1), torch.arange(40)
    loss = implementation(hidden, weight, targets, 100, 15.0)
    gradients = torch.autograd.grad(loss, (hidden, weight))
    assert [g.dtype for g in gradients] == [torch.bfloat16, torch.float32]
    exact = exact_cross_entropy(hidden, weight, targets, 100, 15.0)
    for ours, expected in zip((loss, *gradients), exact, strict=True):
        assert (ours.double() - expected).norm() < 0.01 * expected.norm()


def test_extreme_logits_stay_finite_without_a_softcap() -> None:
    hidden, weight = random(20, 16, scale=100), random(128, 16, seed=1, scale=10)
    loss = chunked_cross_entropy(hidden, weight, torch.arange(20), 100, 0.0)
    assert loss.isfinite()
    torch.testing.assert_close(loss, cross_entropy(hidden, weight, torch.arange(20), 100, 0.0))


def test_softcap_is_nearly_the_identity_for_small_logits() -> None:
    assert softcapped(torch.tensor(0.1), 15.0).item() == pytest.approx(0.1, rel=1e-4)
    assert softcapped(torch.tensor(1e4), 15.0).item() == pytest.approx(15.0)
    assert softcapped(torch.tensor(1e4), 0.0).item() == 1e4


# ---------------------------------------------------------------------- norm, linear, MLP


@pytest.mark.parametrize("implementation", [rms_norm, fused_rms_norm])
@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 4, 32), (4, 128)])
def test_rms_norm_and_its_gradient(implementation: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    x = random(*shape, scale=3)
    cotangent = random(*shape, seed=1).detach()
    exact_x = x.detach().double().requires_grad_()
    exact = exact_x / exact_x.square().mean(-1, keepdim=True).add(torch.finfo(torch.float32).eps).sqrt()
    y = implementation(x)
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-6)
    ours, expected = torch.autograd.grad(y, x, cotangent)[0], torch.autograd.grad(exact, exact_x, cotangent.double())[0]
    torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("implementation", [rms_norm, fused_rms_norm])
def test_rms_norm_of_zeros_is_zero(implementation: Callable[[Tensor], Tensor]) -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    y = implementation(x)
    y.sum().backward()
    assert not y.any()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_linear_casts_the_master_weight_to_the_input() -> None:
    x, weight = random(2, 3, 8).detach().bfloat16(), random(5, 8)
    y = linear(x, weight)
    assert (y.dtype, y.shape) == (torch.bfloat16, (2, 3, 5))
    y.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_mlp_is_down_of_the_square_of_relu_of_up() -> None:
    x, up, down = random(2, 3, 8), random(32, 8, seed=1), random(8, 32, seed=2)
    expected = (x @ up.T).clamp(min=0) ** 2 @ down.T
    torch.testing.assert_close(relu_squared_mlp(x, up, down), expected)


# ---------------------------------------------------------------------- orthogonalisation


def polar_factor(x: Tensor) -> Tensor:
    u, _, vt = torch.linalg.svd(x.double(), full_matrices=False)
    return u @ vt


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 64, 16), (3, 16, 64), (2, 1, 12)], ids=str)
def test_polar_express_comes_near_the_polar_factor(shape: tuple[int, int, int]) -> None:
    x = random(*shape).detach()
    y, exact = polar_express(x), polar_factor(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert (y - exact).norm() / exact.norm() < 0.142, "each singular value ends within 0.141 of 1"


@pytest.mark.parametrize(("implementation", "low", "high"), [(polar_express, 0.858, 1.142), (newton_schulz, 0.681, 1.203)])
def test_singular_values_end_near_one(implementation: Callable[[Tensor], Tensor], low: float, high: float) -> None:
    u, _, vt = torch.linalg.svd(random(64, 64).detach())
    for smallest in (1.0, 0.1, 0.03):  # of the largest, which the division by the Frobenius norm makes about an eighth of 1
        x = u @ torch.diag(torch.linspace(smallest, 1, 64)) @ vt
        values = torch.linalg.svdvals(implementation(x[None]))
        assert low < values.min()
        assert values.max() < high


@given(scale=st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_only_the_direction_counts_not_the_size(scale: float) -> None:
    x = random(2, 24, 8).detach()
    torch.testing.assert_close(polar_express(x * scale), polar_express(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("implementation", [polar_express, newton_schulz])
def test_orthogonalisation_of_a_transpose_is_the_transpose(implementation: Callable[[Tensor], Tensor]) -> None:
    x = random(2, 24, 8).detach()
    torch.testing.assert_close(implementation(x.mT).mT, implementation(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", [polar_express, newton_schulz])
def test_each_matrix_of_a_stack_is_treated_alone(implementation: Callable[[Tensor], Tensor]) -> None:
    x = random(3, 16, 24).detach() * torch.tensor([1.0, 10.0, 0.1])[:, None, None]
    torch.testing.assert_close(implementation(x)[1:2], implementation(x[1:2]))


@pytest.mark.parametrize("implementation", [polar_express, newton_schulz])
def test_a_zero_matrix_stays_zero(implementation: Callable[[Tensor], Tensor]) -> None:
    assert not implementation(torch.zeros(1, 8, 12)).any()


def test_polar_express_survives_bfloat16() -> None:
    x = random(2, 64, 32).detach()
    y = polar_express(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert (y.double() - polar_factor(x)).norm() / math.sqrt(64) < 0.142


# ---------------------------------------------------------------------- composition


def test_a_cpu_without_a_compiler_takes_the_fused_versions() -> None:
    ops = baseline_ops(CONFIG, CPU)
    assert (ops.rms_norm, ops.cross_entropy, ops.linear) == (fused_rms_norm, chunked_cross_entropy, linear)
    assert ops.attention == AttentionBackend("sdpa", sdpa_attention)


@pytest.mark.parametrize(
    "changes",
    [{}, {"compile": True}, {"dtype": "bfloat16"}, {"fp8": True}, {"orthogonalization": "newton_schulz"}],
    ids=str,
)
def test_every_composition_computes_what_the_references_do(changes: dict[str, Any]) -> None:
    config = CONFIG.with_(**changes)
    ops = baseline_ops(config, CPU)
    dtype, tolerance = getattr(torch, config.dtype), 0.1 if config.fp8 else 0.01
    x, square = random(2, 16, 128).detach().to(dtype), random(128, 128, scale=0.1)
    up, down = random(512, 128, seed=1, scale=0.1), random(128, 512, seed=2, scale=0.1)
    pairs = [
        (ops.rms_norm(x), rms_norm(x)),
        (ops.linear(x, square), linear(x, square)),
        (ops.relu_squared_mlp(x, up, down), relu_squared_mlp(x, up, down)),
        (ops.cross_entropy(x[0], up, torch.arange(16), 500, 15.0), cross_entropy(x[0], up, torch.arange(16), 500, 15.0)),
    ]
    for ours, expected in pairs:
        assert ours.dtype == expected.dtype
        assert (ours - expected).norm() <= tolerance * expected.norm()
    wanted = polar_express if config.orthogonalization == "polar_express" else newton_schulz
    assert ops.orthogonalize is wanted
    assert ops.linear is (fp8_when_training if config.fp8 else linear)
