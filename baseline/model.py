"""The reference transformer. Read `GPT.forward` first; everything is below it in the order the data flows.

A GPT-2-grade decoder in the style of nanochat: RMSNorm without parameters, rotary positions, QK-norm, ReLU² MLP, sliding windows,
value embeddings, smeared embeddings, learned residual scales, backout and capped logits. Each can be turned off in `TrainConfig`.

To change something, subclass and override a method: `GPT.build_block` to use another block, `Block.forward`, `Attention.forward`,
`MLP.forward`, or one of GPT's steps `embed`, `trunk`, `head`. Parameters that a subclass adds need `init_weights` and perhaps `role_of`.

B rows, T tokens, C width, H heads, Hkv key/value heads, D head dimension, V padded vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baseline.config import SMEAR_GATE_CHANNELS, VALUE_GATE_CHANNELS, TrainConfig
from baseline.contract import Ops, Role
from baseline.ops import softcapped

if TYPE_CHECKING:
    from baseline.generate import Cache


def build_model(config: TrainConfig, ops: Ops) -> GPT:
    """The baseline's model, on torch's default device (meta included); `init_weights` writes its parameters."""
    return GPT(config, ops)


class Positions(NamedTuple):
    """What every layer needs to know about where its tokens stand."""

    cos: Tensor
    """(T, 1, D/2), in the compute dtype."""
    sin: Tensor
    cache: Cache | None
    """Keys and values of earlier tokens while generating; None in training and scoring."""


class GPT(nn.Module):
    """Tokens (B, T) to the mean loss or to logits. Fulfils `contract.Model`."""

    def __init__(self, config: TrainConfig, ops: Ops) -> None:
        super().__init__()
        self.config, self.ops = config, ops
        self.dtype = getattr(torch, config.dtype)
        """Compute dtype: of activations and of the stored embeddings. All other parameters are float32 masters."""
        vocab, width, depth = config.padded_vocab_size, config.width, config.depth
        with_value = [layer for layer in range(depth) if config.has_value_embedding(layer)]
        self.embedding = _parameter(vocab, width, dtype=self.dtype)
        self.smear_gate = _parameter(1, SMEAR_GATE_CHANNELS) if config.smear else None
        self.smear_scale = _parameter(1) if config.smear else None
        self.value_embeddings = nn.ParameterDict(
            {str(layer): _parameter(vocab, config.num_kv_heads * config.head_dim, dtype=self.dtype) for layer in with_value}
        )
        self.resid_scales = _parameter(depth) if config.resid_scales else None
        self.x0_scales = _parameter(depth) if config.x0_scales else None
        self.blocks = nn.ModuleList(self.build_block(layer) for layer in range(depth))
        self.backout_scale = _parameter(1) if config.backout else None
        self.lm_head = _parameter(vocab, width)

    def build_block(self, layer: int) -> Block:
        return Block(layer, self.config, self.ops)

    # ------------------------------------------------------------------ forward

    def forward(self, tokens: Tensor, targets: Tensor | None = None, cache: Cache | None = None, wanted: Tensor | None = None) -> Tensor:
        """tokens (B, T) int64. With targets (B, T): mean loss in nats, float32 scalar. Without: logits (B, T, vocab_size) float32.

        With a cache, `tokens` continue the sequences that it holds, and are added to it. With `wanted` (B, T) bool, only the logits of
        those positions are computed: (n, vocab_size), in row-major order.
        """
        x = self.embed(tokens, cache)
        x = self.trunk(x, tokens, cache)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return self.head(x if wanted is None else x[wanted], targets)

    def embed(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """tokens (B, T) -> (B, T, C): normalised embeddings, each with a gated share of the one before it (smear: a cheap bigram)."""
        x = self.ops.rms_norm(F.embedding(tokens, self.embedding))
        if self.smear_gate is None or self.smear_scale is None:
            return x
        before = _shifted(x) if cache is None else cache.shifted(x)
        gate = self.smear_scale[0] * torch.sigmoid(self.ops.linear(x[..., :SMEAR_GATE_CHANNELS], self.smear_gate))
        return torch.addcmul(x, gate, before)

    def trunk(self, x: Tensor, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Embedded tokens (B, T, C) -> final hidden states (B, T, C), normalised."""
        positions = self.positions(tokens, cache)
        x0 = halfway = x
        for layer, block in enumerate(self.blocks):
            x = block(self.residual(layer, x, x0), self.value_embedding(layer, tokens), positions)
            if layer == self.config.depth // 2:
                halfway = x
        if self.backout_scale is not None:
            # What the first half wrote for the second half to read is of no use to the prediction.
            x = x - self.backout_scale[0] * halfway
        return self.ops.rms_norm(x)

    def positions(self, tokens: Tensor, cache: Cache | None) -> Positions:
        """Rotary angles t · base^(-2i/D) for the positions of `tokens`. Computed anew each time: no table, and so no longest sequence."""
        start = 0 if cache is None else cache.length
        steps = torch.arange(start, start + tokens.shape[1], dtype=torch.float32, device=tokens.device)
        half = torch.arange(0, self.config.head_dim, 2, dtype=torch.float32, device=tokens.device)
        angles = torch.outer(steps, self.config.rope_base ** (-half / self.config.head_dim))[:, None, :]
        return Positions(angles.cos().to(self.dtype), angles.sin().to(self.dtype), cache)

    def residual(self, layer: int, x: Tensor, x0: Tensor) -> Tensor:
        """What layer `layer` reads and adds to: the stream, rescaled, and a share of the embedding x0. All (B, T, C)."""
        if self.resid_scales is not None:
            x = x * self.resid_scales[layer]
        if self.x0_scales is not None:
            x = torch.addcmul(x, x0, self.x0_scales[layer])
        return x

    def value_embedding(self, layer: int, tokens: Tensor) -> Tensor | None:
        """(B, T, Hkv·D) from the layer's own table, or None where it has none."""
        name = str(layer)
        return F.embedding(tokens, self.value_embeddings[name]) if name in self.value_embeddings else None

    def head(self, x: Tensor, targets: Tensor | None) -> Tensor:
        """Hidden states (B, T, C) -> the mean loss; without targets (..., C) -> logits (..., vocab_size)."""
        vocab, softcap = self.config.vocab_size, self.config.softcap
        if targets is None:
            return softcapped(self.ops.linear(x, self.lm_head)[..., :vocab].float(), softcap)
        return self.ops.cross_entropy(x.flatten(0, 1), self.lm_head, targets.flatten(), vocab, softcap)

    # ------------------------------------------------------------------ initialisation

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Write every parameter, in a fixed order, from `generator` (on any device) alone. s = √3 / √C gives a standard deviation of 1/√C.

        embedding                    N(0, 0.8²)
        value embeddings             U(-s, s)
        query, key, value            U(-s, s)
        MLP up                       U(-0.4 s, 0.4 s)
        attention output, MLP down   0: every block starts as the identity
        value gate, smear gate       U(0, 0.02)
        lm_head                      N(0, 0.001²)
        resid scales                 1.15 at the first layer, linearly to 1.05 at the last
        x0 scales                    0.20 at the first layer, linearly to 0.05 at the last
        smear scale, backout scale   0, 0.2
        """
        draw = Draw(generator)
        span = (3 / self.config.width) ** 0.5
        draw.normal(self.embedding, 0.8)
        draw.normal(self.lm_head, 0.001)
        for table in self.value_embeddings.values():
            draw.uniform(table, -span, span)
        for block in self.blocks:
            cast(Block, block).init_weights(draw, span)
        last = max(self.config.depth - 1, 1)
        ramp = torch.arange(self.config.depth) / last
        if self.resid_scales is not None:
            self.resid_scales.copy_(1.15 - 0.10 * ramp)
        if self.x0_scales is not None:
            self.x0_scales.copy_(0.20 - 0.15 * ramp)
        if self.smear_gate is not None and self.smear_scale is not None:
            draw.uniform(self.smear_gate, 0.0, 0.02)
            self.smear_scale.zero_()
        if self.backout_scale is not None:
            self.backout_scale.fill_(0.2)

    # ------------------------------------------------------------------ accounting

    def role_of(self, name: str, parameter: nn.Parameter) -> Role:
        """What the parameter of that name is for: two-dimensional ones under the blocks are matrices, unknown ones are gates."""
        room = name.split(".")[0]
        if room == "blocks" and parameter.ndim == 2:
            return "matrix"
        return _ROLES.get(room, "gate")

    def roles(self) -> Mapping[Role, list[nn.Parameter]]:
        """Every parameter under exactly one role."""
        roles: dict[Role, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            roles.setdefault(self.role_of(name, parameter), []).append(parameter)
        return roles

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters: of each room, of the scaling laws' P ("scaling": block and lm_head), and in total."""
        counts = dict.fromkeys(("block", "lm_head", "embedding", "value_embedding", "other"), 0)
        rooms = {"blocks": "block", "lm_head": "lm_head", "embedding": "embedding", "value_embeddings": "value_embedding"}
        for name, parameter in self.named_parameters():
            counts[rooms.get(name.split(".")[0], "other")] += parameter.numel()
        return {**counts, "scaling": counts["block"] + counts["lm_head"], "total": sum(counts.values())}

    def flops_per_token(self) -> float:
        """Training FLOPs per token: 6 per weight in a matrix product (2 forward, 4 backward), and 12·H·D·window per layer of attention.

        Embedding look-ups are free. A full window counts as T keys, though the causal mean is half of that (PaLM's convention).
        """
        c = self.config
        tables = {id(p) for role in ("embedding", "value_embedding") for p in self.roles().get(role, [])}
        weights = sum(p.numel() for p in self.parameters() if p.ndim == 2 and id(p) not in tables)
        keys = sum(c.sequence_len if window < 0 else min(window, c.sequence_len) for window in c.windows())
        return float(6 * weights + 12 * c.num_heads * c.head_dim * keys)


class Block(nn.Module):
    """Attention, then MLP; each reads the normalised stream and adds to it."""

    def __init__(self, layer: int, config: TrainConfig, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.attention = Attention(layer, config, ops)
        self.mlp = MLP(config, ops)

    def forward(self, x: Tensor, value_embedding: Tensor | None, positions: Positions) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        x = x + self.attention(self.ops.rms_norm(x), value_embedding, positions)
        y: Tensor = x + self.mlp(self.ops.rms_norm(x))
        return y

    def init_weights(self, draw: Draw, span: float) -> None:
        self.attention.init_weights(draw, span)
        self.mlp.init_weights(draw, span)


class Attention(nn.Module):
    """Causal self-attention, with rotary positions, normalised queries and keys, and values mixed with an embedding of the token."""

    def __init__(self, layer: int, config: TrainConfig, ops: Ops) -> None:
        super().__init__()
        self.layer, self.config, self.ops = layer, config, ops
        self.window = config.windows()[layer]
        queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.query = _parameter(queries, config.width)
        self.key = _parameter(keys, config.width)
        self.value = _parameter(keys, config.width)
        self.output = _parameter(config.width, queries)
        self.value_gate = _parameter(config.num_kv_heads, VALUE_GATE_CHANNELS) if config.has_value_embedding(layer) else None

    def forward(self, x: Tensor, value_embedding: Tensor | None, positions: Positions) -> Tensor:
        """x (B, T, C), normalised -> (B, T, C)."""
        c, ops = self.config, self.ops
        rows, length, _ = x.shape
        q = ops.linear(x, self.query).view(rows, length, c.num_heads, c.head_dim)
        k = ops.linear(x, self.key).view(rows, length, c.num_kv_heads, c.head_dim)
        v = ops.linear(x, self.value).view(rows, length, c.num_kv_heads, c.head_dim)
        if value_embedding is not None:
            v = self.mix_values(v, value_embedding.view_as(v), x)
        q, k = rotate(q, positions), rotate(k, positions)
        if c.qk_norm:
            q, k = ops.rms_norm(q), ops.rms_norm(k)
        q = q * c.qk_scale**2  # queries and keys each times qk_scale; the scores are the same
        cache = positions.cache
        y = ops.attention(q, k, v, self.window) if cache is None else cache.attend(self.layer, q, k, v, self.window)
        return ops.linear(y.flatten(2), self.output)

    def mix_values(self, v: Tensor, embedding: Tensor, x: Tensor) -> Tensor:
        """v + g · embedding, both (B, T, Hkv, D), with one gate g in (0, 3) per key/value head."""
        assert self.value_gate is not None
        gate = 3 * torch.sigmoid(self.ops.linear(x[..., :VALUE_GATE_CHANNELS], self.value_gate))
        return torch.addcmul(v, gate[..., None], embedding)

    def init_weights(self, draw: Draw, span: float) -> None:
        for matrix in (self.query, self.key, self.value):
            draw.uniform(matrix, -span, span)
        self.output.zero_()
        if self.value_gate is not None:
            draw.uniform(self.value_gate, 0.0, 0.02)


class MLP(nn.Module):
    """C -> 4C -> C."""

    def __init__(self, config: TrainConfig, ops: Ops) -> None:
        super().__init__()
        self.config, self.ops = config, ops
        self.up = _parameter(4 * config.width, config.width)
        self.down = _parameter(config.width, 4 * config.width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C), normalised -> (B, T, C)."""
        if self.config.activation == "relu_squared":
            return self.ops.relu_squared_mlp(x, self.up, self.down)
        return self.ops.linear(F.gelu(self.ops.linear(x, self.up)), self.down)

    def init_weights(self, draw: Draw, span: float) -> None:
        draw.uniform(self.up, -0.4 * span, 0.4 * span)
        self.down.zero_()


def rotate(x: Tensor, positions: Positions) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864): x (B, T, H, D) with dimension i paired with i + D/2, each pair turned by -θ."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = positions.cos, positions.sin
    return torch.cat([first * cos + second * sin, second * cos - first * sin], dim=-1)


class Draw:
    """Fills parameters from one generator. Numbers are drawn in float32 on the generator's device, then cast and moved to the parameter's:
    the same generator gives the same weights whatever device and dtype they live in."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def normal(self, parameter: Tensor, std: float) -> None:
        parameter.copy_(self._empty(parameter).normal_(0.0, std, generator=self.generator))

    def uniform(self, parameter: Tensor, low: float, high: float) -> None:
        parameter.copy_(self._empty(parameter).uniform_(low, high, generator=self.generator))

    def _empty(self, parameter: Tensor) -> Tensor:
        return torch.empty(parameter.shape, dtype=torch.float32, device=self.generator.device)


def _parameter(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    """An unwritten parameter; `init_weights` fills it."""
    return nn.Parameter(torch.empty(shape, dtype=dtype))


def _shifted(x: Tensor) -> Tensor:
    """x (B, T, C) one position later, zeros first."""
    return F.pad(x, (0, 0, 1, -1))


_ROLES: dict[str, Role] = {
    "embedding": "embedding",
    "value_embeddings": "value_embedding",
    "lm_head": "lm_head",
    "resid_scales": "resid_scale",
    "x0_scales": "x0_scale",
}
