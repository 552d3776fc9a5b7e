"""Every row of every example equals what a slow reference makes of the same file, whatever the tokenizer merges."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluate.core.bundle import open_bundle
from harness.evaluate.core.examples import parse_examples
from harness.evaluate.core.items import ExampleItem, Kind
from harness.evaluate.core.rows import tokenize_task
from harness.evaluate.core.tasks import CORE_TASKS, Task
from harness.evaluate.core.tokenizer import CL100K_PATTERN, GPT2_PATTERN, TiktokenTokenizer, Tokenizer
from tests.harness.evaluate.core_reference import ReferenceExample, reference_examples
from tests.harness.evaluate.core_samples import (
    CHOICES,
    NO_SPLIT,
    PASSAGES,
    REAL_BUNDLE,
    SCHEMAS,
    Rows,
    content_of,
    learned_tokenizer,
    needs_real_bundle,
    public_tokenizer,
    task_of,
)

SAMPLES: dict[Kind, Rows] = {"multiple_choice": CHOICES, "schema": SCHEMAS, "language_modeling": PASSAGES}
TOKENIZERS = {
    "baseline's split": learned_tokenizer(),
    "gpt2's split": learned_tokenizer(GPT2_PATTERN),
    "cl100k's split": learned_tokenizer(CL100K_PATTERN),
    "no split": learned_tokenizer(NO_SPLIT),
}


def assert_equal(items: list[ExampleItem], expected: list[ReferenceExample], raw: Rows) -> None:
    assert len(items) == len(expected)
    for position, (item, reference) in enumerate(zip(items, expected, strict=True)):
        assert item.example == position
        assert item.gold == reference.gold
        assert len(item.rows) == len(reference.rows)
        assert raw[item.line - 1].get("gold", 0) == item.gold
        for row, wanted in zip(item.rows, reference.rows, strict=True):
            assert row.tokens.tolist() == wanted.tokens
            assert (row.start, row.end) == (wanted.start, wanted.end)
            assert row.tokens.dtype == np.int32
            assert not row.tokens.flags.writeable


def assert_as_reference(task: Task, raw: Rows, tokenizer: TiktokenTokenizer, **settings_: Any) -> None:
    made = tokenize_task(task, parse_examples(task, content_of(raw), "here"), tokenizer, **settings_)
    assert_equal(list(made), reference_examples(task, raw, tokenizer.encoding, tokenizer.bos_id, **settings_), raw)


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
@pytest.mark.parametrize("delimiter", [" ", "\nAnswer: ", ""])
@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_of_every_kind(kind: Kind, shots: int, delimiter: str, tokenizer: TiktokenTokenizer) -> None:
    assert_as_reference(task_of(kind, SAMPLES[kind], shots=shots, delimiter=delimiter), SAMPLES[kind], tokenizer)


@pytest.mark.parametrize("max_length", [1, 2, 5, 12, 40])
@pytest.mark.parametrize("kind", SAMPLES)
def test_rows_cropped_on_the_left(kind: Kind, max_length: int) -> None:
    assert_as_reference(task_of(kind, SAMPLES[kind], shots=1), SAMPLES[kind], learned_tokenizer(), max_length=max_length)


def test_a_limit_changes_which_examples_are_scored_and_which_are_shown() -> None:
    task = task_of("multiple_choice", CHOICES, shots=2)
    assert_as_reference(task, CHOICES, learned_tokenizer(), limit=3)


TEXTS = st.text(alphabet=st.sampled_from(list("ab.'s1\n\r\t  \u00a0é木\u2028:-")), max_size=12)


@st.composite
def tasks_and_rows(draw: st.DrawFn) -> tuple[Task, Rows]:
    """A task of any kind with odd texts: blanks at the ends, blank texts, equal choices, every line end."""
    kind: Kind = draw(st.sampled_from(list(SAMPLES)))
    options = st.lists(TEXTS, min_size=2, max_size=3)
    count = draw(st.integers(3, 5))
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        if kind == "language_modeling":
            rows.append({"context": draw(TEXTS), "continuation": draw(TEXTS)})
            continue
        texts = draw(options)
        gold = draw(st.integers(0, len(texts) - 1))
        names = ("choices", "query") if kind == "multiple_choice" else ("context_options", "continuation")
        rows.append({names[0]: texts, names[1]: draw(TEXTS), "gold": gold})
    delimiter = draw(st.sampled_from([" ", "\nAnswer: ", ""]))
    return task_of(kind, rows, shots=draw(st.integers(0, 2)), delimiter=delimiter), rows


@settings(max_examples=150, deadline=None)
@given(tasks_and_rows(), st.sampled_from(list(TOKENIZERS)), st.none() | st.integers(1, 20))
def test_any_texts_with_any_tokenizer(task_and_rows: tuple[Task, Rows], name: str, max_length: int | None) -> None:
    task, rows = task_and_rows
    assert_as_reference(task, rows, TOKENIZERS[name], max_length=max_length)


class WholeTexts:
    """A tokenizer of which nothing is known, around one of which cuts are."""

    splits_before_spaces = False

    def __init__(self, inner: TiktokenTokenizer) -> None:
        self.bos_id, self.digest, self.encode_batch = inner.bos_id, "whole", inner.encode_batch


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_tokenizer_of_which_nothing_is_known_gives_the_same_rows(kind: Kind) -> None:
    task, known = task_of(kind, SAMPLES[kind], shots=2), learned_tokenizer()
    unknown: Tokenizer = WholeTexts(known)
    examples = parse_examples(task, content_of(SAMPLES[kind]), "here")
    for one, other in zip(tokenize_task(task, examples, known), tokenize_task(task, examples, unknown), strict=True):
        assert [row.key for row in one.rows] == [row.key for row in other.rows]


@needs_real_bundle
@pytest.mark.parametrize("task", CORE_TASKS, ids=lambda task: task.label)
def test_the_first_examples_of_the_real_tasks(task: Task) -> None:
    bundle = open_bundle(REAL_BUNDLE)
    raw = [json.loads(line) for line in bundle.read(task).split(b"\n") if line]
    tokenizer = public_tokenizer("gpt2")
    made = tokenize_task(task, bundle.examples(task), tokenizer, limit=24, max_length=1024)
    assert_equal(list(made), reference_examples(task, raw, tokenizer.encoding, tokenizer.bos_id, limit=24, max_length=1024), raw)


def test_the_digest_of_a_tokenizer_names_its_ids() -> None:
    base = learned_tokenizer()
    other_bos = TiktokenTokenizer(base.encoding, base.bos_id - 1)
    other_split = TiktokenTokenizer(
        tiktoken.Encoding("x", pat_str=NO_SPLIT, mergeable_ranks=base.encoding._mergeable_ranks, special_tokens={}), base.bos_id
    )
    digests = {tokenizer.digest for tokenizer in (*TOKENIZERS.values(), other_bos, other_split)}
    assert len(digests) == len(TOKENIZERS) + 2
