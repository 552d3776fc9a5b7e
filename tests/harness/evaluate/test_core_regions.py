"""Which tokens are scored: by hand, for tokenizers whose tokens cross the boundaries too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluate.core.examples import parse_examples
from harness.evaluate.core.items import ExampleItem, Kind
from harness.evaluate.core.prepared import PreparedTask
from harness.evaluate.core.regions import common_prefix, common_suffix, crop
from harness.evaluate.core.rows import tokenize_task
from harness.evaluate.core.tokenizer import TiktokenTokenizer
from tests.harness.evaluate.core_samples import Rows, content_of, crossing_tokenizer, task_of

BYTES = crossing_tokenizer()
"""Every byte a token."""


def tokenized(kind: Kind, rows: Rows, tokenizer: TiktokenTokenizer = BYTES, delimiter: str = " ", **settings: int) -> PreparedTask:
    task = task_of(kind, rows, delimiter=delimiter)
    return tokenize_task(task, parse_examples(task, content_of(rows), "here"), tokenizer, **settings)


def scored(item: ExampleItem, tokenizer: TiktokenTokenizer = BYTES) -> list[str]:
    """The text of each row's region."""
    return [tokenizer.encoding.decode(row.tokens[row.start : row.end].tolist()) for row in item.rows]


def whole(item: ExampleItem, tokenizer: TiktokenTokenizer = BYTES) -> list[str]:
    """The text of each row behind BOS."""
    assert all(row.tokens[0] == tokenizer.bos_id for row in item.rows)
    return [tokenizer.encoding.decode(row.tokens[1:].tolist()) for row in item.rows]


def test_choices_are_scored_from_where_they_differ() -> None:
    (item,) = tokenized("multiple_choice", [{"query": "It is", "choices": ["warm", "wet", "was"], "gold": 1}])
    assert whole(item) == ["It is warm", "It is wet", "It is was"]
    assert scored(item) == ["arm", "et", "as"]
    assert item.gold == 1
    assert len({row.start for row in item.rows}) == 1


def test_schemas_are_scored_on_the_ending_that_all_options_share() -> None:
    (item,) = tokenized("schema", [{"context_options": ["Ann left as Ann", "Ann left as Eve"], "continuation": "was late", "gold": 0}])
    assert whole(item) == ["Ann left as Ann was late", "Ann left as Eve was late"]
    assert scored(item) == [" was late", " was late"]


def test_the_shared_ending_of_a_schema_may_reach_into_the_options() -> None:
    (item,) = tokenized("schema", [{"context_options": ["a cat", "the rat"], "continuation": "ran", "gold": 0}])
    assert scored(item) == ["at ran", "at ran"]


def test_language_modelling_scores_the_delimiters_last_blank_with_the_continuation() -> None:
    (item,) = tokenized("language_modeling", [{"context": "Up and ", "continuation": "down"}], delimiter="\nAnswer: ")
    assert whole(item) == ["Up and\nAnswer: down"]
    assert scored(item) == [" down"]
    assert item.gold == 0


def test_a_token_over_the_start_of_the_continuation_is_scored_and_counted() -> None:
    tokenizer = crossing_tokenizer("s: ice")
    task = tokenized("language_modeling", [{"context": "x", "continuation": "icecap"}], tokenizer, delimiter="\nThis: ")
    (item,) = task
    assert scored(item, tokenizer) == ["s: icecap"]
    assert task.quirks.merged_boundaries == 1


def test_without_a_crossing_token_nothing_is_counted() -> None:
    task = tokenized("language_modeling", [{"context": "x", "continuation": "icecap"}], delimiter="\nThis: ")
    assert task.quirks.merged_boundaries == 0


def test_choices_whose_first_token_reaches_into_the_question_are_scored_from_that_token() -> None:
    tokenizer = crossing_tokenizer("? no")
    (item,) = tokenized("multiple_choice", [{"query": "Really?", "choices": ["yes", "no"], "gold": 0}], tokenizer)
    assert scored(item, tokenizer) == ["? yes", "? no"]


def test_a_choice_that_begins_all_the_others_has_no_scored_token_and_is_counted() -> None:
    task = tokenized("multiple_choice", [{"query": "It is", "choices": ["warmer", "warm"], "gold": 0}])
    (item,) = task
    assert scored(item) == ["er", ""]
    assert item.rows[1].start == item.rows[1].end == len(item.rows[1].tokens)
    assert task.quirks.unscored_rows == 1


def test_long_rows_lose_their_left_end_and_their_regions_move_along() -> None:
    task = tokenized("multiple_choice", [{"query": "It is", "choices": ["warm", "wet"], "gold": 0}], max_length=5)
    (item,) = task
    assert [BYTES.encoding.decode(row.tokens.tolist()) for row in item.rows] == [" warm", "s wet"]
    assert scored(item) == ["arm", "et"]
    assert (task.quirks.cropped_rows, task.quirks.cropped_regions) == (2, 0)


def test_a_region_that_does_not_fit_is_scored_as_far_as_it_fits_and_counted() -> None:
    task = tokenized("multiple_choice", [{"query": "It is", "choices": ["warm", "so wet"], "gold": 0}], max_length=4)
    (item,) = task
    assert [BYTES.encoding.decode(row.tokens.tolist()) for row in item.rows] == ["warm", " wet"]
    assert scored(item) == ["arm", "wet"]
    assert (task.quirks.cropped_rows, task.quirks.cropped_regions) == (2, 2)


def test_a_row_that_fits_exactly_is_not_cropped() -> None:
    row = {"context": "ab", "continuation": "cd"}
    assert tokenized("language_modeling", [row], max_length=6).quirks.cropped_rows == 0
    assert tokenized("language_modeling", [row], max_length=5).quirks.cropped_rows == 1


def test_equal_rows_have_equal_keys_and_other_tokens_or_regions_other_keys() -> None:
    texts = [("ab", "cd"), ("ab", "cd"), ("ab c", "d"), ("ab", "ce")]
    items = tokenized("language_modeling", [{"context": context, "continuation": ending} for context, ending in texts])
    keys = {item.line: item.rows[0].key for item in items}
    assert keys[1] == keys[2]
    assert len(set(keys.values())) == 3


def test_a_key_is_the_same_everywhere() -> None:
    (item,) = tokenized("language_modeling", [{"context": "a", "continuation": "b"}])
    assert item.rows[0].tokens.tolist() == [256, 97, 32, 98]
    assert item.rows[0].key.hex() == "868e6624de6339a4aeac557e37101e5d"


IDS = st.lists(st.integers(0, 2), max_size=6)


@given(st.lists(IDS, min_size=1, max_size=4))
def test_common_ends_are_as_long_as_can_be(rows: list[list[int]]) -> None:
    arrays = [np.array(row, np.int32) for row in rows]
    shortest = min(map(len, rows))
    assert common_prefix(arrays) == max(n for n in range(shortest + 1) if len({tuple(row[:n]) for row in rows}) == 1)
    assert common_suffix(arrays) == max(n for n in range(shortest + 1) if len({tuple(row[len(row) - n :]) for row in rows}) == 1)


@given(st.integers(1, 50), st.integers(1, 50), st.none() | st.integers(1, 60))
def test_a_crop_keeps_the_region_at_the_right_end(length: int, region: int, max_length: int | None) -> None:
    start = max(1, length - region)
    kept, moved = crop(length, start, max_length)
    assert kept == (length if max_length is None else min(length, max_length))
    assert moved == 1 or kept - moved == length - start
    assert moved >= 1


@pytest.mark.parametrize("index", [3, -4])
def test_an_example_that_is_not_there_is_an_index_error(index: int) -> None:
    task = tokenized("language_modeling", [{"context": "a", "continuation": letter} for letter in "bcd"])
    assert task[-1].example == 2
    assert [item.example for item in task[1:]] == [1, 2]
    with pytest.raises(IndexError, match="3 examples"):
        task[index]
