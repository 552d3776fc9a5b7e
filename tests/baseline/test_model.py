"""The model: its size, its initialisation, each component and its switch, and that no token sees a later one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baseline.config import Dial, TrainConfig
from baseline.model import GPT, MLP, Block, Positions, build_model, rotate
from baseline.ops import baseline_ops

CPU = torch.device("cpu")
TINY = Dial(vocab_size=90, sequence_len=64, tokens_per_parameter=1, aspect_ratio=16, head_dim=16, short_window_multiple=8)
SWITCHES: dict[str, Any] = {
    "value_embeddings": False,
    "smear": False,
    "backout": False,
    "x0_scales": False,
    "resid_scales": False,
    "qk_norm": False,
    "qk_scale": 1.0,
    "softcap": 0.0,
    "window_pattern": "L",
    "activation": "gelu",
    "rope_base": 100.0,
}


def config_of(**changes: Any) -> TrainConfig:
    """Four layers of width 64, windows of 16 tokens."""
    return TrainConfig.from_depth(4, TINY, **changes)


def initialised(config: TrainConfig, seed: int = 0) -> GPT:
    model = build_model(config, baseline_ops(config, CPU))
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def awake(config: TrainConfig) -> GPT:
    """A model in which every parameter matters: what starts at zero or next to it is given a size."""
    model = initialised(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("output", "down", "lm_head", "gate")):
                parameter.normal_(0.0, 0.3, generator=generator)
            if name == "smear_scale":
                parameter.fill_(0.5)
    return model


def tokens_of(rows: int = 2, length: int = 48) -> Tensor:
    return torch.randint(90, (rows, length), generator=torch.Generator().manual_seed(2))


def on_meta(depth: int, **changes: Any) -> GPT:
    config = TrainConfig.from_depth(depth, Dial(vocab_size=32_768, sequence_len=2048, tokens_per_parameter=8), **changes)
    with torch.device("meta"):
        return build_model(config, baseline_ops(config, CPU))


# ---------------------------------------------------------------------- size

# depth; millions of parameters in block, lm_head, P, all; FLOPs per token. As nanochat prints them.
SIZES = [
    (12, 84.94, 25.17, 110.1, 286.3, 0.760e9),
    (16, 201.3, 33.6, 234.9, 536.9, 1.585e9),
    (20, 393.2, 41.9, 435.2, 896.5, 2.886e9),
    (22, 523.3, 46.1, 569.5, 1123.2, 3.763e9),
    (24, 679.5, 50.3, 729.8, 1384.1, 4.775e9),
    (26, 863.9, 54.5, 918.4, 1681.8, 5.991e9),
    (28, 1079.0, 58.7, 1137.7, 2018.5, 7.366e9),
    (32, 1610.6, 67.1, 1677.7, 2818.6, 10.77e9),
]


@pytest.mark.parametrize(("depth", "block", "lm_head", "scaling", "total", "flops"), SIZES)
def test_golden_sizes(depth: int, block: float, lm_head: float, scaling: float, total: float, flops: float) -> None:
    model = on_meta(depth)
    counts = model.parameter_counts()
    expected = {"block": block, "lm_head": lm_head, "scaling": scaling, "total": total}
    assert {name: counts[name] / 1e6 for name in expected} == pytest.approx(expected, abs=0.08)
    assert model.flops_per_token() == pytest.approx(flops, rel=6e-4)
    assert counts["total"] == sum(parameter.numel() for parameter in model.parameters())


def test_depth_24_in_full() -> None:
    counts = on_meta(24).parameter_counts()
    assert counts["embedding"] == counts["lm_head"] == 32_768 * 1536
    assert counts["value_embedding"] == 12 * 32_768 * 1536
    assert counts["other"] == 24 + 24 + 24 + 1 + 1, "resid scales, x0 scales, smear gate, smear scale, backout scale"


def test_flops_count_a_window_as_what_it_sees() -> None:
    assert on_meta(24, window_pattern="L").flops_per_token() - on_meta(24).flops_per_token() == 12 * 1536 * 18 * (2048 - 512)


def test_grouped_queries_shrink_keys_values_and_value_embeddings() -> None:
    full, grouped = on_meta(12), on_meta(12, num_kv_heads=2)
    assert grouped.blocks[0].attention.key.shape == (256, 768)
    assert grouped.parameter_counts()["value_embedding"] * 3 == full.parameter_counts()["value_embedding"]


# ---------------------------------------------------------------------- roles


@pytest.mark.parametrize("switch", [None, *SWITCHES])
def test_roles_cover_every_parameter_once(switch: str | None) -> None:
    model = initialised(config_of(**({switch: SWITCHES[switch]} if switch else {})))
    listed = [id(parameter) for parameters in model.roles().values() for parameter in parameters]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(parameter) for parameter in model.parameters()}


def test_each_role_holds_what_its_name_says() -> None:
    model = initialised(config_of())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    roles = {role: [names[id(p)] for p in parameters] for role, parameters in model.roles().items()}
    assert roles.pop("matrix") == [name for name in names.values() if name.startswith("blocks.")]
    assert roles == {
        "embedding": ["embedding"],
        "lm_head": ["lm_head"],
        "value_embedding": ["value_embeddings.1", "value_embeddings.3"],
        "resid_scale": ["resid_scales"],
        "x0_scale": ["x0_scales"],
        "gate": ["smear_gate", "smear_scale", "backout_scale"],
    }


# ---------------------------------------------------------------------- initialisation


def test_init_table() -> None:
    model = initialised(TrainConfig.from_depth(4, Dial(vocab_size=2048, sequence_len=64, tokens_per_parameter=1)))
    span = math.sqrt(3 / 256)
    assert model.embedding.std().item() == pytest.approx(0.8, rel=0.02)
    assert model.lm_head.std().item() == pytest.approx(0.001, rel=0.02)
    block = model.blocks[1]
    for matrix in (model.value_embeddings["1"], block.attention.query, block.attention.key, block.attention.value):
        assert matrix.std().item() == pytest.approx(256**-0.5, rel=0.02)
        assert matrix.abs().max().item() == pytest.approx(span, rel=0.01)
    assert block.mlp.up.abs().max().item() == pytest.approx(0.4 * span, rel=0.01)
    assert not block.attention.output.any()
    assert not block.mlp.down.any()
    for gate in (block.attention.value_gate, model.smear_gate):
        assert 0 <= gate.min().item() < gate.max().item() < 0.02
    assert model.resid_scales.tolist() == pytest.approx([1.15, 1.15 - 0.1 / 3, 1.15 - 0.2 / 3, 1.05])
    assert model.x0_scales.tolist() == pytest.approx([0.20, 0.15, 0.10, 0.05])
    assert (model.smear_scale.item(), model.backout_scale.item()) == pytest.approx((0.0, 0.2))


def test_every_weight_comes_from_the_generator_alone() -> None:
    config = config_of()
    model = initialised(config, seed=7)
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(123)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    model.init_weights(torch.Generator().manual_seed(7))
    assert all(torch.equal(first[name], tensor) for name, tensor in model.state_dict().items())
    model.init_weights(torch.Generator().manual_seed(8))
    assert not torch.equal(first["embedding"], model.embedding)


def test_a_model_built_without_memory_works_once_it_has_some() -> None:
    config = config_of()
    with torch.device("meta"):
        empty = build_model(config, baseline_ops(config, CPU))
    model = empty.to_empty(device="cpu")
    model.init_weights(torch.Generator().manual_seed(0))
    assert not dict(model.named_buffers()), "whatever is not a parameter would be left unwritten when weights are loaded"
    torch.testing.assert_close(model(tokens_of()), initialised(config)(tokens_of()))


def test_an_untrained_model_knows_nothing() -> None:
    tokens = tokens_of()
    loss = initialised(config_of())(tokens[:, :-1], tokens[:, 1:])
    assert loss.item() == pytest.approx(math.log(90), abs=0.02)


def test_embeddings_are_stored_in_the_compute_dtype_and_all_else_in_float32() -> None:
    model = initialised(config_of(dtype="bfloat16"))
    small = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.bfloat16}
    assert small == {"embedding", "value_embeddings.1", "value_embeddings.3"}
    tokens = tokens_of()
    assert model(tokens[:, :-1], tokens[:, 1:]).dtype == model(tokens).dtype == torch.float32


# ---------------------------------------------------------------------- components


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_changes_what_is_computed(switch: str) -> None:
    on, off = awake(config_of()), awake(config_of(**{switch: SWITCHES[switch]}))
    off.load_state_dict({name: tensor for name, tensor in on.state_dict().items() if name in off.state_dict()})
    assert not torch.allclose(on(tokens_of()), off(tokens_of()), atol=1e-3)


@pytest.mark.parametrize(
    ("switch", "removed"),
    [
        (
            "value_embeddings",
            {"value_embeddings.1", "value_embeddings.3", "blocks.1.attention.value_gate", "blocks.3.attention.value_gate"},
        ),
        ("smear", {"smear_gate", "smear_scale"}),
        ("backout", {"backout_scale"}),
        ("x0_scales", {"x0_scales"}),
        ("resid_scales", {"resid_scales"}),
        ("qk_norm", set()),
        ("activation", set()),
    ],
)
def test_a_switch_removes_its_own_parameters_and_no_others(switch: str, removed: set[str]) -> None:
    on, off = initialised(config_of()), initialised(config_of(**{switch: SWITCHES[switch]}))
    assert set(on.state_dict()) - set(off.state_dict()) == removed


def test_with_everything_off_it_is_a_plain_transformer() -> None:
    config = config_of(**SWITCHES)
    model = awake(config)
    tokens = tokens_of()
    x = norm(model.embedding[tokens])
    for block in model.blocks:
        x = x + attention_by_hand(block.attention, norm(x), None, -1, config)
        x = x + nn.functional.gelu(norm(x) @ block.mlp.up.T) @ block.mlp.down.T
    torch.testing.assert_close(model(tokens), (norm(x) @ model.lm_head.T)[..., :90], rtol=1e-4, atol=1e-4)


def test_with_everything_on_it_is_what_the_text_says() -> None:
    config = config_of()
    model = awake(config)
    tokens = tokens_of()
    x = norm(model.embedding[tokens])
    gate = model.smear_scale * torch.sigmoid(x[:, 1:, :24] @ model.smear_gate.T)
    x0 = x = torch.cat([x[:, :1], x[:, 1:] + gate * x[:, :-1]], dim=1)
    stored = []
    for layer, block in enumerate(model.blocks):
        x = model.resid_scales[layer] * x + model.x0_scales[layer] * x0
        table = {1: model.value_embeddings["1"], 3: model.value_embeddings["3"]}.get(layer)
        x = x + attention_by_hand(block.attention, norm(x), None if table is None else table[tokens], [16, 16, 16, -1][layer], config)
        x = x + (norm(x) @ block.mlp.up.T).relu() ** 2 @ block.mlp.down.T
        stored.append(x)
    x = norm(x - model.backout_scale * stored[2])
    expected = 15 * torch.tanh((x @ model.lm_head.T)[..., :90] / 15)
    torch.testing.assert_close(model(tokens), expected, rtol=1e-4, atol=1e-4)


def norm(x: Tensor) -> Tensor:
    return x / x.square().mean(-1, keepdim=True).add(torch.finfo(x.dtype).eps).sqrt()


def attention_by_hand(attention: Any, x: Tensor, value_embedding: Tensor | None, window: int, config: TrainConfig) -> Tensor:
    """Rotary attention with complex numbers: dimensions i and i + D/2 are the parts of one number, turned by -t · base^(-2i/D)."""
    q, k, v = (
        nn.functional.linear(x, w).unflatten(-1, (-1, 16)).transpose(1, 2) for w in (attention.query, attention.key, attention.value)
    )
    if value_embedding is not None:
        gate = 3 * torch.sigmoid(x[..., :12] @ attention.value_gate.T).transpose(1, 2)[..., None]
        v = v + gate * value_embedding.unflatten(-1, (-1, 16)).transpose(1, 2)
    angles = torch.outer(torch.arange(48.0), config.rope_base ** (-torch.arange(8) / 8))
    turned = (torch.complex(y[..., :8], y[..., 8:]) * torch.polar(torch.ones_like(angles), -angles) for y in (q, k))
    q, k = (torch.cat([y.real, y.imag], dim=-1) for y in turned)
    if config.qk_norm:
        q, k = norm(q), norm(k)
    scores = (q * config.qk_scale) @ (k * config.qk_scale).mT / 4
    reach = torch.ones(48, 48, dtype=torch.bool).tril().triu(-48 if window < 0 else -window)
    y = scores.masked_fill(~reach, -math.inf).softmax(-1) @ v
    return y.transpose(1, 2).flatten(2) @ attention.output.T


def test_rotation_depends_on_distance_only() -> None:
    angles = torch.outer(torch.arange(20.0), torch.tensor([1.0, 0.1]))[:, None, :]
    positions = Positions(angles.cos(), angles.sin(), None)
    q, k = (torch.randn(1, 1, 1, 4, generator=torch.Generator().manual_seed(s)).expand(1, 20, 1, 4) for s in (0, 1))
    scores = torch.einsum("btd,bsd->bts", rotate(q, positions)[:, :, 0], rotate(k, positions)[:, :, 0])[0]
    torch.testing.assert_close(scores[5, 2], scores[19, 16])
    assert not torch.isclose(scores[5, 2], scores[5, 3])


def test_smear_adds_a_gated_share_of_the_token_before() -> None:
    model, plain = awake(config_of()), awake(config_of(smear=False))
    tokens = tokens_of()
    x, smeared = plain.embed(tokens), model.embed(tokens)
    gate = 0.5 * torch.sigmoid(x[:, 1:, :24] @ model.smear_gate.T)
    torch.testing.assert_close(smeared[:, 0], x[:, 0])
    torch.testing.assert_close(smeared[:, 1:], x[:, 1:] + gate * x[:, :-1])


def test_softcap_bounds_the_logits() -> None:
    model, uncapped = awake(config_of(softcap=2.0)), awake(config_of(softcap=0.0))
    logits, raw = model(tokens_of()), uncapped(tokens_of())
    torch.testing.assert_close(logits, 2 * torch.tanh(raw / 2))
    assert raw.abs().max() > 2 > logits.abs().max()


def test_loss_is_the_cross_entropy_of_the_logits() -> None:
    model, tokens = awake(config_of()), tokens_of()
    expected = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(model(tokens[:, :-1], tokens[:, 1:]), expected)


def test_every_parameter_gets_a_gradient() -> None:
    model, tokens = awake(config_of()), tokens_of()
    model(tokens[:, :-1], tokens[:, 1:]).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("length", [1, 17, 48, 300])
def test_any_length_is_read(length: int) -> None:
    assert awake(config_of())(tokens_of(length=length)).shape == (2, length, 90)


# ---------------------------------------------------------------------- causality


@pytest.mark.parametrize("position", [1, 20, 47])
def test_no_token_sees_a_later_one(position: int) -> None:
    model, tokens = awake(config_of()), tokens_of()
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + 1) % 90
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :position], after[:, :position])
    assert not torch.allclose(before[:, position], after[:, position])


def test_rows_do_not_see_each_other() -> None:
    model, tokens = awake(config_of()), tokens_of(3)
    torch.testing.assert_close(model(tokens)[1:2], model(tokens[1:2]))


def test_a_short_window_forgets_what_lies_before_it() -> None:
    model = awake(config_of(window_pattern="S", smear=False))
    layer, x = model.blocks[0].attention, torch.randn(1, 48, 64)
    positions = model.positions(tokens_of(1), None)
    changed = x.clone()
    changed[:, 3] += 1
    difference = (layer(x, None, positions) - layer(changed, None, positions)).abs().amax(-1)[0]
    assert difference.nonzero().flatten().tolist() == list(range(3, 3 + 16 + 1)), "itself and the 16 tokens after it"


# ---------------------------------------------------------------------- changing it


class Halved(MLP):
    """The MLP's output halved."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class WithHalvedMLP(GPT):
    def build_block(self, layer: int) -> Block:
        block = super().build_block(layer)
        block.mlp = Halved(self.config, self.ops)
        return block


def test_a_subclass_changes_one_part_in_a_few_lines() -> None:
    config = config_of()
    model, changed = awake(config), WithHalvedMLP(config, baseline_ops(config, CPU))
    weights = model.state_dict()
    changed.load_state_dict(weights)
    assert not torch.allclose(model(tokens_of()), changed(tokens_of()), atol=1e-3)
    model.load_state_dict({name: w / 2 if name.endswith("down") else w for name, w in weights.items()})
    torch.testing.assert_close(model(tokens_of()), changed(tokens_of()), rtol=1e-4, atol=1e-5)


def test_the_whole_model_is_one_graph_for_the_compiler() -> None:
    model, tokens = awake(TrainConfig.from_depth(2, TINY, num_steps=1, compile=True, dtype="bfloat16")), tokens_of()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    loss = compiled(tokens[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(loss, model(tokens[:, :-1], tokens[:, 1:]))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
