"""Against nanochat's own evaluator, imported from a clone: set NANOCHAT_HEAD to its folder. Needs jinja2 and torch, as it does.

Prompts and regions are compared with its functions; whole examples by letting its `evaluate_example` and `judge` score the same
made-up model.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import zlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.evaluate.core.bundle import open_bundle
from harness.evaluate.core.cuts import cut, uncut
from harness.evaluate.core.examples import parse_examples
from harness.evaluate.core.items import ExampleItem, RowScore
from harness.evaluate.core.outcome import judge
from harness.evaluate.core.prompts import in_order, prompts, solved
from harness.evaluate.core.rows import tokenize_task
from harness.evaluate.core.tasks import CORE_TASKS, Task
from harness.evaluate.core.tokenizer import TiktokenTokenizer
from tests.harness.evaluate.core_samples import (
    REAL_BUNDLE,
    Rows,
    content_of,
    learned_tokenizer,
    needs_real_bundle,
    public_tokenizer,
    task_of,
)

CLONE = Path(os.environ.get("NANOCHAT_HEAD", ""))
pytestmark = pytest.mark.skipif("NANOCHAT_HEAD" not in os.environ, reason="NANOCHAT_HEAD names no clone of nanochat")

LIMIT = int(os.environ.get("NANOCHAT_EXAMPLES", "40"))
"""Examples compared per task, spread over it; 0 compares all: 17 minutes for one tokenizer, read on a busy core."""


@cache
def evaluator() -> ModuleType:
    """nanochat's `core_eval.py`."""
    spec = importlib.util.spec_from_file_location("nanochat_core_eval", CLONE / "nanochat" / "core_eval.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TheirTokenizer:
    """The interface that nanochat's evaluator asks for."""

    def __init__(self, tokenizer: TiktokenTokenizer) -> None:
        self._tokenizer = tokenizer

    def get_bos_token_id(self) -> int:
        return self._tokenizer.bos_id

    def __call__(self, texts: list[str], prepend: int) -> list[list[int]]:
        return [[prepend, *ids] for ids in self._tokenizer.encoding.encode_ordinary_batch(texts)]


def their_data(content: bytes) -> list[dict[str, Any]]:
    data = [json.loads(line) for line in content.split(b"\n") if line]
    random.Random(1337).shuffle(data)
    return data


def their_shots(task: Task, data: list[dict[str, Any]], position: int) -> list[dict[str, Any]]:
    others = [index for index in range(len(data)) if index != position]
    return [data[index] for index in random.Random(1234 + position).sample(others, task.shots)] if task.shots else []


def their_rows(task: Task, data: list[dict[str, Any]], position: int, tokenizer: TiktokenTokenizer) -> Any:
    short = {"multiple_choice": "mc", "schema": "schema", "language_modeling": "lm"}[task.kind]
    texts = getattr(evaluator(), f"render_prompts_{short}")(data[position], task.delimiter, their_shots(task, data, position))
    return texts, getattr(evaluator(), f"batch_sequences_{short}")(TheirTokenizer(tokenizer), texts)


@needs_real_bundle
@pytest.mark.parametrize("name", ["gpt2", "cl100k_base", "learned"])
@pytest.mark.parametrize("task", CORE_TASKS, ids=lambda task: task.label)
def test_tokens_and_regions_of_the_real_tasks(task: Task, name: str) -> None:
    tokenizer = learned_tokenizer() if name == "learned" else public_tokenizer(name)
    bundle = open_bundle(REAL_BUNDLE)
    data = their_data(bundle.read(task))
    made = tokenize_task(task, bundle.examples(task), tokenizer)
    for position in range(0, len(data), max(1, len(data) // LIMIT) if LIMIT else 1):
        _, (tokens, starts, ends) = their_rows(task, data, position, tokenizer)
        rows = made[position].rows
        assert [row.tokens.tolist() for row in rows] == tokens
        assert [(row.start, row.end) for row in rows] == list(zip(starts, ends, strict=True))


@needs_real_bundle
@pytest.mark.parametrize("task", CORE_TASKS, ids=lambda task: task.label)
def test_prompts_of_the_real_tasks(task: Task) -> None:
    bundle = open_bundle(REAL_BUNDLE)
    data = their_data(bundle.read(task))[:100]
    kept = in_order(task, bundle.examples(task), 100)
    shown = [solved(example, task.delimiter, cut) for example in kept]
    for position in range(min(100, len(data))):
        chosen = [data.index(shot) for shot in their_shots(task, data, position)]
        texts = ["".join(pieces) for pieces in prompts(kept[position], [shown[at] for at in chosen], task.delimiter, cut)]
        assert texts == their_rows(task, data, position, learned_tokenizer())[0]


TEXTS = st.text(max_size=15) | st.sampled_from(["{{ item }}", "{% raw %}", "<b>&amp;", "\n\n", "a\r\n", " x ", "\u2028", "\x1c"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS, st.integers(0, 1)), min_size=3, max_size=3), st.sampled_from([" ", "\nAnswer: "]))
def test_prompts_of_any_texts(texts: list[tuple[str, str, str, int]], delimiter: str) -> None:
    shapes: dict[str, Any] = {
        "multiple_choice": lambda a, b, c, gold: {"query": a, "choices": [b, c], "gold": gold},
        "schema": lambda a, b, c, gold: {"continuation": a, "context_options": [b, c], "gold": gold},
        "language_modeling": lambda a, b, c, gold: {"context": a + b, "continuation": c},
    }
    for kind, shape in shapes.items():
        raw: Rows = [shape(*text) for text in texts]
        task = task_of(kind, raw, shots=2, delimiter=delimiter)  # type: ignore[arg-type]
        examples = parse_examples(task, content_of(raw), "here")
        short = {"multiple_choice": "mc", "schema": "schema", "language_modeling": "lm"}[kind]
        theirs = getattr(evaluator(), f"render_prompts_{short}")(raw[0], delimiter, list(raw[1:]))
        for cutter in (cut, uncut):
            shown = [solved(example, delimiter, cutter) for example in examples[1:]]
            assert ["".join(pieces) for pieces in prompts(examples[0], shown, delimiter, cutter)] == theirs


class MadeUpModel:
    """Logits that depend on the token before and on the position alone, so that both sides can ask for them row by row.

    Now and then the next token is predicted, so that greedy agreement occurs.
    """

    def __init__(self, vocab_size: int, max_seq_len: int | None) -> None:
        self.vocab_size, self.max_seq_len = vocab_size, max_seq_len
        self.table = torch.randn(64, vocab_size, generator=torch.Generator().manual_seed(3))

    def __call__(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1])
        logits = self.table[(tokens * 7 + positions) % 64].clone()
        following = torch.roll(tokens, -1, 1)
        helped = (tokens + positions) % 5 != 0
        return logits.scatter_add(2, following[..., None], torch.where(helped, 20.0, 0.0)[..., None])


def scores(model: MadeUpModel, item: ExampleItem) -> list[RowScore]:
    """What the engine would answer, from the same model."""
    result = []
    for row in item.rows:
        tokens = torch.from_numpy(row.tokens.astype(np.int64))[None]
        logits = model(tokens)[0, row.start - 1 : row.end - 1]
        targets = tokens[0, row.start : row.end]
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        result.append(RowScore(losses.mean().item(), bool((logits.argmax(-1) == targets).all())))
    return result


@needs_real_bundle
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("task", CORE_TASKS, ids=lambda task: task.label)
def test_whole_examples_of_the_real_tasks(task: Task) -> None:
    tokenizer, limit = learned_tokenizer(), 16 if task.rows > 16 else None
    model = MadeUpModel(tokenizer.bos_id + 1, max_seq_len=256 + zlib.crc32(task.label.encode()) % 64)
    bundle = open_bundle(REAL_BUNDLE)
    data = their_data(bundle.read(task))[:limit]
    meta = {"task_type": task.kind, "num_fewshot": task.shots, "continuation_delimiter": task.delimiter}
    made = tokenize_task(task, bundle.examples(task), tokenizer, limit=limit, max_length=model.max_seq_len)
    if made.quirks.cropped_regions:
        pytest.skip("nanochat stops at a region that does not fit the model")
    theirs = [
        evaluator().evaluate_example(at, model, TheirTokenizer(tokenizer), data, torch.device("cpu"), meta) for at in range(len(data))
    ]
    assert [judge(item, scores(model, item)).correct for item in made] == theirs
