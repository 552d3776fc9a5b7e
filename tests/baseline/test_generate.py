"""Generation with a cache gives what reading everything anew gives, token by token; and sampling does what its arguments say."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from baseline.config import Dial, TrainConfig
from baseline.generate import Cache, Reader, draw, generate
from baseline.model import GPT, build_model
from baseline.ops import baseline_ops

CPU = torch.device("cpu")
TINY = Dial(vocab_size=90, sequence_len=64, tokens_per_parameter=1, aspect_ratio=16, head_dim=16, short_window_multiple=8)


def trained(**changes: Any) -> GPT:
    """A model with windows of 16 tokens in which all components speak, as after training."""
    config = TrainConfig.from_depth(4, TINY, **changes)
    model = build_model(config, baseline_ops(config, CPU))
    generator = torch.Generator().manual_seed(0)
    model.init_weights(generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("output", "down", "lm_head", "gate")):
                parameter.normal_(0.0, 0.3, generator=generator)
            if name == "smear_scale":
                parameter.fill_(0.5)
    return model


MODEL = trained()


def tokens_of(rows: int, length: int) -> Tensor:
    return torch.randint(90, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "changes", [{}, {"num_kv_heads": 2}, {"smear": False}, {"window_pattern": "L"}, {"value_embeddings": False, "backout": False}], ids=str
)
@torch.no_grad()
def test_cached_logits_equal_those_of_the_whole_sequence(changes: dict[str, Any]) -> None:
    model, tokens = trained(**changes), tokens_of(2, 40)
    cache = Cache(model.config, rows=2, capacity=40, device=CPU)
    parts = [model(tokens[:, :7], cache=cache), *(model(tokens[:, t : t + 1], cache=cache) for t in range(7, 40))]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), rtol=1e-4, atol=1e-4)


@given(cuts=st.sets(st.integers(1, 39)))
@settings(max_examples=15, deadline=None)
def test_a_sequence_may_arrive_in_pieces_of_any_size(cuts: set[int]) -> None:
    tokens = tokens_of(1, 40)
    cache = Cache(MODEL.config, rows=1, capacity=40, device=CPU)
    edges = [0, *sorted(cuts), 40]
    with torch.no_grad():
        parts = [MODEL(tokens[:, start:end], cache=cache) for start, end in pairwise(edges)]
        torch.testing.assert_close(torch.cat(parts, dim=1), MODEL(tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings_", [{"temperature": 0.0}, {"temperature": 0.8, "top_k": 5}, {}], ids=str)
def test_generation_equals_the_naive_way_token_by_token(settings_: dict[str, Any]) -> None:
    prompt, samples, max_tokens, seed = [3, 1, 4, 1, 5], 3, 40, 7
    columns = list(generate(MODEL, prompt, samples=samples, max_tokens=max_tokens, seed=seed, **settings_))
    assert [len(column) for column in columns] == [samples] * max_tokens
    generator = torch.Generator().manual_seed(seed)
    sequences = torch.tensor([prompt] * samples)
    for column in columns:
        with torch.no_grad():
            logits = MODEL(sequences)[:, -1]
        expected = draw(logits, settings_.get("temperature", 1.0), settings_.get("top_k"), generator)
        assert column == expected.tolist()
        sequences = torch.cat([sequences, expected[:, None]], dim=1)


def test_a_model_without_a_cache_generates_the_same() -> None:
    class Plain(nn.Module):
        """Keeps only what the contract asks of a model."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = MODEL

        def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
            return self.inner(tokens, targets)

    assert list(generate(Plain(), [5, 6], samples=2, max_tokens=12)) == list(generate(MODEL, [5, 6], samples=2, max_tokens=12))


def test_the_seed_decides_and_nothing_else() -> None:
    first = list(generate(MODEL, [1], samples=2, max_tokens=10, seed=3))
    torch.manual_seed(99)
    assert list(generate(MODEL, [1], samples=2, max_tokens=10, seed=3)) == first
    assert list(generate(MODEL, [1], samples=2, max_tokens=10, seed=4)) != first


def test_samples_differ_from_each_other() -> None:
    rows = list(zip(*generate(MODEL, [1], samples=4, max_tokens=10), strict=True))
    assert len(set(rows)) == 4


def test_columns_come_one_at_a_time() -> None:
    reads: list[int] = []
    hook = MODEL.register_forward_hook(lambda module, arguments, output: reads.append(arguments[0].shape[1]))
    try:
        columns = generate(MODEL, [1, 2, 3], max_tokens=50)
        next(columns)
        next(columns)
    finally:
        hook.remove()
    assert reads == [3, 1], "the prompt once, then one token"


def test_no_tokens_asked_for_none_given() -> None:
    assert list(generate(MODEL, [1], max_tokens=0)) == []


def test_reader_keeps_what_it_was_given() -> None:
    with torch.no_grad():
        reader = Reader(MODEL, torch.tensor([[1, 2]]), samples=2)
        reader.append(torch.tensor([7, 8]))
    assert reader.tokens.tolist() == [[1, 2, 7], [1, 2, 8]]


# ---------------------------------------------------------------------- drawing


def test_temperature_zero_takes_the_likeliest() -> None:
    assert draw(torch.tensor([[0.0, 2.0, 1.0]]), 0, None, torch.Generator()).tolist() == [1]


def test_only_the_top_k_are_drawn() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0]]).expand(500, 4)
    assert set(draw(logits, 5.0, 2, torch.Generator().manual_seed(0)).tolist()) == {0, 2}
    assert set(draw(logits, 5.0, 100, torch.Generator().manual_seed(0)).tolist()) == {0, 1, 2, 3}


def test_temperature_divides_the_logits() -> None:
    logits = torch.tensor([[1.0, 0.0]]).expand(20_000, 2)
    for temperature in (0.5, 2.0):
        drawn = draw(logits, temperature, None, torch.Generator().manual_seed(0)).float().mean().item()
        assert drawn == pytest.approx(torch.sigmoid(torch.tensor(-1 / temperature)).item(), abs=0.012)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": []}, "prompt: it is empty"),
        ({"samples": 0}, "samples: 0"),
        ({"max_tokens": -1}, "max_tokens: -1"),
        ({"temperature": -0.5}, "temperature: -0.5"),
        ({"temperature": float("nan")}, "temperature: nan"),
        ({"top_k": 0}, "top_k: 0"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_runs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(MODEL, **{"prompt": [1], **changes})


def test_a_full_cache_says_how_much_it_holds() -> None:
    cache = Cache(MODEL.config, rows=1, capacity=4, device=CPU)
    with torch.no_grad(), pytest.raises(ValueError, match="holds 4 tokens per row, and 5 were given"):
        MODEL(tokens_of(1, 5), cache=cache)
