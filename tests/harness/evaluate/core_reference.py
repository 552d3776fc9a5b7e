"""CORE's rows straight from their definition, one example at a time: lists, whole strings, no pieces, no cache, no arrays.

Deliberately built differently from `harness.evaluate.core`: it takes the raw JSON objects, writes each kind's prompt out, and finds
regions by stepping through lists.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tiktoken

from harness.evaluate.core.tasks import Task


class ReferenceRow(NamedTuple):
    tokens: list[int]
    start: int
    end: int


class ReferenceExample(NamedTuple):
    rows: list[ReferenceRow]
    gold: int


def reference_examples(
    task: Task,
    raw: Sequence[Mapping[str, Any]],
    encoding: tiktoken.Encoding,
    bos: int,
    limit: int | None = None,
    max_length: int | None = None,
) -> list[ReferenceExample]:
    """Every example of a task, in the order in which it is scored."""
    data = list(raw)
    random.Random(1337).shuffle(data)
    data = data[:limit]
    return [_one(task, data, position, encoding, bos, max_length) for position in range(len(data))]


def reference_texts(task: Task, data: Sequence[Mapping[str, Any]], position: int) -> list[str]:
    """The prompts of the example at `position` of the shuffled data; (without, with) for language modelling."""
    others = [index for index in range(len(data)) if index != position]
    chosen = random.Random(1234 + position).sample(others, task.shots) if task.shots else []
    item, d = data[position], task.delimiter
    if task.kind == "multiple_choice":
        before = "".join(f"{data[i]['query']}{d}{data[i]['choices'][data[i]['gold']]}\n\n" for i in chosen)
        return [f"{before}{item['query']}{d}{choice}" for choice in item["choices"]]
    if task.kind == "schema":
        before = "".join(f"{data[i]['context_options'][data[i]['gold']]}{d}{data[i]['continuation']}\n\n" for i in chosen)
        return [f"{before}{option}{d}{item['continuation']}" for option in item["context_options"]]
    before = "".join(f"{data[i]['context'].strip()}{d}{data[i]['continuation']}\n\n" for i in chosen)
    question = f"{before}{item['context'].strip()}{d}"
    return [question.strip(), question + item["continuation"]]


def _one(
    task: Task, data: Sequence[Mapping[str, Any]], position: int, encoding: tiktoken.Encoding, bos: int, max_length: int | None
) -> ReferenceExample:
    rows = [[bos, *encoding.encode_ordinary(text)] for text in reference_texts(task, data, position)]
    if task.kind == "multiple_choice":
        start = next((i for i in range(min(map(len, rows))) if len({row[i] for row in rows}) > 1), min(map(len, rows)))
        starts = [start] * len(rows)
    elif task.kind == "schema":
        suffix = next((i for i in range(min(map(len, rows)) - 1) if len({row[-1 - i] for row in rows}) > 1), min(map(len, rows)) - 1)
        starts = [len(row) - suffix for row in rows]
    else:
        without, rows = rows[0], rows[1:]
        starts = [next((i for i, (a, b) in enumerate(zip(without, rows[0], strict=False)) if a != b), min(len(without), len(rows[0])))]
    cropped = []
    for row, start in zip(rows, starts, strict=True):
        surplus = max(0, len(row) - max_length) if max_length else 0
        cropped.append(ReferenceRow(row[surplus:], max(1, start - surplus), len(row) - surplus))
    return ReferenceExample(cropped, data[position].get("gold", 0))
