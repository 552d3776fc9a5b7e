"""The prepared data of a track: where it lies, whether it is what the track pins, and how it is made."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from baseline.data.errors import DataError
from baseline.data.integrity import Prepared, verify
from baseline.data.manifest import ROWS_FILE, TOKEN_BYTES_FILE, DataSettings, Manifest
from baseline.data.prepare import prepare_docstrings
from baseline.data.progress import Progress, silent
from harness.errors import MachineLacks
from harness.track import Track


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Rows and tokenizer on disk, verified against the track's digests when this object was made."""

    folder: Path
    train: Manifest
    val: Manifest
    tokenizer_digest: str

    @property
    def train_rows(self) -> Path:
        return self.folder / "train" / ROWS_FILE

    @property
    def train_rows_digest(self) -> str:
        return self.train.rows_sha256

    @property
    def val_rows_digest(self) -> str:
        return self.val.rows_sha256

    def held_out(self, count: int) -> HeldOut:
        """The first `count` held-out rows and the bytes of each token, hashed as they are read; raises MachineLacks when they changed."""
        folder = self.folder / "val"
        row_bytes = _unchanged(folder / ROWS_FILE, self.val.rows_sha256)
        token_bytes = _unchanged(folder / TOKEN_BYTES_FILE, str(self.val.token_bytes_sha256))
        rows = np.frombuffer(row_bytes, "<u2").reshape(self.val.rows, self.val.row_length)
        return HeldOut(rows[:count], np.load(io.BytesIO(token_bytes), allow_pickle=False))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What is scored: rows (N, T+1) uint16, and bytes of each token (V,) int32, 0 for special tokens."""

    rows: NDArray[np.uint16]
    token_bytes: NDArray[np.int32]


def _unchanged(path: Path, digest: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise MachineLacks("has changed since it was prepared", where=str(path), mend="`speedrun data prepare` says what to do")
    return content


def prepare_data(track: Track, data_folder: Path, progress: Progress = silent) -> PreparedData:
    """Make the track's data, or verify and reuse what is there. Raises MachineLacks with one line otherwise."""
    folder = data_folder / track.name
    if track.data.corpus != "docstrings":
        raise MachineLacks(
            f"the rows of track {track.name} are not here and its shards are not downloaded by this version",
            where=str(folder),
            mend="use --track nano",
        )
    settings = DataSettings(sequence_len=track.data.sequence_len, vocab_size=track.data.vocab_size)
    try:
        prepared = prepare_docstrings(folder, settings, workers=os.cpu_count() or 1, progress=progress)
    except DataError as error:
        raise MachineLacks(str(error)) from None
    return _pinned(track, folder, prepared)


def open_data(track: Track, data_folder: Path) -> PreparedData:
    """The data that is there, every byte verified; raises MachineLacks when it is missing or damaged."""
    folder = data_folder / track.name
    try:
        return _pinned(track, folder, verify(folder))
    except DataError as error:
        raise MachineLacks(str(error), mend=f"`speedrun data prepare --track {track.name}` makes it") from None


def _pinned(track: Track, folder: Path, prepared: Prepared) -> PreparedData:
    """Compare with the digests that the track pins."""
    pins = {
        "corpus_digest": (track.data.corpus_digest, prepared.train.corpus_sha256),
        "tokenizer_digest": (track.data.tokenizer_digest, prepared.tokenizer_sha256),
        "train_rows_digest": (track.data.train_rows_digest, prepared.train.rows_sha256),
        "val_rows_digest": (track.data.val_rows_digest, prepared.val.rows_sha256),
    }
    for name, (pinned, found) in pins.items():
        if pinned is not None and pinned != found:
            raise MachineLacks(
                f"{name} is {found[:12]}…, the track pins {pinned[:12]}…",
                where=f"{folder} against harness/tracks/{track.name}.toml",
                mend="install the locked packages (make setup) and delete the folder",
            )
    if prepared.val.rows < track.data.val_rows:
        raise MachineLacks(f"the validation split has {prepared.val.rows} rows, the track scores {track.data.val_rows}", where=str(folder))
    return PreparedData(folder, prepared.train, prepared.val, prepared.tokenizer_sha256)
