"""The tokenizer: deterministic, inspectable, lossless, with raw byte counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline.data.errors import DataError
from baseline.data.tokenizer import SPECIAL_TOKENS, Tokenizer, encode_document, train_tokenizer

REPOSITORY = Path(__file__).parents[2]
TEXTS = ["the cat sat on the mat and the dog sat on the log 12345 ", "Grüße, 世界! don't stop\n\n  indented\tcode = f(x)\r\n"] * 20


def trained(vocab_size: int = 300) -> Tokenizer:
    return train_tokenizer(TEXTS, vocab_size, characters=10**6, document_characters=10_000)


TOKENIZER = trained()
ENCODING = TOKENIZER.encoding()


def test_the_vocabulary_includes_bytes_learned_tokens_and_the_nine_special_ones() -> None:
    assert TOKENIZER.vocab_size == 300
    assert TOKENIZER.tokens[:256] == tuple(bytes([value]) for value in range(256))
    assert len(TOKENIZER.tokens) == 300 - 9
    assert TOKENIZER.special_tokens == SPECIAL_TOKENS
    assert TOKENIZER.bos_id == 291
    assert ENCODING.n_vocab == 300


def test_two_trainings_give_the_same_merges_whatever_the_threads() -> None:
    program = (
        "from baseline.data.tokenizer import train_tokenizer;"
        "texts = [f'{chr(97 + i % 26)}{chr(97 + i // 26 % 26)} apples and {i * 31 % 97} pears' for i in range(676)];"
        "print(train_tokenizer(texts, 400, 10**6, 10_000).digest)"
    )
    digests = set()
    for threads in ("1", "2", "2"):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RAYON_NUM_THREADS": threads}
        digests.add(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True).stdout)
    assert len(digests) == 1


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_survives_a_round_trip_behind_its_bos(text: str) -> None:
    ids = encode_document(ENCODING, TOKENIZER.bos_id, text).tolist()
    assert ids[0] == TOKENIZER.bos_id
    assert TOKENIZER.bos_id not in ids[1:]
    assert b"".join(TOKENIZER.tokens[token] for token in ids[1:]) == text.encode()


def test_text_that_spells_a_special_token_is_ordinary_text() -> None:
    ids = encode_document(ENCODING, TOKENIZER.bos_id, "<|bos|><|user_end|>").tolist()
    assert max(ids[1:]) < len(TOKENIZER.tokens)


def test_token_bytes_counts_raw_bytes_and_gives_special_tokens_none() -> None:
    sizes = TOKENIZER.token_bytes()
    assert sizes.shape == (300,)
    assert sizes[:256].tolist() == [1] * 256  # also the bytes that are no character by themselves
    assert sizes[-9:].tolist() == [0] * 9
    text = "Grüße, 世界! don't stop"
    assert sizes[encode_document(ENCODING, TOKENIZER.bos_id, text)].sum() == len(text.encode())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("12345", ["12", "34", "5"]),
        ("don't", ["don", "'t"]),
        ("a cat, or", ["a", " cat", ",", " or"]),
        ("x  = 1", ["x", " ", " =", " ", "1"]),
        ("a\n\n b", ["a", "\n\n", " b"]),
    ],
)
def test_text_is_split_as_gpt4_does_with_at_most_two_digits_together(text: str, parts: list[str]) -> None:
    import regex  # type: ignore[import-untyped,unused-ignore]

    assert regex.findall(TOKENIZER.pattern, text) == parts


def test_training_sees_the_first_characters_of_each_document_and_of_the_corpus() -> None:
    only_a = train_tokenizer(["ab" * 50 + "zq" * 500, "mn" * 500], 256 + 9 + 1, characters=100, document_characters=100)
    assert only_a.tokens[256] == b"ab"
    with_second = train_tokenizer(["ab" * 10 + "zq" * 500, "mn" * 500], 256 + 9 + 1, characters=200, document_characters=20)
    assert with_second.tokens[256] == b"ab"
    later = train_tokenizer(["ab" * 10 + "zq" * 500, *["mn" * 500] * 9], 256 + 9 + 1, characters=200, document_characters=20)
    assert later.tokens[256] == b"mn"


def test_the_file_is_plain_json_that_loads_to_the_same_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(path)
    content = json.loads(path.read_text())
    assert content["sha256"] == TOKENIZER.digest
    assert bytes.fromhex(content["tokens"][97]) == b"a"
    assert content["pattern"] == TOKENIZER.pattern
    assert Tokenizer.load(path) == TOKENIZER


def test_too_little_text_for_the_vocabulary_is_an_error_that_says_how_much_it_gives() -> None:
    with pytest.raises(DataError, match=r"vocab_size = 400 .* it yields \d+ tokens"):
        train_tokenizer(["abab"], 400, characters=100, document_characters=100)


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json is missing"):
        Tokenizer.load(tmp_path / "absent.json")
    (tmp_path / "foreign.json").write_text('{"tokens": []}')
    with pytest.raises(DataError, match=r"foreign\.json is damaged"):
        Tokenizer.load(tmp_path / "foreign.json")
