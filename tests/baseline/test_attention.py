"""Every attention backend that this machine has, against the masked softmax; and which backend is chosen where."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baseline.attention import (
    AttentionBackend,
    AttentionBackendError,
    AttentionFn,
    FlexWindows,
    check_against_reference,
    choose_attention,
    dot_product_attention,
    masked_attention,
    sdpa_attention,
    visible,
)
from baseline.config import Dial, TrainConfig
from baseline.flash import register_flash_operators

CPU = torch.device("cpu")
CONFIG = TrainConfig.from_depth(2, Dial(vocab_size=64, sequence_len=64, tokens_per_parameter=1, head_dim=32, short_window_multiple=16))


def inputs(length: int, heads: int = 4, kv_heads: int = 4, rows: int = 2, dim: int = 8, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, length, h, dim) for h in (heads, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def with_gradients(attention: AttentionFn, tensors: list[Tensor], window: int) -> list[Tensor]:
    y = attention(*tensors, window)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return [y, *torch.autograd.grad(y, tensors, cotangent)]


# ---------------------------------------------------------------------- the reference itself


def test_a_query_sees_itself_and_the_window_before_it() -> None:
    positions = torch.arange(5)
    assert visible(positions, positions, 2).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]
    assert torch.equal(visible(positions, positions, -1), torch.ones(5, 5, dtype=torch.bool).tril())


def test_the_reference_averages_what_is_visible_when_all_scores_are_equal() -> None:
    q, k = torch.zeros(1, 6, 1, 4), torch.zeros(1, 6, 1, 4)
    v = torch.arange(6.0).view(1, 6, 1, 1).expand(1, 6, 1, 4)
    assert masked_attention(q, k, v, 2)[0, :, 0, 0].tolist() == pytest.approx([0, 0.5, 1, 2, 3, 4])


def test_the_reference_gives_each_group_of_query_heads_its_own_key_head() -> None:
    q, k, v = inputs(20, heads=4, kv_heads=2)
    y = masked_attention(q, k, v, 5)
    for head in range(4):
        alone = masked_attention(q[:, :, head : head + 1], *(x[:, :, head // 2 : head // 2 + 1] for x in (k, v)), 5)
        torch.testing.assert_close(y[:, :, head : head + 1], alone)


# ---------------------------------------------------------------------- backends


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("window", [-1, 0, 1, 63, 64, 100, 1000])
@pytest.mark.parametrize("length", [1, 64, 128, 201])
def test_sdpa_agrees_with_the_reference(length: int, window: int, kv_heads: int) -> None:
    tensors = inputs(length, kv_heads=kv_heads)
    for ours, expected in zip(
        with_gradients(sdpa_attention, tensors, window), with_gradients(masked_attention, tensors, window), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 300), window=st.integers(-1, 320), heads=st.sampled_from([(1, 1), (3, 1), (4, 2)]))
def test_sdpa_agrees_at_any_length_and_window(length: int, window: int, heads: tuple[int, int]) -> None:
    tensors = inputs(length, *heads, rows=1, dim=4)
    torch.testing.assert_close(sdpa_attention(*tensors, window), masked_attention(*tensors, window), rtol=1e-4, atol=1e-5)


def test_sdpa_under_a_window_never_builds_the_square_of_the_length() -> None:
    class LargestMask(torch.utils._python_dispatch.TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = function(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.dtype == torch.bool:
                self.elements = max(self.elements, out.numel())
            return out

    with LargestMask() as masks, torch.no_grad():
        sdpa_attention(*inputs(1024, rows=1, heads=1, kv_heads=1), 64)
    assert masks.elements == 64 * 128


# Forward only: FlexAttention has no backward on a CPU. On a GPU the choice of a backend is what tests it (see `FLASH_TOLERANCE`).
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("window", [-1, 0, 16, 150])
@pytest.mark.parametrize("length", [128, 201])
def test_flex_agrees_with_the_reference(length: int, window: int, kv_heads: int) -> None:
    tensors = [x.detach() for x in inputs(length, kv_heads=kv_heads, dim=16)]
    flex = FlexWindows(CPU, length, [window])
    torch.testing.assert_close(flex(*tensors, window), masked_attention(*tensors, window), rtol=1e-4, atol=1e-5)


def test_flex_leaves_other_lengths_to_sdpa() -> None:
    tensors = inputs(50)
    results = zip(with_gradients(FlexWindows(CPU, 128, [16]), tensors, 16), with_gradients(masked_attention, tensors, 16), strict=True)
    for ours, expected in results:
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_one_query_may_attend_to_more_keys_than_there_are_queries() -> None:
    q, k, v = inputs(10, kv_heads=2)
    whole = masked_attention(q, k, v, 3)
    mask = visible(torch.arange(9, 10), torch.arange(4, 10), 3)
    torch.testing.assert_close(dot_product_attention(q[:, 9:], k[:, 4:], v[:, 4:], mask), whole[:, 9:])


# ---------------------------------------------------------------------- operators for the compiler


@pytest.fixture(scope="module")
def opaque_attention() -> AttentionFn:
    """Attention registered as a pair of opaque operators, the way a kernel that cannot be traced is."""

    @torch.library.custom_op("baseline_test::forward", mutates_args=())
    def forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> tuple[torch.Tensor, torch.Tensor]:
        scores = _scores(q, k, window)
        return torch.einsum("bhts,bshd->bthd", scores.softmax(-1), _per_query_head(v, q)).contiguous(), scores.logsumexp(-1)

    @torch.library.custom_op("baseline_test::backward", mutates_args=())
    def backward(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, grad: torch.Tensor, lse: torch.Tensor, window: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        weights = (_scores(q, k, window) - lse[..., None]).exp()
        d_weights = torch.einsum("bthd,bshd->bhts", grad, _per_query_head(v, q))
        d_scores = weights * (d_weights - (grad * out).sum(-1).mT[..., None]) * q.shape[-1] ** -0.5
        dq = torch.einsum("bhts,bshd->bthd", d_scores, _per_query_head(k, q))
        dk = torch.einsum("bhts,bthd->bshd", d_scores, q)
        dv = torch.einsum("bhts,bthd->bshd", weights, grad)
        return dq.contiguous(), _per_key_head(dk, k), _per_key_head(dv, v)

    register_flash_operators(forward, backward)
    return lambda q, k, v, window: forward(q, k, v, window)[0]


def _per_query_head(x: Tensor, q: Tensor) -> Tensor:
    return x.repeat_interleave(q.shape[2] // x.shape[2], dim=2)


def _per_key_head(x: Tensor, k: Tensor) -> Tensor:
    return x.unflatten(2, (k.shape[2], -1)).sum(3).contiguous()


def _scores(q: Tensor, k: Tensor, window: int) -> Tensor:
    positions = torch.arange(q.shape[1])
    scores = torch.einsum("bthd,bshd->bhts", q, _per_query_head(k, q)) * q.shape[-1] ** -0.5
    return scores.masked_fill(~visible(positions, positions, window), -torch.inf)


def test_opaque_operators_have_the_gradients_and_shapes_they_promise(opaque_attention: AttentionFn) -> None:
    tensors = inputs(24, kv_heads=2)
    results = zip(with_gradients(opaque_attention, tensors, 5), with_gradients(masked_attention, tensors, 5), strict=True)
    for ours, expected in results:
        torch.testing.assert_close(ours, expected)
    torch.library.opcheck(torch.ops.baseline_test.forward.default, (*tensors, 5))


def test_opaque_operators_do_not_break_the_graph(opaque_attention: AttentionFn) -> None:
    tensors = inputs(24)
    compiled = torch.compile(opaque_attention, backend="aot_eager", fullgraph=True)
    for ours, expected in zip(with_gradients(compiled, tensors, 5), with_gradients(masked_attention, tensors, 5), strict=True):
        torch.testing.assert_close(ours, expected)


# ---------------------------------------------------------------------- the choice


def test_a_kernel_is_taken_only_if_it_agrees_with_the_reference() -> None:
    check_against_reference(sdpa_attention, CONFIG, CPU)
    with pytest.raises(AttentionBackendError, match="window 64: relative error"):
        check_against_reference(lambda q, k, v, window: sdpa_attention(q, k, v, window - (window > 0)), CONFIG, CPU)
    with pytest.raises(AttentionBackendError, match="window -1: relative error"):
        check_against_reference(lambda q, k, v, window: sdpa_attention(q, k, v, window) * float("nan"), CONFIG, CPU)


def test_a_cpu_takes_sdpa() -> None:
    assert choose_attention(CONFIG, CPU) == AttentionBackend("sdpa", sdpa_attention)


def test_a_backend_can_be_asked_for_by_name() -> None:
    assert choose_attention(CONFIG.with_(attention_backend="masked"), CPU) == AttentionBackend("masked", masked_attention)


@pytest.mark.parametrize(
    ("backend", "dtype", "reason"),
    [
        ("flash", "bfloat16", "FlashAttention needs a CUDA card"),
        ("flash", "float32", "dtype = bfloat16"),
        ("flex", "float32", "backward pass on CUDA only"),
    ],
)
def test_what_cannot_run_here_says_why_and_what_to_set(backend: str, dtype: str, reason: str) -> None:
    with pytest.raises(AttentionBackendError, match=reason) as caught:
        choose_attention(CONFIG.with_(attention_backend=backend, dtype=dtype), CPU)
    assert 'attention_backend = "auto"' in str(caught.value)
