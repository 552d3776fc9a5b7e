"""A text cut at safe places has the tokens of its pieces, one after another."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baseline.data.tokenizer import SPLIT_PATTERN
from harness.evaluate.core.cuts import cut, joined, trimmed, uncut
from harness.evaluate.core.tokenizer import CL100K_PATTERN, GPT2_PATTERN, TiktokenTokenizer
from tests.harness.evaluate.core_samples import crossing_tokenizer, learned_tokenizer, public_tokenizer

SPLITTING = {name: learned_tokenizer(p) for name, p in {"baseline": SPLIT_PATTERN, "gpt2": GPT2_PATTERN, "cl100k": CL100K_PATTERN}.items()}
ODD = [*"aZ09.,'s \u00a0\u3000\t\n\r\x1c\u2028\u0301é木ß_#(", "  ", "'s", "ll", "\r\n"]
TEXTS = st.lists(st.sampled_from(ODD), max_size=25).map("".join) | st.text(max_size=20)
BLOCKS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)


def assert_same_tokens(tokenizer: TiktokenTokenizer, blocks: list[tuple[str, str]]) -> None:
    pieces = joined(cut(stem, ending) for stem, ending in blocks)
    text = "".join(stem + ending for stem, ending in blocks)
    assert "".join(pieces) == text
    assert [token for ids in tokenizer.encode_batch(pieces) for token in ids.tolist()] == tokenizer.encoding.encode_ordinary(text)


@settings(max_examples=400, deadline=None)
@given(BLOCKS, st.sampled_from(list(SPLITTING)))
@example([("He said.\n\n", ""), (" Next", " one")], "baseline")
@example([("x  ", "  y z"), ("' s", "'s it")], "gpt2")
@example([("a.\n ", "\n b"), ("\n", " c")], "cl100k")
def test_pieces_have_the_tokens_of_the_whole(blocks: list[tuple[str, str]], name: str) -> None:
    assert_same_tokens(SPLITTING[name], blocks)


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base"])
def test_pieces_have_the_tokens_of_the_whole_in_public_tokenizers(name: str) -> None:
    tokenizer = public_tokenizer(name)
    assert tokenizer.splits_before_spaces

    @settings(max_examples=200, deadline=None)
    @given(BLOCKS)
    def check(blocks: list[tuple[str, str]]) -> None:
        assert_same_tokens(tokenizer, blocks)

    check()


def test_a_tokenizer_that_merges_over_spaces_is_not_cut() -> None:
    tokenizer = crossing_tokenizer("a b")
    assert not tokenizer.splits_before_spaces
    assert len(tokenizer.encode_batch(["a b"])[0]) == 1
    assert uncut("a", " b") == ("a b",)


@pytest.mark.parametrize(
    ("stem", "ending", "expected"),
    [
        ("What is it", " ice", ("What", " is", " it", " ice")),
        ("Question: ", "ice", ("Question:", " ice")),
        ("one", "two", ("onetwo",)),
        ("a\n b", " c", ("a\n b", " c")),
        ("a b  ", "  c", ("a", " b", "    c")),
        ("", "", ("",)),
    ],
)
def test_where_texts_are_cut(stem: str, ending: str, expected: tuple[str, ...]) -> None:
    """After the first word, before the last blank of the stem, before the last of all; never between blanks or after a line end."""
    assert cut(stem, ending) == expected


@given(st.text(max_size=20), TEXTS, TEXTS, TEXTS)
def test_what_precedes_the_last_cut_of_a_stem_is_the_same_for_every_ending(before: str, stem: str, one: str, other: str) -> None:
    """So that the choices of a question share it."""
    common = before + "x y" + stem
    here, there = cut(common, one), cut(common, other)
    last = max(at for at in range(len(common)) if common[at] == " " and "!" <= common[at - 1] <= "~")
    shared = 0
    for a, b in zip(here, there, strict=False):
        if a != b:
            break
        shared += len(a)
    assert shared >= last


@given(BLOCKS)
def test_pieces_are_trimmed_as_the_whole_is(blocks: list[tuple[str, str]]) -> None:
    pieces = joined(cut(stem, ending) for stem, ending in blocks)
    assert "".join(trimmed(pieces)) == "".join(pieces).strip()
    assert all(trimmed(pieces))
