"""What a prepared split is: the settings it was made with, the shards it was made from, its counts and its digests.

OUT/tokenizer/tokenizer.json
OUT/train/rows.bin, manifest.json
OUT/val/rows.bin, manifest.json, token_bytes.npy
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from baseline.data.durable import read_sealed, seal, write_sealed
from baseline.data.errors import DataError

FORMAT = 1
TOKEN_BYTES = 2
"""A token id in rows.bin: unsigned, little-endian."""
MAX_VOCAB_SIZE = 2 ** (8 * TOKEN_BYTES)
NUM_SPECIAL_TOKENS = 9
Split = Literal["train", "val"]

TOKENIZER_FILE = "tokenizer/tokenizer.json"
MANIFEST_FILE = "manifest.json"
ROWS_FILE = "rows.bin"
TOKEN_BYTES_FILE = "token_bytes.npy"


@dataclass(frozen=True, slots=True)
class DataSettings:
    """What a track fixes about its data, apart from the shards."""

    sequence_len: int
    """T, tokens that a model sees; a row holds T + 1, inputs and targets being shifted by one."""
    vocab_size: int
    """Learned and special tokens together."""
    tokenizer_characters: int = 2_000_000_000
    """Characters at the start of the training split that the tokenizer learns from."""
    document_characters: int = 10_000
    """Characters of one document, at most, that the tokenizer learns from."""
    buffer_documents: int = 1_000
    """Documents among which the packer chooses, at least."""
    refill_documents: int = 128
    """Documents that come in together when fewer wait."""

    def checked(self) -> DataSettings:
        """Return self, or raise DataError for the first field that cannot work."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise DataError(f"{field.name} = {getattr(self, field.name)}: it must be at least 1")
        smallest = 256 + NUM_SPECIAL_TOKENS
        if not smallest <= self.vocab_size <= MAX_VOCAB_SIZE:
            raise DataError(
                f"vocab_size = {self.vocab_size}: it must lie between {smallest} (the bytes and the special tokens) "
                f"and {MAX_VOCAB_SIZE} (token ids are stored in 16 bits)"
            )
        return self


NANO = DataSettings(sequence_len=256, vocab_size=2048)
"""For the embedded corpus, whose training split the tokenizer sees whole."""


@dataclass(frozen=True, slots=True)
class SourceShard:
    """One shard that a split was made from."""

    name: str
    size: int
    """Bytes of the file."""
    documents: int
    text_bytes: int
    """UTF-8 bytes of the documents."""
    text_sha256: str
    """`shards.TextDigest` of the documents."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One split. `rows · (T + 1) + cropped_tokens + tail_tokens = tokens`."""

    split: Split
    settings: DataSettings
    recipe_sha256: str
    """Digest of everything that determines the bytes: settings, and names and sizes of all shards."""
    rows: int
    documents: int
    text_bytes: int
    """UTF-8 bytes of the documents."""
    tokens: int
    """Tokens of the documents, BOS included, before packing."""
    cropped_tokens: int
    """Tokens discarded because their document was cropped to fill a row."""
    cropped_share: float
    """Of all tokens, between 0 and 1."""
    tail_tokens: int
    """Tokens of the last, incomplete row, which is dropped."""
    bos_id: int
    corpus_sha256: str
    """SHA-256 over the `text_sha256` of the shards, one hexadecimal line each."""
    tokenizer_sha256: str
    rows_sha256: str
    token_bytes_sha256: str | None
    """Of token_bytes.npy, in the validation split; None in the training split, which has no such file."""
    shards: tuple[SourceShard, ...]

    @property
    def row_length(self) -> int:
        """T + 1."""
        return self.settings.sequence_len + 1

    def write(self, folder: Path) -> None:
        """Write `folder`/manifest.json, sealed and durable."""
        write_sealed(folder / MANIFEST_FILE, {"format": FORMAT, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read `folder`/manifest.json. Raises DataError when it is missing, damaged or of another format."""
        path = folder / MANIFEST_FILE
        content = read_sealed(path)
        if content.pop("format", None) != FORMAT:
            raise DataError(f"{path} is not of format {FORMAT}, which this program reads: prepare the data again")
        shards = tuple(SourceShard(**shard) for shard in content.pop("shards"))
        return cls(**{**content, "settings": DataSettings(**content["settings"]), "shards": shards})


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON-like value, in hexadecimal."""
    return seal(content)[0]
