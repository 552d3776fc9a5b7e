"""A small model with random weights, served as it is or with an entry's changes, and examples to ask it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from baseline.checkpoint import write_weights
from baseline.config import Dial, TrainConfig
from baseline.loop import build_model, initialise
from baseline.recipe import load_recipe
from harness.evaluate.core.items import ExampleItem, Kind, RowScore, TokenRow
from harness.evaluate.model_server import Capacity, ModelServer, Place, ServedModel, serve
from harness.launch import child_environment

CPU = torch.device("cpu")
VOCAB = 300
DIAL = Dial(VOCAB, 32, tokens_per_parameter=1.0, aspect_ratio=16, head_dim=32, reference_batch_tokens=512, short_window_multiple=4)
CONFIG = TrainConfig.from_depth(2, DIAL, batch_tokens=512, num_steps=4)
CAPACITY = Capacity(tokens=256, positions=96)
CHANGED_MODEL = """\
import torch
from baseline.model import GPT

class Mine(GPT):
    def forward(self, tokens, targets=None, cache=None, wanted=None):
        honest = super().forward
        {forward}

def build_model(config, ops):
    return Mine(config, ops)
"""


def random_model() -> torch.nn.Module:
    """A model in which every weight matters: after initialisation most would be zero or tiny."""
    model = build_model(load_recipe(CONFIG, None, CPU), CPU)
    initialise(model, 1, CPU)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def place(folder: Path, timeout_s: float = 60.0) -> Place:
    folder.mkdir(parents=True, exist_ok=True)
    return Place(child_environment(folder, 1), folder, folder / "console", timeout_s, 2**34)


def entry(folder: Path, forward: str) -> Path:
    """A submission whose model answers with these lines of code."""
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(CHANGED_MODEL.format(forward=forward))
    return folder


def written(folder: Path, submission: Path | None = None) -> ServedModel:
    """The random model on disk, ready to be served."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    write_weights(random_model(), folder / "weights.safetensors")
    return ServedModel.trained(folder / "config.json", submission, folder / "weights.safetensors", VOCAB)


@contextmanager
def served(folder: Path, forward: str | None = None, count: int = 1, timeout_s: float = 60.0) -> Iterator[list[ModelServer]]:
    """Servers of the random model, its `forward` replaced by the code of an entry if given."""
    model = written(folder, None if forward is None else entry(folder / "entry", forward))
    with ExitStack() as stack:
        yield [stack.enter_context(serve(model, CAPACITY, place(folder / f"server-{at}", timeout_s))) for at in range(count)]


# ---------------------------------------------------------------------- examples


def examples(seed: int = 0, each: int = 12) -> list[list[ExampleItem]]:
    """Three tasks, one of each kind. Half of the continuations are what the model itself would say."""
    rng = np.random.default_rng(seed)
    return [[_example(rng, kind, number) for number in range(each)] for kind in ("multiple_choice", "schema", "language_modeling")]


def _example(rng: np.random.Generator, kind: Kind, number: int) -> ExampleItem:
    context = rng.integers(0, VOCAB, rng.integers(6, 30))
    if kind == "multiple_choice":
        rows = [_row([*context, 10 + choice, *rng.integers(0, VOCAB, rng.integers(0, 6))], len(context)) for choice in range(4)]
    elif kind == "schema":
        ending = rng.integers(0, VOCAB, 4)
        rows = [_row([*context[:3], 20 + option, *context[3:], *ending], len(context) + 1) for option in range(2)]
    else:
        count = int(rng.integers(1, 4))
        answer = greedy(context, count) if number % 2 else rng.integers(0, VOCAB, count).tolist()
        rows = [_row([*context, *answer], len(context))]
    return ExampleItem(f"a_{kind}", number, number + 1, kind, tuple(rows), int(rng.integers(len(rows))))


def _row(tokens: list[int], start: int) -> TokenRow:
    return TokenRow(np.array(tokens, np.int32), start, len(tokens))


@torch.inference_mode()
def greedy(context: NDArray[np.int64], count: int) -> list[int]:
    """The model's own continuation."""
    model, tokens = random_model(), torch.from_numpy(context.astype(np.int64))
    for _ in range(count):
        tokens = torch.cat([tokens, model(tokens[None])[0, -1].argmax()[None]])
    return tokens[len(context) :].tolist()


@torch.inference_mode()
def expected(row: TokenRow) -> RowScore:
    """The score straight from the model: the whole row alone, all logits, torch's cross-entropy."""
    tokens = torch.from_numpy(row.tokens.astype(np.int64))
    logits = random_model()(tokens[None])[0, row.start - 1 : row.end - 1]
    scored = tokens[row.start : row.end]
    return RowScore(float(F.cross_entropy(logits.double(), scored)), bool((logits.argmax(-1) == scored).all()))
