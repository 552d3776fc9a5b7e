"""What the evaluator asks of a tokenizer, and tiktoken in that form."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import tiktoken
from numpy.typing import NDArray

from baseline.data.tokenizer import SPLIT_PATTERN

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CL100K_PATTERN = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
SPACE_SPLITTING_PATTERNS = frozenset({GPT2_PATTERN, CL100K_PATTERN, SPLIT_PATTERN})
"""Split patterns for which `cuts` holds: see there for the argument. tiktoken's gpt2 and cl100k_base, and the baseline's."""


class Tokenizer(Protocol):
    """Texts to token ids. Worker processes get it by pickle."""

    @property
    def bos_id(self) -> int:
        """The token that begins every row."""
        ...

    @property
    def digest(self) -> str:
        """Names the tokenization: equal digests, equal ids for every text, BOS included. What is cached is found by it."""
        ...

    @property
    def splits_before_spaces(self) -> bool:
        """No token reaches over a place where a space follows something that is not white space, and what stands on one side of it
        does not change the tokens of the other. When unsure False, which costs time and nothing else."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The token ids (n,) of each text, without BOS or any other special token; text that spells one is ordinary text."""
        ...


@dataclass(frozen=True, slots=True)
class TiktokenTokenizer:
    """A tiktoken encoding and the id of its BOS."""

    encoding: tiktoken.Encoding
    bos_id: int
    digest: str = field(init=False)
    splits_before_spaces: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self.encoding, self.bos_id))
        object.__setattr__(self, "splits_before_spaces", self.encoding._pat_str in SPACE_SPLITTING_PATTERNS)

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """As `Tokenizer.encode_batch`, on this thread alone."""
        return [self.encoding.encode_to_numpy(text, disallowed_special=()).astype(np.int32) for text in texts]


def _digest(encoding: tiktoken.Encoding, bos_id: int) -> str:
    """SHA-256 over split pattern, ranks and BOS; the other special tokens never occur."""
    sha256 = hashlib.sha256(f"{encoding._pat_str}\n{bos_id}\n".encode())
    for token, rank in sorted(encoding._mergeable_ranks.items(), key=lambda pair: pair[1]):
        sha256.update(f"{rank} {token.hex()}\n".encode())
    return sha256.hexdigest()
