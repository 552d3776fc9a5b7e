"""nanochat's model, optimizer and schedule, taken from a clone and built at the settings of one of our configs.

    git clone https://github.com/karpathy/nanochat && git -C nanochat checkout 92d63d4

Nothing of nanochat is restated here but its step, ten lines of a loop. Its modules are imported from the clone. What its training script
decides (learning rates, weight decay, horizon, schedules) is executed from the script's own text, because importing it would train.
"""

from __future__ import annotations

import ast
import importlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from baseline.attention import AttentionFn
from baseline.config import REFERENCE_BATCH_TOKENS, TrainConfig
from baseline.data.rows import RowReader
from baseline.loop import micro_batch

WRITTEN_FOR = "92d63d4e8bb4df75c3b71618f31ddde2378b2bcd"
"""The commit that this module was written and checked for."""

OUR_ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path("scripts", "base_train.py")
SCALED_BY_BATCH = ("embedding_lr", "unembedding_lr", "scalar_lr", "matrix_lr", "weight_decay")
SCHEDULES = ("get_lr_multiplier", "get_muon_momentum", "get_weight_decay")


class NanochatError(RuntimeError):
    """A clone that cannot be used. The message says what it lacks."""


# ---------------------------------------------------------------------- the clone


@dataclass(frozen=True, slots=True)
class Clone:
    """One import of a clone. What nanochat decides when it is imported, its dtype and its attention, is decided for each import anew."""

    commit: str
    gpt: Any
    flash_attention: Any
    fp8: Any
    script: list[ast.stmt]
    """Statements of the training script."""

    @property
    def has_flash_kernel(self) -> bool:
        """Whether nanochat found its FlashAttention-3 and would use it; otherwise it calls torch's scaled_dot_product_attention."""
        return bool(self.flash_attention.USE_FA3)


def open_clone(folder: Path, dtype: str) -> Clone:
    """Import nanochat from `folder` with "float32" or "bfloat16" as its compute dtype. Raises NanochatError."""
    if not (folder / "nanochat" / "gpt.py").is_file() or not (folder / SCRIPT).is_file():
        raise NanochatError(f"{folder} is no clone of nanochat: it lacks nanochat/gpt.py or {SCRIPT}; clone commit {WRITTEN_FOR[:7]} there")
    os.environ["NANOCHAT_DTYPE"] = dtype
    with _apart(folder):
        gpt, flash_attention, fp8 = (importlib.import_module(f"nanochat.{name}") for name in ("gpt", "flash_attention", "fp8"))
    return Clone(_commit(folder), gpt, flash_attention, fp8, ast.parse((folder / SCRIPT).read_text()).body)


def use_attention(clone: Clone, attention: AttentionFn) -> None:
    """Let this import of nanochat attend with one of our backends, whose sign for "all earlier tokens" is a window of -1."""

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, causal: bool, window_size: tuple[int, int]) -> Tensor:
        window = window_size[0]
        return attention(q, k, v, -1 if window >= q.shape[1] else window)

    clone.flash_attention.flash_attn.flash_attn_func = flash_attn_func


@contextmanager
def _apart(folder: Path) -> Iterator[None]:
    """An import path with the clone and without us: nanochat looks for a package `kernels`, by which it does not mean ours."""
    _forget("nanochat")
    path, ours = sys.path[:], _forget("kernels")
    sys.path[:] = [str(folder), *(entry for entry in path if Path(entry).resolve() != OUR_ROOT)]
    try:
        yield
    finally:
        sys.path[:] = path
        _forget("kernels")
        sys.modules.update(ours)


def _forget(package: str) -> dict[str, Any]:
    """Take a package out of the imported modules."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == package}


def _commit(folder: Path) -> str:
    """The clone's commit; "unknown" for a copy without git."""
    asked = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


# ---------------------------------------------------------------------- the script


def option_defaults(script: list[ast.stmt]) -> dict[str, Any]:
    """Default of each command-line option of the script, by the name that argparse gives it."""
    defaults = {}
    for call in (node for statement in script for node in ast.walk(statement) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument":
            flag = ast.literal_eval(call.args[0]).removeprefix("--").replace("-", "_")
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            defaults[flag] = _constant(given["default"]) if "default" in given else False
    return defaults


def _constant(node: ast.expr) -> Any:
    """A number or text as the script writes it, products of numbers included."""
    return eval(compile(ast.Expression(node), str(SCRIPT), "eval"), {"__builtins__": {}})


def options(clone: Clone, config: TrainConfig) -> dict[str, Any]:
    """The script's options at one of our configs: shape, horizon and batch are ours, all tuned values are nanochat's own defaults.

    nanochat scales rates and weight decay by the root of the batch over a fixed 2^19 tokens. A dial with another reference batch is told
    to it as rates and weight decay that are larger by the root of the quotient, which comes to the same.
    """
    defaults = option_defaults(clone.script)
    larger = math.sqrt(REFERENCE_BATCH_TOKENS / config.dial.reference_batch_tokens)
    ours: dict[str, Any] = {
        "depth": config.depth,
        "aspect_ratio": config.dial.aspect_ratio,
        "head_dim": config.head_dim,
        "max_seq_len": config.sequence_len,
        "window_pattern": config.window_pattern,
        "target_param_data_ratio": config.dial.tokens_per_parameter,
        "num_iterations": config.num_steps,
        "total_batch_size": config.batch_tokens,
    }
    ours |= {name: defaults[name] * larger for name in SCALED_BY_BATCH}
    return {**defaults, **ours}


def script_results(clone: Clone, config: TrainConfig, model: nn.Module, **overrides: Any) -> dict[str, Any]:
    """Names that the script defines, from its scaling laws to its schedules, `optimizer` among them, with `model` as the one to train.

    `overrides` are options of the script that shall differ from those which `config` gives it.
    """
    first, optimizer = _position(clone, "get_scaling_params"), _position(clone, "optimizer")
    chosen = [clone.script[_position(clone, "build_model_meta")], *clone.script[first : optimizer + 1]]
    chosen += [clone.script[_position(clone, name)] for name in SCHEDULES]
    names: dict[str, Any] = {
        "args": SimpleNamespace(**{**options(clone, config), **overrides}),
        "math": math,
        "torch": torch,
        "GPT": clone.gpt.GPT,
        "GPTConfig": clone.gpt.GPTConfig,
        "print0": lambda *_: None,
        "vocab_size": config.vocab_size,
        "num_iterations": config.num_steps,
        "model": model,
    }
    with redirect_stdout(StringIO()):
        exec(compile(ast.Module(chosen, []), str(SCRIPT), "exec"), names)
    return names


def _position(clone: Clone, name: str) -> int:
    """Index of the script's statement that defines a function or first assigns a variable. Raises NanochatError if there is none."""
    for index, statement in enumerate(clone.script):
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return index
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return index
    raise NanochatError(f"{SCRIPT} defines no {name}; check out commit {WRITTEN_FOR[:7]}, which this comparison was written for")


# ---------------------------------------------------------------------- the trainer


class NanochatTrainer:
    """nanochat's model and optimizer, stepped as its script does. Fulfils `side_by_side.Trainer`."""

    def __init__(self, clone: Clone, config: TrainConfig, device: torch.device, seed: int) -> None:
        self.config = config
        self.model = build_model(clone, config, device, seed)
        if config.fp8:
            clone.fp8.convert_to_float8_training(self.model, module_filter_fn=_worth_8_bits)
        results = script_results(clone, config, self.model)
        self.optimizer = results["optimizer"]
        self.schedules: tuple[Callable[[int], float], ...] = tuple(results[name] for name in SCHEDULES)
        """Learning-rate multiplier, Muon's momentum and Muon's weight decay, each a function of the 0-based step."""
        self.forward = torch.compile(self.model, dynamic=False) if config.compile else self.model

    def train_step(self, step: int, reader: RowReader) -> Tensor:
        """One optimizer step on global batch number `step`; returns its mean loss, still on the device."""
        micro_steps, rows = micro_batch(self.config.batch_rows, self.config.rows_per_forward, 1)
        losses = []
        for micro in range(micro_steps):
            loss = self.forward(*reader.batch(step * self.config.batch_rows, micro, rows))
            losses.append(loss.detach())
            (loss / micro_steps).backward()
        self.follow_schedules(step)
        self.optimizer.step()
        self.model.zero_grad(set_to_none=True)
        return torch.stack(losses).mean()

    def follow_schedules(self, step: int) -> None:
        """Set every group's learning rate, and Muon's momentum and weight decay, for one step."""
        multiplier, momentum, weight_decay = (schedule(step) for schedule in self.schedules)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * multiplier
            if group["kind"] == "muon":
                group["momentum"], group["weight_decay"] = momentum, weight_decay


def build_model(clone: Clone, config: TrainConfig, device: torch.device, seed: int) -> Any:
    """nanochat's GPT with its own initial weights, drawn from torch's global generators at `seed`."""
    shape = clone.gpt.GPTConfig(
        sequence_len=config.sequence_len,
        vocab_size=config.vocab_size,
        n_layer=config.depth,
        n_head=config.num_heads,
        n_kv_head=config.num_kv_heads,
        n_embd=config.width,
        window_pattern=config.window_pattern,
    )
    with torch.device("meta"), redirect_stdout(StringIO()):
        model = clone.gpt.GPT(shape)
    model.to_empty(device=device)
    torch.manual_seed(seed)
    model.init_weights()
    return model


def _worth_8_bits(module: nn.Module, name: str) -> bool:
    """The script's condition for a linear layer in 8 bits: both dimensions multiples of 16, and none below 128."""
    sizes = (module.in_features, module.out_features) if isinstance(module, nn.Linear) else (0,)
    return min(sizes) >= 128 and all(size % 16 == 0 for size in sizes)


# ---------------------------------------------------------------------- whose parameter is whose


def nanochat_name(name: str) -> str:
    """What nanochat calls the parameter that `baseline.model.GPT` calls `name`."""
    room, *inside = name.split(".")
    if room == "value_embeddings":
        return f"value_embeds.{inside[0]}.weight"
    if room == "blocks":
        layer, part, matrix = inside
        return f"transformer.h.{layer}.{_PARTS[part]}.{_MATRICES[part, matrix]}.weight"
    return _ROOMS[room]


_ROOMS = {
    "embedding": "transformer.wte.weight",
    "lm_head": "lm_head.weight",
    "smear_gate": "smear_gate.weight",
    "smear_scale": "smear_lambda",
    "backout_scale": "backout_lambda",
    "resid_scales": "resid_lambdas",
    "x0_scales": "x0_lambdas",
}
_PARTS = {"attention": "attn", "mlp": "mlp"}
_MATRICES = {
    ("attention", "query"): "c_q",
    ("attention", "key"): "c_k",
    ("attention", "value"): "c_v",
    ("attention", "output"): "c_proj",
    ("attention", "value_gate"): "ve_gate",
    ("mlp", "up"): "c_fc",
    ("mlp", "down"): "c_proj",
}
