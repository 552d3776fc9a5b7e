"""Sampling text from a trained model: read the prompt once, copy what was read to all samples, then decode one token at a time."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from baseline.attention import dot_product_attention, visible
from baseline.config import TrainConfig


def generate(
    model: nn.Module,
    prompt: Sequence[int],
    *,
    samples: int = 1,
    max_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[list[int]]:
    """Continue `prompt` in `samples` independent ways; yields one column of `samples` tokens at a time, `max_tokens` columns in all.

    Tokens are drawn from softmax(logits / temperature) over the `top_k` likeliest (None: all); temperature 0 takes the likeliest. The
    same seed gives the same tokens on the same device. A model whose `forward` takes no `cache` reads everything anew for every token.

    Raises ValueError, naming the argument, before anything runs.
    """
    problems = {
        "prompt": not prompt and "it is empty; give at least one token, such as the beginning-of-sequence token",
        "samples": samples < 1 and f"{samples}; it must be at least 1",
        "max_tokens": max_tokens < 0 and f"{max_tokens}; it must be at least 0",
        "temperature": not 0 <= temperature < float("inf") and f"{temperature}; it must be finite and at least 0",
        "top_k": top_k is not None and top_k < 1 and f"{top_k}; it must be at least 1, or None for all tokens",
    }
    for name, problem in problems.items():
        if problem:
            raise ValueError(f"{name}: {problem}")
    return _columns(model, prompt, samples, max_tokens, temperature, top_k, seed)


@torch.inference_mode()
def _columns(
    model: nn.Module, prompt: Sequence[int], samples: int, max_tokens: int, temperature: float, top_k: int | None, seed: int
) -> Iterator[list[int]]:
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    tokens = torch.tensor([prompt], device=device)
    cached = "cache" in inspect.signature(model.forward).parameters
    reader = CachedReader(model, tokens, samples, max_tokens) if cached else Reader(model, tokens, samples)
    for produced in range(max_tokens):
        column = draw(reader.logits, temperature, top_k, generator)
        yield column.tolist()
        if produced + 1 < max_tokens:
            reader.append(column)


def draw(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> Tensor:
    """One token per row: logits (R, V) -> (R,) int64."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    likeliest, tokens = logits.topk(min(top_k or logits.shape[-1], logits.shape[-1]), dim=-1)
    choice = torch.multinomial((likeliest / temperature).softmax(dim=-1), 1, generator=generator)
    return tokens.gather(1, choice)[:, 0]


class Reader:
    """Reads the whole sequences for each next token. Works with any model."""

    def __init__(self, model: nn.Module, prompt: Tensor, samples: int) -> None:
        self.model = model
        self.tokens = prompt.repeat(samples, 1)
        self.logits: Tensor = model(self.tokens)[:, -1]
        """(samples, V): of the token that comes next."""

    def append(self, column: Tensor) -> None:
        """Add one token (samples,) to each sequence."""
        self.tokens = torch.cat([self.tokens, column[:, None]], dim=1)
        self.logits = self.model(self.tokens)[:, -1]


class CachedReader:
    """Reads the prompt once for all samples, then only the new tokens."""

    def __init__(self, model: nn.Module, prompt: Tensor, samples: int, max_tokens: int) -> None:
        config = model.config
        assert isinstance(config, TrainConfig)
        self.model: nn.Module = model
        cache = Cache(config, rows=1, capacity=prompt.shape[1] + max_tokens, device=prompt.device)
        self.logits: Tensor = model(prompt, cache=cache)[:, -1].repeat(samples, 1)
        self.cache: Cache = cache.replicated(samples)

    def append(self, column: Tensor) -> None:
        self.logits = self.model(column[:, None], cache=self.cache)[:, -1]


class Cache:
    """What later tokens need of earlier ones: keys and values of every layer, and the last embedding, for smear."""

    def __init__(self, config: TrainConfig, rows: int, capacity: int, device: torch.device) -> None:
        shape = (config.depth, rows, capacity, config.num_kv_heads, config.head_dim)
        self.config = config
        self.capacity = capacity
        """Most tokens per row."""
        self.length = 0
        """Tokens that all layers have seen."""
        self.keys = torch.zeros(shape, dtype=getattr(torch, config.dtype), device=device)
        self.values = torch.zeros_like(self.keys)
        self.last_embedding: Tensor | None = None

    def shifted(self, x: Tensor) -> Tensor:
        """Embeddings x (R, T, C) one position later: the last one seen before comes first, or zeros at the start of the sequence."""
        first = torch.zeros_like(x[:, :1]) if self.last_embedding is None else self.last_embedding
        self.last_embedding = x[:, -1:]
        return torch.cat([first, x[:, :-1]], dim=1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """Keep the new tokens' k and v (R, T, Hkv, D) and let q (R, T, H, D) attend to all they may see -> (R, T, H, D)."""
        end = self.length + q.shape[1]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens per row, and {end} were given; create it with a larger capacity")
        self.keys[layer, :, self.length : end] = k
        self.values[layer, :, self.length : end] = v
        reach = slice(0 if window < 0 else max(0, self.length - window), end)
        positions = torch.arange(end, device=q.device)
        mask = visible(positions[self.length :], positions[reach], window)
        return dot_product_attention(q, self.keys[layer, :, reach], self.values[layer, :, reach], mask)

    def advance(self, tokens: int) -> None:
        """Called by the model when every layer has attended."""
        self.length += tokens

    def replicated(self, rows: int) -> Cache:
        """A cache with the single row of this one copied to `rows` rows."""
        copy = Cache(self.config, rows, self.capacity, self.keys.device)
        copy.length = self.length
        copy.keys.copy_(self.keys)
        copy.values.copy_(self.values)
        if self.last_embedding is not None:
            copy.last_embedding = self.last_embedding.repeat(rows, 1, 1)
        return copy
