"""Rows are made once, in worker processes or here, and found again by what they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.errors import MachineLacks, UsageProblem
from harness.evaluate.core import prepare as prepare_module
from harness.evaluate.core.bundle import Bundle, open_bundle
from harness.evaluate.core.examples import parse_examples
from harness.evaluate.core.prepare import prepare
from harness.evaluate.core.prepared import PreparedTask, Ragged, read_prepared, write_prepared
from harness.evaluate.core.rows import tokenize_task
from harness.evaluate.core.tokenizer import GPT2_PATTERN
from tests.harness.evaluate.core_samples import CHOICES, PASSAGES, SCHEMAS, content_of, learned_tokenizer, task_of, write_folder

TASKS = [
    task_of("multiple_choice", CHOICES, label="choices", shots=1),
    task_of("schema", SCHEMAS, label="schemas"),
    task_of("language_modeling", PASSAGES, label="passages", shots=2, delimiter="\nAnswer: "),
]
TOKENIZER = learned_tokenizer()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    contents = [content_of(rows) for rows in (CHOICES, SCHEMAS, PASSAGES)]
    return open_bundle(write_folder(tmp_path / "bundle", {task.file: content for task, content in zip(TASKS, contents, strict=True)}))


def keys(tasks: Sequence[PreparedTask]) -> list[tuple[str, int, int, list[bytes]]]:
    """Everything that an engine sees of some tasks."""
    return [(item.task, item.line, item.gold, [row.key for row in item.rows]) for task in tasks for item in task]


def test_tasks_come_in_the_order_asked_for(bundle: Bundle, tmp_path: Path) -> None:
    made = prepare(bundle, TASKS[::-1], TOKENIZER, cache=tmp_path / "cache")
    assert [task.label for task in made] == ["passages", "schemas", "choices"]
    assert [len(task) for task in made] == [4, 3, 4]


def test_what_was_made_is_found_again_and_not_written_again(bundle: Bundle, tmp_path: Path) -> None:
    first = prepare(bundle, TASKS, TOKENIZER, cache=tmp_path / "cache")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    again = prepare(bundle, TASKS, TOKENIZER, cache=tmp_path / "cache")
    assert keys(first) == keys(again)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(times) == 3


def test_anything_that_changes_the_rows_is_kept_apart(bundle: Bundle, tmp_path: Path) -> None:
    other = learned_tokenizer(GPT2_PATTERN)
    cache = tmp_path / "cache"
    plain = keys(prepare(bundle, TASKS, TOKENIZER, cache=cache))
    limited = keys(prepare(bundle, TASKS, TOKENIZER, cache=cache, limit=3))
    short = keys(prepare(bundle, TASKS, TOKENIZER, cache=cache, max_length=9))
    split = keys(prepare(bundle, TASKS, other, cache=cache))
    assert len(list(cache.iterdir())) == 12
    assert keys(prepare(bundle, TASKS, TOKENIZER, cache=cache)) == plain
    assert len({str(result) for result in (plain, limited, short, split)}) == 4


def test_a_damaged_cache_is_made_anew(bundle: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    expected = keys(prepare(bundle, TASKS, TOKENIZER, cache=cache))
    for damage in (lambda content: content[:-30], lambda content: b"", lambda content: content[:300] + b"\0\0\0\0" + content[304:]):
        for path in cache.iterdir():
            path.write_bytes(damage(path.read_bytes()))
        assert keys(prepare(bundle, TASKS, TOKENIZER, cache=cache)) == expected


def test_cached_rows_do_not_excuse_a_damaged_bundle(bundle: Bundle, tmp_path: Path) -> None:
    prepare(bundle, TASKS, TOKENIZER, cache=tmp_path / "cache")
    (bundle.path / bundle.prefix / TASKS[0].file).write_bytes(b"changed")
    with pytest.raises(MachineLacks, match="is cut short"):
        prepare(bundle, TASKS, TOKENIZER, cache=tmp_path / "cache")


def test_worker_processes_make_the_same_rows(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = prepare(bundle, TASKS, TOKENIZER, cache=tmp_path / "here", workers=1)
    monkeypatch.setattr(prepare_module, "WORTH_A_PROCESS", 0)
    seen: list[tuple[str, int, int]] = []
    there = prepare(bundle, TASKS, TOKENIZER, cache=tmp_path / "there", workers=2, progress=lambda *report: seen.append(report))
    assert keys(here) == keys(there)
    assert {label for label, _, _ in seen} == {"choices", "schemas", "passages"}
    assert seen[-1][1:] == (11, 11)


def test_a_worker_s_error_reaches_the_caller(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "WORTH_A_PROCESS", 0)
    with pytest.raises(UsageProblem, match="--limit: passages asks each question after 2 other examples"):
        prepare(bundle, TASKS[::-1], TOKENIZER, cache=tmp_path / "cache", workers=2, limit=2)


def test_progress_counts_cached_tasks_too(bundle: Bundle, tmp_path: Path) -> None:
    prepare(bundle, TASKS[:1], TOKENIZER, cache=tmp_path)
    seen: list[tuple[str, int, int]] = []
    prepare(bundle, TASKS, TOKENIZER, cache=tmp_path, limit=None, progress=lambda *report: seen.append(report))
    assert seen == [("choices", 4, 11), ("schemas", 7, 11), ("passages", 11, 11)]


def test_row_lengths_are_those_of_the_rows(bundle: Bundle, tmp_path: Path) -> None:
    for task in prepare(bundle, TASKS, TOKENIZER, cache=tmp_path, max_length=14):
        assert task.row_lengths.tolist() == [len(row.tokens) for item in task for row in item.rows]
        assert max(task.row_lengths) <= 14


class Shifted:
    """A tokenizer whose ids do not fit 16 bits."""

    bos_id, digest, splits_before_spaces = 1 << 20, "shifted", True

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        return [ids + 70_000 for ids in TOKENIZER.encode_batch(texts)]


def test_a_file_keeps_counts_and_large_ids(tmp_path: Path) -> None:
    task = tokenize_task(TASKS[2], parse_examples(TASKS[2], content_of(PASSAGES), "here"), Shifted(), max_length=30)
    write_prepared(tmp_path / "task.npz", task)
    read = read_prepared(tmp_path / "task.npz")
    assert read is not None
    assert keys([read]) == keys([task])
    assert read.quirks == task.quirks
    assert read.quirks.cropped_rows > 0
    assert min(read[0].rows[0].tokens) > np.iinfo(np.uint16).max


def test_ragged_sequences_come_back_as_they_went_in() -> None:
    sequences = [np.array(values, np.int32) for values in ([], [1, 2], [], [3], [65_535])]
    ragged = Ragged.of(sequences)
    assert ragged.values.dtype == np.uint16
    assert [ragged[at].tolist() for at in range(len(ragged))] == [[], [1, 2], [], [3], [65_535]]
    assert len(Ragged.of([])) == 0
