"""One dial. From the depth follow width, heads, horizon, batch size, learning rates and weight decay.

Each law is one small function with its formula and source; `TrainConfig.from_depth` composes them.
"P" below is the number of *scaling parameters*: all weights inside the blocks plus lm_head.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

REFERENCE_DEPTH = 12
REFERENCE_BATCH_TOKENS = 2**19
REFERENCE_WIDTH = 768
VALUE_GATE_CHANNELS = 12
SMEAR_GATE_CHANNELS = 24
VOCAB_PAD_MULTIPLE = 64


class ConfigError(ValueError):
    """A configuration that cannot be trained. The message names the field and the mend."""


@dataclass(frozen=True, slots=True)
class Dial:
    """What a track (or a person at the command line) fixes; everything else follows from the depth."""

    vocab_size: int
    sequence_len: int
    tokens_per_parameter: float
    """Training tokens per scaling parameter, r."""
    aspect_ratio: int = 64
    """Width per layer, before rounding up to a multiple of the head dimension."""
    head_dim: int = 128
    reference_batch_tokens: int = REFERENCE_BATCH_TOKENS
    """Best batch at depth 12, in tokens."""
    max_batch_tokens: int | None = None
    short_window_multiple: int = 128
    """The short window is a quarter of the sequence, rounded up to this many tokens."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that determines a run, apart from the seed, the rows and the number of processes."""

    dial: Dial
    depth: int
    # ---- shape
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    sequence_len: int
    vocab_size: int
    # ---- horizon
    batch_tokens: int
    num_steps: int
    # ---- learning rates, already scaled by batch size and width
    matrix_lr: float
    lm_head_lr: float
    embedding_lr: float
    value_embedding_lr: float
    resid_scale_lr: float
    x0_scale_lr: float
    gate_lr: float
    matrix_weight_decay: float
    # ---- schedule
    warmup_steps: int = 40
    warmdown_fraction: float = 0.65
    final_lr_fraction: float = 0.05
    momentum_start: float = 0.85
    momentum_peak: float = 0.97
    momentum_end: float = 0.90
    momentum_warmup_steps: int = 400
    # ---- components of the model; each can be turned off
    window_pattern: str = "SSSL"
    """Tiled over the layers, S short and L full; the last layer is always full. "L" turns sliding windows off."""
    value_embeddings: bool = True
    smear: bool = True
    backout: bool = True
    x0_scales: bool = True
    resid_scales: bool = True
    qk_norm: bool = True
    qk_scale: float = 1.2
    softcap: float = 15.0
    """Logits are softcap · tanh(logits / softcap); 0 turns it off."""
    activation: Literal["relu_squared", "gelu"] = "relu_squared"
    rope_base: float = 100_000.0
    # ---- components of the optimizer
    matrix_optimizer: Literal["muon", "adamw"] = "muon"
    orthogonalization: Literal["polar_express", "newton_schulz"] = "polar_express"
    row_equilibration: bool = True
    norm_restoration: bool = True
    """Muon+: rescale the orthogonalised update to Frobenius norm sqrt(min(m, n))."""
    variance_reduction: bool = True
    """NorMuon's second moment per row or column."""
    cautious_weight_decay: bool = True
    variance_beta: float = 0.9
    # ---- execution; none of these changes the mathematics beyond rounding
    rows_per_forward: int = 32
    dtype: Literal["float32", "bfloat16"] = "float32"
    fp8: bool = False
    compile: bool = False
    attention_backend: Literal["auto", "flash", "flex", "sdpa", "masked"] = "auto"

    # ------------------------------------------------------------------ derived
    @classmethod
    def from_depth(cls, depth: int, dial: Dial, **overrides: Any) -> TrainConfig:
        """Derive a whole run from `depth`. `overrides` are fields of TrainConfig that replace derived or default values."""
        _check_dial(depth, dial)
        width = width_of(depth, dial)
        tokens = dial.tokens_per_parameter * scaling_parameters(depth, dial)
        reference_tokens = dial.tokens_per_parameter * scaling_parameters(REFERENCE_DEPTH, dial)
        batch = batch_tokens_of(tokens, reference_tokens, dial)
        by_batch = learning_rate_scale_of_batch(batch, dial)
        by_width = learning_rate_scale_of_width(width)
        derived: dict[str, Any] = {
            "dial": dial,
            "depth": depth,
            "width": width,
            "num_heads": width // dial.head_dim,
            "num_kv_heads": width // dial.head_dim,
            "head_dim": dial.head_dim,
            "sequence_len": dial.sequence_len,
            "vocab_size": dial.vocab_size,
            "batch_tokens": batch,
            "num_steps": int(tokens // batch),
            "matrix_lr": 0.02 * by_batch,
            "lm_head_lr": 0.008 * by_width * by_batch,
            "embedding_lr": 0.3 * by_width * by_batch,
            "value_embedding_lr": 0.15 * by_width * by_batch,
            "resid_scale_lr": 0.005 * by_batch,
            "x0_scale_lr": 0.5 * by_batch,
            "gate_lr": 0.2,
            "matrix_weight_decay": weight_decay_of(batch, tokens, reference_tokens, dial),
        }
        unknown = sorted(set(overrides) - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigError(f"TrainConfig has no field {unknown[0]!r}")
        return cls(**{**derived, **overrides}).checked()

    def at_depth(self, depth: int, **overrides: Any) -> TrainConfig:
        """The same track at another depth: the dial is kept, every law is applied anew, execution fields are carried over."""
        execution = {name: getattr(self, name) for name in EXECUTION_FIELDS}
        return TrainConfig.from_depth(depth, self.dial, **{**execution, **overrides})

    def with_(self, **changes: Any) -> TrainConfig:
        """A checked copy with some fields changed."""
        try:
            return replace(self, **changes).checked()
        except TypeError as error:
            raise ConfigError(
                str(error).replace("TrainConfig.__init__() got an unexpected keyword argument", "TrainConfig has no field")
            ) from None

    @property
    def batch_rows(self) -> int:
        """Rows in one global batch."""
        return self.batch_tokens // self.sequence_len

    @property
    def padded_vocab_size(self) -> int:
        return math.ceil(self.vocab_size / VOCAB_PAD_MULTIPLE) * VOCAB_PAD_MULTIPLE

    def windows(self) -> list[int]:
        """Tokens that each layer's queries see before themselves; -1 is all of them. The last layer sees all."""
        short = short_window_of(self.dial)
        sizes = {"S": short, "L": -1}
        pattern = [sizes[self.window_pattern[i % len(self.window_pattern)]] for i in range(self.depth)]
        return [*pattern[:-1], -1]

    def has_value_embedding(self, layer: int) -> bool:
        """Alternating layers, the last one always among them."""
        return self.value_embeddings and layer % 2 == (self.depth - 1) % 2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        return cls(**{**values, "dial": Dial(**values["dial"])}).checked()

    def checked(self) -> TrainConfig:
        """Return self, or raise ConfigError for the first field that cannot work."""
        for problem, mend in _problems(self):
            raise ConfigError(f"{problem}; {mend}")
        return self


EXECUTION_FIELDS = ("rows_per_forward", "dtype", "fp8", "compile", "attention_backend")
"""Fields that say how a run is executed, not what it computes."""


# ---------------------------------------------------------------------- the laws


def width_of(depth: int, dial: Dial) -> int:
    """Model width: depth · aspect ratio, rounded up to whole heads."""
    return math.ceil(depth * dial.aspect_ratio / dial.head_dim) * dial.head_dim


def scaling_parameters(depth: int, dial: Dial) -> int:
    """P: block weights (12 C² per layer and the value-embedding gates) plus lm_head. The count that Kaplan-style laws fit best here."""
    width = width_of(depth, dial)
    heads = width // dial.head_dim
    gated_layers = (depth + 1) // 2
    padded_vocab = math.ceil(dial.vocab_size / VOCAB_PAD_MULTIPLE) * VOCAB_PAD_MULTIPLE
    return 12 * width * width * depth + gated_layers * VALUE_GATE_CHANNELS * heads + padded_vocab * width


def batch_tokens_of(tokens: float, reference_tokens: float, dial: Dial) -> int:
    """Global batch in tokens: B_ref · (D / D_ref)^0.383, to the nearest power of two (arXiv 2505.13738)."""
    ideal = dial.reference_batch_tokens * (tokens / reference_tokens) ** 0.383
    batch = int(2 ** round(math.log2(ideal)))
    batch = max(batch, dial.sequence_len)
    return min(batch, dial.max_batch_tokens) if dial.max_batch_tokens else batch


def learning_rate_scale_of_batch(batch_tokens: int, dial: Dial) -> float:
    """√(B / B_ref): square-root scaling, as Adam-like updates need."""
    return math.sqrt(batch_tokens / dial.reference_batch_tokens)


def learning_rate_scale_of_width(width: int) -> float:
    """√(768 / C), for the AdamW groups with a width dimension. Muon's updates have unit spectral norm and need none."""
    return math.sqrt(REFERENCE_WIDTH / width)


def weight_decay_of(batch_tokens: int, tokens: float, reference_tokens: float, dial: Dial) -> float:
    """0.28 · √(B / B_ref) · D_ref / D: keeps the averaging horizon in epochs constant (arXiv 2405.13698)."""
    return 0.28 * math.sqrt(batch_tokens / dial.reference_batch_tokens) * reference_tokens / tokens


def short_window_of(dial: Dial) -> int:
    """A quarter of the sequence, rounded up to `short_window_multiple` tokens."""
    return math.ceil(dial.sequence_len / 4 / dial.short_window_multiple) * dial.short_window_multiple


# ---------------------------------------------------------------------- checks


def _check_dial(depth: int, dial: Dial) -> None:
    """Raise ConfigError for the first value that the laws cannot take: they divide by it, or take its logarithm."""
    for name, value in {"depth": depth, **asdict(dial)}.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{name} = {value!r}; it must be a finite number above 0")


def _problems(c: TrainConfig) -> list[tuple[str, str]]:
    """(what is wrong, mend) for every field that cannot work."""
    positive: tuple[str, ...] = ("depth", "width", "num_heads", "num_kv_heads", "head_dim", "sequence_len", "vocab_size")
    positive += ("batch_tokens", "num_steps", "rows_per_forward")
    found = []
    for name in positive:
        value = getattr(c, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            found.append((f"{name} = {value!r}", "it must be a positive whole number"))
    if found:
        return found
    rates = [f.name for f in fields(c) if f.name.endswith("_lr") or f.name == "matrix_weight_decay"]
    for name in (*rates, "warmup_steps", "momentum_warmup_steps"):
        value = getattr(c, name)
        if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
            found.append((f"{name} = {value!r}", "it must be a finite number, at least 0"))
    if c.width != c.num_heads * c.head_dim:
        found.append((f"width = {c.width} with {c.num_heads} heads of {c.head_dim}", "width must equal num_heads · head_dim"))
    if c.num_heads % c.num_kv_heads:
        found.append((f"num_kv_heads = {c.num_kv_heads}", f"it must divide num_heads = {c.num_heads}"))
    if c.head_dim % 2:
        found.append((f"head_dim = {c.head_dim}", "rotary embeddings need an even head_dim"))
    if c.width < SMEAR_GATE_CHANNELS:
        found.append((f"width = {c.width}", f"the gates read {SMEAR_GATE_CHANNELS} channels; widen the model"))
    if c.batch_tokens % c.sequence_len:
        found.append((f"batch_tokens = {c.batch_tokens}", f"it must be a multiple of sequence_len = {c.sequence_len}"))
    if isinstance(c.rope_base, (int, float)) and c.rope_base <= 0:
        found.append((f"rope_base = {c.rope_base!r}", "it must be above 0"))
    if isinstance(c.softcap, (int, float)) and c.softcap < 0:
        found.append((f"softcap = {c.softcap!r}", "it must be at least 0, which turns it off"))
    if not c.window_pattern or set(c.window_pattern) - {"S", "L"}:
        found.append((f"window_pattern = {c.window_pattern!r}", "use the letters S and L"))
    for name in ("warmdown_fraction", "final_lr_fraction", "momentum_start", "momentum_peak", "momentum_end", "variance_beta"):
        value = getattr(c, name)
        if not (isinstance(value, (int, float)) and 0 <= value <= 1):
            found.append((f"{name} = {value!r}", "it must lie in [0, 1]"))
    for name, allowed in CHOICES.items():
        if getattr(c, name) not in allowed:
            found.append((f"{name} = {getattr(c, name)!r}", "choose one of " + ", ".join(allowed)))
    return found


CHOICES: dict[str, tuple[str, ...]] = {
    "activation": ("relu_squared", "gelu"),
    "matrix_optimizer": ("muon", "adamw"),
    "orthogonalization": ("polar_express", "newton_schulz"),
    "dtype": ("float32", "bfloat16"),
    "attention_backend": ("auto", "flash", "flex", "sdpa", "masked"),
}
