"""Byte-pair encoding: trained with rustbpe, kept as one inspectable JSON file, run by tiktoken.

Text is split as GPT-4 splits it, except that digits go in groups of at most two, which suits small vocabularies
(nanochat measured 0.965 bpb with two, 0.972 with three and 0.969 with one, at depth 12 and 32,768 tokens).
Token ids: the 256 bytes, then the learned tokens in order of merging, then the special tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rustbpe
import tiktoken
from numpy.typing import NDArray

from baseline.data.durable import read_sealed, seal, write_sealed
from baseline.data.errors import DataError
from baseline.data.progress import Progress, Tally, silent

SPLIT_PATTERN = "|".join(
    [
        r"'(?i:[sdmt]|ll|ve|re)",  # English contractions
        r"[^\r\n\p{L}\p{N}]?+\p{L}+",  # a word, with at most one sign or blank before it
        r"\p{N}{1,2}",  # one or two digits
        r" ?[^\s\p{L}\p{N}]++[\r\n]*",  # punctuation and the line ends after it
        r"\s*[\r\n]",  # blanks up to the end of a line
        r"\s+(?!\S)",  # blanks, without the last one before a word
        r"\s+",
    ]
)

BOS = "<|bos|>"
SPECIAL_TOKENS = (
    BOS,
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)
FORMAT = 1
CHARACTERS_PER_REPORT = 1_000_000


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """What defines the encoding; `encoding()` runs it."""

    pattern: str
    tokens: tuple[bytes, ...]
    """Bytes of each ordinary token, by id."""
    special_tokens: tuple[str, ...] = SPECIAL_TOKENS

    @property
    def vocab_size(self) -> int:
        """Ordinary and special tokens together."""
        return len(self.tokens) + len(self.special_tokens)

    @property
    def bos_id(self) -> int:
        """The id of the token that begins every document."""
        return len(self.tokens) + self.special_tokens.index(BOS)

    @property
    def digest(self) -> str:
        """SHA-256 of the content of the tokenizer's file."""
        return seal(self._content())[0]

    def encoding(self) -> tiktoken.Encoding:
        """The runnable encoding; build it once and keep it."""
        ranks = {token: rank for rank, token in enumerate(self.tokens)}
        specials = {name: len(self.tokens) + index for index, name in enumerate(self.special_tokens)}
        return tiktoken.Encoding("baseline", pat_str=self.pattern, mergeable_ranks=ranks, special_tokens=specials)

    def token_bytes(self) -> NDArray[np.int32]:
        """(V,) number of bytes that each token stands for; 0 for special tokens.

        Counted on the raw bytes: a token that is half of a character has no text of its own, and decoding it would miscount.
        """
        return np.array([len(token) for token in self.tokens] + [0] * len(self.special_tokens), dtype=np.int32)

    def save(self, path: Path) -> None:
        """Write the sealed JSON file."""
        write_sealed(path, self._content())

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a tokenizer's file. Raises DataError when it is missing, damaged or of another format."""
        content = read_sealed(path)
        if content.get("format") != FORMAT:
            raise DataError(f"{path} has format {content.get('format')!r}, and this program reads format {FORMAT}: prepare the data again")
        return cls(content["pattern"], tuple(bytes.fromhex(token) for token in content["tokens"]), tuple(content["special_tokens"]))

    def _content(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "pattern": self.pattern,
            "special_tokens": list(self.special_tokens),
            "tokens": [token.hex() for token in self.tokens],
        }


def encode_document(encoding: tiktoken.Encoding, bos_id: int, text: str) -> NDArray[np.uint16]:
    """(n + 1,) the document's token ids with BOS before them. Text that spells a special token is ordinary text."""
    ids = encoding.encode_to_numpy(text, disallowed_special=())
    document = np.empty(len(ids) + 1, dtype="<u2")
    document[0] = bos_id
    document[1:] = ids
    return document


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, characters: int, document_characters: int, progress: Progress = silent
) -> Tokenizer:
    """Learn `vocab_size` tokens, specials included, from the first `characters` of `texts`, each cut to `document_characters`.

    The merges depend on the text alone, not on threads or machine. Raises DataError when the text has too few distinct pairs.
    """
    learned = vocab_size - len(SPECIAL_TOKENS)
    tally = Tally("tokenizer", characters, progress)
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(_training_text(texts, characters, document_characters, tally), learned, pattern=SPLIT_PATTERN)
    tally.finish()
    tokens = tuple(bytes(token) for token, _ in sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1]))
    if len(tokens) != learned:
        raise DataError(
            f"vocab_size = {vocab_size} is more than the training text supports: it yields {len(tokens) + len(SPECIAL_TOKENS)} tokens. "
            "Lower vocab_size, or give more text"
        )
    return Tokenizer(SPLIT_PATTERN, tokens)


def _training_text(texts: Iterable[str], characters: int, document_characters: int, tally: Tally) -> Iterator[str]:
    """The part of `texts` that the tokenizer learns from."""
    left, unreported = characters, 0
    for text in texts:
        part = text[: min(document_characters, left)]
        left -= len(part)
        unreported += len(part)
        if unreported >= CHARACTERS_PER_REPORT:
            tally.advance(unreported)
            unreported = 0
        yield part
        if not left:
            break
    tally.advance(unreported)
