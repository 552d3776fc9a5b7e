"""The dial against the figures of the trainer that it re-creates (nanochat, read off its code, log and printed tables)."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseline.config import EXECUTION_FIELDS, ConfigError, Dial, TrainConfig, scaling_parameters, short_window_of, width_of


def dial(ratio: float = 8.0) -> Dial:
    return Dial(vocab_size=32_768, sequence_len=2048, tokens_per_parameter=ratio)


# depth, width, heads, scaling parameters in millions
SIZES = [
    (12, 768, 6, 110.1),
    (16, 1024, 8, 234.9),
    (20, 1280, 10, 435.2),
    (22, 1408, 11, 569.5),
    (24, 1536, 12, 729.8),
    (26, 1664, 13, 918.4),
    (28, 1792, 14, 1137.7),
    (32, 2048, 16, 1677.7),
]


@pytest.mark.parametrize(("depth", "width", "heads", "millions"), SIZES)
def test_shape_and_scaling_parameters_follow_from_the_depth(depth: int, width: int, heads: int, millions: float) -> None:
    config = TrainConfig.from_depth(depth, dial())
    assert (config.width, config.num_heads, config.num_kv_heads, config.head_dim) == (width, heads, heads, 128)
    assert scaling_parameters(depth, dial()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_width_is_rounded_up_to_whole_heads() -> None:
    assert width_of(13, dial()) == 896  # 13 · 64 = 832 is six heads and a half


# depth, tokens per parameter, steps, tokens per batch
HORIZONS = [
    (24, 8, 5_568, 2**20),
    (12, 12, 2_520, 2**19),
    (20, 12, 4_980, 2**20),
    (22, 8, 4_345, 2**20),
    (26, 12, 10_510, 2**20),
]


@pytest.mark.parametrize(("depth", "ratio", "steps", "batch"), HORIZONS)
def test_horizon_and_batch(depth: int, ratio: float, steps: int, batch: int) -> None:
    config = TrainConfig.from_depth(depth, dial(ratio))
    assert (config.num_steps, config.batch_tokens) == (steps, batch)
    assert config.batch_rows == batch // 2048


@pytest.mark.parametrize(
    ("depths", "exponent"), [((8,), 18), ((10, 12, 14, 16), 19), ((18, 20, 22, 24, 26), 20), ((32, 40, 48, 50), 21)], ids=str
)
def test_batch_grows_in_powers_of_two_with_the_horizon(depths: tuple[int, ...], exponent: int) -> None:
    assert {TrainConfig.from_depth(depth, dial(10.5)).batch_tokens for depth in depths} == {2**exponent}


def test_learning_rates_and_weight_decay_at_depth_24() -> None:
    config = TrainConfig.from_depth(24, dial())
    by_batch, by_width = math.sqrt(2), math.sqrt(768 / 1536)
    assert config.matrix_lr == pytest.approx(0.02 * by_batch)
    assert config.lm_head_lr == pytest.approx(0.008 * by_batch * by_width)
    assert config.embedding_lr == pytest.approx(0.3 * by_batch * by_width)
    assert config.value_embedding_lr == pytest.approx(0.15 * by_batch * by_width)
    assert config.resid_scale_lr == pytest.approx(0.005 * by_batch)
    assert config.x0_scale_lr == pytest.approx(0.5 * by_batch)
    assert config.gate_lr == 0.2, "the smear and backout group follows neither batch nor width"
    assert config.matrix_weight_decay == pytest.approx(0.0597, abs=5e-5)


def test_at_the_reference_depth_every_scale_is_one() -> None:
    config = TrainConfig.from_depth(12, dial())
    assert (config.matrix_lr, config.lm_head_lr, config.matrix_weight_decay) == (0.02, 0.008, 0.28)


def test_windows_tile_the_pattern_and_end_with_a_full_layer() -> None:
    config = TrainConfig.from_depth(6, dial())
    assert config.windows() == [512, 512, 512, -1, 512, -1]
    assert config.with_(window_pattern="L").windows() == [-1] * 6


def test_short_window_is_a_quarter_rounded_up() -> None:
    assert short_window_of(dial()) == 512
    assert short_window_of(Dial(vocab_size=8, sequence_len=600, tokens_per_parameter=1)) == 256


@pytest.mark.parametrize(("depth", "layers"), [(4, [1, 3]), (5, [0, 2, 4])])
def test_value_embeddings_alternate_and_include_the_last_layer(depth: int, layers: list[int]) -> None:
    config = TrainConfig.from_depth(depth, dial())
    assert [layer for layer in range(depth) if config.has_value_embedding(layer)] == layers
    off = config.with_(value_embeddings=False)
    assert not any(off.has_value_embedding(layer) for layer in range(depth))


def test_vocabulary_is_padded_to_a_multiple_of_64() -> None:
    assert TrainConfig.from_depth(2, Dial(vocab_size=500, sequence_len=64, tokens_per_parameter=1)).padded_vocab_size == 512


def test_the_batch_is_capped_by_the_dial() -> None:
    capped = Dial(vocab_size=32_768, sequence_len=2048, tokens_per_parameter=8, max_batch_tokens=2**17)
    assert TrainConfig.from_depth(24, capped).batch_tokens == 2**17


@given(depth=st.integers(1, 40), ratio=st.floats(1, 40), smear=st.booleans(), backend=st.sampled_from(["auto", "sdpa"]))
def test_a_config_survives_json(depth: int, ratio: float, smear: bool, backend: str) -> None:
    config = TrainConfig.from_depth(depth, dial(ratio), smear=smear, attention_backend=backend)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(depth=st.integers(1, 40))
def test_another_depth_keeps_only_how_a_run_is_executed(depth: int) -> None:
    config = TrainConfig.from_depth(12, dial(), dtype="bfloat16", compile=True, rows_per_forward=16, smear=False)
    moved = config.at_depth(depth)
    fresh = TrainConfig.from_depth(depth, dial())
    for field in fields(TrainConfig):
        kept = config if field.name in EXECUTION_FIELDS else fresh
        assert getattr(moved, field.name) == getattr(kept, field.name), field.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth = 0"),
        ({"num_steps": True}, "num_steps = True"),
        ({"matrix_lr": math.nan}, "matrix_lr = nan"),
        ({"matrix_lr": -0.1}, "matrix_lr = -0.1"),
        ({"num_heads": 5}, "width must equal"),
        ({"num_kv_heads": 4}, "must divide num_heads"),
        ({"batch_tokens": 2049}, "multiple of sequence_len"),
        ({"window_pattern": "SXL"}, "letters S and L"),
        ({"warmdown_fraction": 1.5}, r"must lie in \[0, 1\]"),
        ({"activation": "swish"}, "relu_squared, gelu"),
        ({"colour": 3}, "no field 'colour'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_impossible_field_is_named_with_its_mend(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_depth(12, dial()).with_(**change)


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(ConfigError, match="no field 'widht'"):
        TrainConfig.from_depth(12, dial(), widht=3)
