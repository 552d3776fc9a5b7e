"""Encoding batches: the ids of tiktoken, document by document, whatever the text."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from baseline.data.encoding import BatchEncoder, chunk_bounds
from baseline.data.shards import DocumentBatch, Utf8Batch
from baseline.data.tokenizer import encode_document, train_tokenizer

TEXTS = [
    "the cat's hat isn't 12345 or 3.14,  it (really) IS\n\n  indented\tcode = f(x)\r\n",
    'Grüße, 世界! \'tis "quoted" -- and so on...\n\n\nNext: x1 = 2y; \u00a0no-break\u2028line\n',
] * 20
TOKENIZER = train_tokenizer(TEXTS, 340, characters=10**6, document_characters=10_000)
ENCODING = TOKENIZER.encoding()
ENCODER = BatchEncoder(TOKENIZER)
SIGNIFICANT = "as1'.- \n\t\r\x0b\x1cé\u00a0\u3000١\u0301"


def utf8(texts: list[str]) -> Utf8Batch:
    return DocumentBatch(pa.array(texts, pa.large_string()), 0).utf8()


def one_by_one(texts: list[str]) -> NDArray[np.uint16]:
    return np.concatenate([encode_document(ENCODING, TOKENIZER.bos_id, text) for text in texts])


def assert_same(texts: list[str]) -> None:
    assert ENCODER.encode(utf8(texts)).tolist() == one_by_one(texts).tolist()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_every_short_text_of_characters_that_the_split_pattern_tells_apart(length: int) -> None:
    assert_same(["".join(characters) for characters in product(SIGNIFICANT, repeat=length)])


def test_every_text_of_five_ascii_kinds() -> None:
    assert_same(["".join(characters) for characters in product("a1. \n'", repeat=5)])


@given(st.lists(st.text(st.sampled_from(SIGNIFICANT), max_size=40), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_texts_of_significant_characters(texts: list[str]) -> None:
    assert_same(texts)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_any_texts(texts: list[str]) -> None:
    assert_same(texts)


@given(st.lists(st.text(st.characters(max_codepoint=127), max_size=80), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_ascii_texts(texts: list[str]) -> None:
    assert_same(texts)


def test_text_that_spells_special_tokens_is_ordinary_text() -> None:
    texts = ["<|bos|>", "a<|bos|><|bos|>b", " <|user_start|> ", "<|bos", "|>"]
    assert_same(texts)
    assert (ENCODER.encode(utf8(texts)) == TOKENIZER.bos_id).sum() == len(texts)


def test_documents_do_not_run_into_each_other_and_empty_ones_keep_their_bos() -> None:
    assert_same(["", "the c", "at", "", " ", "12", "34", "\n", "", ""])
    assert ENCODER.encode(utf8([])).tolist() == []


def test_a_part_of_a_batch_is_read_where_it_lies() -> None:
    texts = ["first one", "the second", "a third", "and 4"]
    column = pa.array(texts, pa.large_string()).slice(1, 2)
    assert ENCODER.encode(DocumentBatch(column, 0).utf8()).tolist() == one_by_one(texts[1:3]).tolist()


def parts_of(text: str) -> list[str]:
    """The chunks of one document."""
    bounds = chunk_bounds(utf8([text]))
    return [text.encode()[start:end].decode() for start, end in pairwise(bounds.tolist())]


def test_plain_text_is_cut_into_words_and_signs() -> None:
    parts = ["The", " cat", "'s", " 12", " hats", ",", " (all", ")", " red", ".\n", "Next"]
    assert parts_of("".join(parts)) == parts


def test_no_cut_is_made_beside_characters_outside_ascii_or_after_blanks() -> None:
    for character in map(chr, range(128)):
        assert parts_of("é" + character + "é") == ["é" + character + "é"]
        for blank in " \t\r\x0b\x0c":
            assert parts_of(blank + character) == [blank + character]
