"""Packs documents into rows of equal length without padding: BOS-aligned best fit.

A buffer holds at least the next 1,000 documents: whenever fewer wait, 128 more come in. A row takes, again and again, the longest
document of the buffer that fits into what is left of the row; among equally long ones the oldest. When none fits, the *shortest* of
the buffer, again the oldest, is cropped to fill the row exactly, and its rest is discarded. Every document begins with BOS, so every
row does. (nanochat's rule, which is for endless streams; here the stream ends, and what is then too little for a row is dropped.)

A document longer than a row never fits. It is taken only when no shorter one waits, so long documents gather in the buffer until
hardly any others are left in it. From then on the choice is among the 128 that last came in, which is why they come in batches:
one at a time, 37.8 % instead of 34.1 % of the tokens of a shard of book chapters would be cropped (rows of 2,049 tokens).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

AGE_BITS = 44
"""Key of a waiting document: its length in the high bits, its number in the stream in the low ones."""


class Packer:
    """Fills rows from a stream of documents, each an array of token ids that begins with BOS.

    A placement costs two binary searches in the sorted keys of the buffer and one move of at most 8 kB for the removal.
    """

    def __init__(self, documents: Iterable[NDArray[np.uint16]], buffer_documents: int, refill_documents: int) -> None:
        self._stream = iter(documents)
        self._buffer_documents = buffer_documents
        self._refill_documents = refill_documents
        self._keys: list[int] = []
        self._waiting: dict[int, NDArray[np.uint16]] = {}
        self.documents = 0
        """Documents read so far."""
        self.tokens = 0
        """Their tokens, BOS included."""
        self.cropped_tokens = 0
        """Tokens discarded because their document was cropped to fill a row."""
        self.tail_tokens = 0
        """Tokens of the last, incomplete row."""

    def fill(self, row: NDArray[np.uint16]) -> bool:
        """Write one full row in place. False when the documents do not suffice for it; the row's content is then meaningless."""
        keys, waiting = self._keys, self._waiting
        row_length = len(row)
        position = 0
        while position < row_length:
            self._top_up()
            if not keys:
                self.tail_tokens = position
                return False
            space = row_length - position
            fitting = bisect_left(keys, (space + 1) << AGE_BITS)
            if fitting:
                length = keys[fitting - 1] >> AGE_BITS
                chosen = bisect_left(keys, length << AGE_BITS, 0, fitting)
            else:
                chosen = 0
            document = waiting.pop(keys.pop(chosen))
            taken = min(len(document), space)
            row[position : position + taken] = document[:taken]
            self.cropped_tokens += len(document) - taken
            position += taken
        return True

    def _top_up(self) -> None:
        """Read batches of documents until the buffer holds enough or the stream has ended."""
        while len(self._keys) < self._buffer_documents:
            batch = list(islice(self._stream, self._refill_documents))
            if not batch:
                return
            for document in batch:
                self._add(document)

    def _add(self, document: NDArray[np.uint16]) -> None:
        if not len(document):
            raise ValueError(f"document {self.documents} has no tokens; each must begin with BOS")
        key = (len(document) << AGE_BITS) | self.documents
        self._keys.insert(bisect_left(self._keys, key), key)
        self._waiting[key] = document
        self.documents += 1
        self.tokens += len(document)
