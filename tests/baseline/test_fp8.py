"""8-bit linear layers: how near they are, what they keep, and when they are not used."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from baseline.config import Dial, TrainConfig
from baseline.fp8 import Fp8UnavailableError, fp8_linear, qualifies, quantize, require_fp8
from baseline.model import build_model
from baseline.ops import baseline_ops, fp8_when_training, linear

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).requires_grad_()


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x after a trip through 8 bits, in float64."""
    eight, scale = quantize(x.detach(), dtype)
    return eight.double() * scale.double()


# ---------------------------------------------------------------------- quantisation


# Half a unit in the last place: e4m3 has 3 bits of mantissa, e5m2 has 2.
@pytest.mark.parametrize(("dtype", "relative_error"), [(E4M3, 2**-4), (E5M2, 2**-3)])
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-6, 1e6))
def test_rounding_error_is_half_a_unit_in_the_last_place(dtype: torch.dtype, relative_error: float, seed: int, scale: float) -> None:
    x = random(16, 16, seed=seed, scale=scale).detach()
    large = x.abs() > x.abs().max() * 2**-6  # far smaller ones may be subnormal
    assert ((rounded(x, dtype) - x).abs() <= relative_error * 1.001 * x.abs())[large].all()


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_the_largest_magnitude_fits_exactly(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.003, -0.7]])
    eight, scale = quantize(x, dtype)
    assert eight.float()[0, 1] == -torch.finfo(dtype).max
    assert scale.dtype == torch.float32
    assert rounded(x, dtype)[0, 1].item() == pytest.approx(-0.7)


def test_zeros_stay_zero() -> None:
    eight, scale = quantize(torch.zeros(4, 4), E4M3)
    assert not eight.float().any()
    assert scale.isfinite()


# ---------------------------------------------------------------------- the layer


def test_forward_and_backward_are_products_of_the_rounded_tensors() -> None:
    x, weight, cotangent = random(32, 128), random(256, 128, seed=1, scale=0.1), random(32, 256, seed=2, scale=1e-3).detach()
    y = fp8_linear(x, weight)
    dx, dw = torch.autograd.grad(y, (x, weight), cotangent)
    x8, w8, g8 = rounded(x, E4M3), rounded(weight, E4M3), rounded(cotangent, E5M2)
    for ours, exact in ((y, x8 @ w8.T), (dx, g8 @ w8), (dw, g8.T @ x8)):
        assert (ours.double() - exact).norm() < 1e-5 * exact.norm()


def test_it_is_near_the_exact_layer() -> None:
    x, weight = random(4, 16, 128), random(256, 128, seed=1, scale=0.1)
    cotangent = random(4, 16, 256, seed=2).detach()
    ours, exact = fp8_linear(x, weight), linear(x, weight)
    results = zip(
        (ours, *torch.autograd.grad(ours, (x, weight), cotangent)),
        (exact, *torch.autograd.grad(exact, (x, weight), cotangent)),
        strict=True,
    )
    for mine, theirs in results:
        assert 0 < (mine - theirs).norm() < 0.1 * theirs.norm()


def test_dtypes_of_activation_and_master_weight_are_kept() -> None:
    x, weight = random(4, 16, 128).detach().bfloat16().requires_grad_(), random(256, 128, seed=1)
    y = fp8_linear(x, weight)
    assert (y.dtype, y.shape) == (torch.bfloat16, (4, 16, 256))
    assert [g.dtype for g in torch.autograd.grad(y.sum(), (x, weight))] == [torch.bfloat16, torch.float32]


def test_8_bit_tensors_are_what_is_kept_for_the_backward() -> None:
    kept: list[torch.dtype] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.dtype), t)[1], lambda t: t):
        fp8_linear(random(16, 128), random(128, 128, seed=1))
    assert kept.count(E4M3) == 2
    assert set(kept) == {E4M3, torch.float32}, "beside the two scales"


# ---------------------------------------------------------------------- when it is used


@pytest.mark.parametrize(
    ("rows", "shape", "yes"),
    [(16, (128, 128), True), (16, (256, 130), False), (16, (112, 512), False), (16, (12, 128), False), (17, (128, 128), False)],
)
def test_only_aligned_and_large_layers_qualify(rows: int, shape: tuple[int, int], yes: bool) -> None:
    assert qualifies(torch.empty(rows, shape[1]), torch.empty(shape)) is yes


def test_training_uses_8_bits_and_evaluation_does_not() -> None:
    x, weight = random(16, 128), random(128, 128, seed=1)
    exact = linear(x, weight)
    assert not torch.equal(fp8_when_training(x, weight), exact)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(fp8_when_training(x, weight), exact)


def test_a_model_scores_the_same_with_and_without_it_and_trains_differently() -> None:
    dial = Dial(vocab_size=256, sequence_len=32, tokens_per_parameter=1)
    tokens = torch.randint(256, (2, 33), generator=torch.Generator().manual_seed(0))
    models = []
    for fp8 in (False, True):
        config = TrainConfig.from_depth(2, dial, fp8=fp8)
        model = build_model(config, baseline_ops(config, torch.device("cpu")))
        model.init_weights(torch.Generator().manual_seed(0))
        model(tokens[:, :-1], tokens[:, 1:]).backward()
        models.append(model)
    plain, eight = models
    with torch.no_grad():
        assert torch.equal(plain(tokens), eight(tokens))
    difference = (plain.lm_head.grad - eight.lm_head.grad).norm() / plain.lm_head.grad.norm()
    assert 0.001 < difference < 0.1


def test_a_device_without_8_bit_products_is_refused() -> None:
    require_fp8(torch.device("cpu"))
    with pytest.raises(Fp8UnavailableError, match="set fp8 = false"):
        require_fp8(torch.device("mps"))


def test_the_compiler_traces_through_it() -> None:
    x, weight = random(16, 128), random(128, 128, seed=1)
    compiled = torch.compile(fp8_when_training, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, weight), fp8_when_training(x, weight))
