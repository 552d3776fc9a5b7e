"""Token ids of many documents at once: the ids that tiktoken gives, for a fraction of its time.

Text repeats itself, so it is cut into short chunks and each distinct chunk of a batch is encoded once. A cut is made only where the
split pattern has a boundary whatever lies further left or right, which two neighbouring ASCII characters can decide:

    a letter, then anything but a letter                  no alternative of the pattern goes on after letters
    a digit, then anything but a digit                    digits stand alone
    a sign or a line feed, then a digit                   likewise
    a sign, then a space                                  a space is the beginning of a part, or among blanks
    a line feed, then a letter or a sign                  blanks and signs take in line ends, and no more than that

No cut follows a space or a tab, although there are boundaries: how blanks are split depends on whether anything comes after them.
No cut is made beside a character outside ASCII: what is a letter there depends on the version of Unicode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from baseline.data.shards import Utf8Batch
from baseline.data.tokenizer import BOS, Tokenizer

Kind = Literal["letter", "digit", "sign", "line feed", "space", "other"]
CUT_AFTER: dict[Kind, tuple[Kind, ...]] = {
    "letter": ("digit", "sign", "line feed", "space", "other"),
    "digit": ("letter", "sign", "line feed", "space", "other"),
    "sign": ("digit", "space"),
    "line feed": ("letter", "digit", "sign"),
}
"""Kinds of ASCII characters -> what a cut separates them from."""


def kind_of(byte: int) -> Kind:
    """What an ASCII character is to the rules; tabs and control characters are `other`."""
    character = chr(byte)
    if character.isalpha():
        return "letter"
    if character.isdigit():
        return "digit"
    if character == "\n":
        return "line feed"
    if character == " ":
        return "space"
    return "sign" if character.isprintable() else "other"


def _flags(byte: int) -> int:
    """Bit i: the byte is of the i-th kind of CUT_AFTER. Bit 4 + i: that kind is cut off from this byte. None outside ASCII."""
    if byte >= 128:
        return 0
    kind, flags = kind_of(byte), 0
    for bit, (before, after) in enumerate(CUT_AFTER.items()):
        flags |= (kind == before) << bit | (kind in after) << 4 + bit
    return flags


FLAGS = bytes(_flags(byte) for byte in range(256))
SLICE = 1 << 16
"""Bytes or chunks that are worked on at a time, so that what is between two steps stays in the processor's cache."""
MOST_IDS_KEPT = 1 << 20
"""Ids of chunks that are remembered from batch to batch; beyond, all is forgotten. About 250,000 chunks of English."""


@dataclass(frozen=True, slots=True)
class ChunkIds:
    """The token ids of some chunks, one after another: chunk i has ids[starts[i] : starts[i] + sizes[i]]."""

    ids: NDArray[np.uint16]
    starts: NDArray[np.int32]
    sizes: NDArray[np.int32]

    def followed_by(self, other: ChunkIds) -> ChunkIds:
        """These chunks and then the others."""
        ids = np.concatenate([self.ids, other.ids])
        starts = np.concatenate([self.starts, other.starts + np.int32(len(self.ids))])
        return ChunkIds(ids, starts, np.concatenate([self.sizes, other.sizes]))

    def spelled(self, numbers: NDArray[np.int32]) -> NDArray[np.uint16]:
        """The ids of the chunks with these numbers, in their order."""
        parts = [self._spelled(numbers[start : start + SLICE]) for start in range(0, len(numbers), SLICE)]
        return np.concatenate([self.ids[:0], *parts])

    def _spelled(self, numbers: NDArray[np.int32]) -> NDArray[np.uint16]:
        sizes = self.sizes[numbers]
        places = np.repeat(self.starts[numbers] - (np.cumsum(sizes) - sizes), sizes)
        places += np.arange(len(places))
        spelled: NDArray[np.uint16] = self.ids[places]
        return spelled


class BatchEncoder:
    """Runs a tokenizer over batches of documents. Needs the split pattern that the rules above are made for, which all tokenizers have.

    Chunks are numbered: first the tokens of the vocabulary, then BOS, then others that were met, in this batch or an earlier one.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encoding = tokenizer.encoding()
        self._bos_id = tokenizer.bos_id
        # Nine of ten chunks of English are tokens of the vocabulary (measured at 32,768), and in a small table they are found fastest.
        self._vocabulary = pa.array([token for token in tokenizer.tokens if _is_text(token)], pa.large_binary())
        self._bos_number = len(self._vocabulary)
        bos = ChunkIds(np.array([self._bos_id], dtype="<u2"), np.zeros(1, np.int32), np.ones(1, np.int32))
        self._first_table = self._encode_apart(self._vocabulary).followed_by(bos)
        self._forget()

    def _forget(self) -> None:
        self._table = self._first_table
        self._met = self._vocabulary[:0]

    def encode(self, batch: Utf8Batch) -> NDArray[np.uint16]:
        """(n,) the documents' token ids one after another, BOS before each. Text that spells a special token is ordinary text."""
        bounds = chunk_bounds(batch)
        chunks = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), batch.data])
        numbers, others, absent = _looked_up(chunks, self._vocabulary)
        numbers[absent] = self._numbers_of(others) + np.int32(self._bos_number + 1)
        numbers = np.insert(numbers, np.searchsorted(bounds, batch.offsets[:-1]), self._bos_number)
        return self._table.spelled(numbers)

    def _numbers_of(self, chunks: pa.LargeBinaryArray) -> NDArray[np.int32]:
        """Where among those that were met these chunks are; those that are new are encoded."""
        if len(self._table.ids) > MOST_IDS_KEPT:
            self._forget()
        numbers, others, absent = _looked_up(chunks, self._met)
        new = others.dictionary_encode()
        numbers[absent] = new.indices.to_numpy() + np.int32(len(self._met))
        self._table = self._table.followed_by(self._encode_apart(new.dictionary))
        self._met = pa.concat_arrays([self._met, new.dictionary])
        return numbers

    def _encode_apart(self, chunks: pa.LargeBinaryArray) -> ChunkIds:
        """The ids of each chunk by itself, from one call: tiktoken encodes what lies between special tokens separately.

        No chunk spells BOS, which has a cut after its letters.
        """
        text = BOS.encode().join(chunks.to_pylist()).decode()
        ids = self._encoding.encode_to_numpy(text, allowed_special={BOS}, disallowed_special=()).astype("<u2")
        separators = np.flatnonzero(ids == self._bos_id).astype(np.int32)
        starts = np.append(np.int32(0), separators + 1)[: len(chunks)].astype(np.int32)
        ends = np.append(separators, len(ids))[: len(chunks)]
        return ChunkIds(ids, starts, (ends - starts).astype(np.int32))


def chunk_bounds(batch: Utf8Batch) -> NDArray[np.int64]:
    """(chunks + 1,) where chunks begin and end in the batch's data, in bytes; documents begin with a chunk."""
    first, end = int(batch.offsets[0]), int(batch.offsets[-1])
    data = memoryview(batch.data)[first:end]
    cut = np.empty(len(data) + 1, dtype=bool)
    for start in range(0, len(data), SLICE):
        flags = np.frombuffer(bytes(data[start : start + SLICE + 1]).translate(FLAGS), dtype=np.uint8)
        np.not_equal(flags[:-1] & flags[1:] >> 4, 0, out=cut[start + 1 : start + len(flags)])
    cut[batch.offsets - first] = True
    bounds = np.flatnonzero(cut)
    bounds += first
    return bounds


def _looked_up(chunks: pa.LargeBinaryArray, known: pa.LargeBinaryArray) -> tuple[NDArray[np.int32], pa.LargeBinaryArray, NDArray[np.bool_]]:
    """(place of each chunk among the known ones, arbitrary where absent; the absent chunks; which they are)."""
    found = pc.index_in(chunks, value_set=known)
    absent = found.is_null()
    places = np.frombuffer(found.buffers()[1], dtype=np.int32)[: len(chunks)].copy()
    return places, chunks.filter(absent), absent.to_numpy(zero_copy_only=False)


def _is_text(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True
