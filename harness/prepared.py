"""The prepared data of a track: where it lies, whether it is what the track pins, and how it is made.

DATA/<track>/              tokenizer, rows and manifests; `origin.json` for rows that were not made from embedded text
DATA/shards/<corpus>/      shards of a public corpus and their lock file; tracks share them
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from baseline.data.download import DATASETS, LOCK_FILE, PublicDataset, bring, download
from baseline.data.durable import read_sealed, write_sealed
from baseline.data.errors import DataError
from baseline.data.integrity import Prepared, verify
from baseline.data.lockfile import ShardLock
from baseline.data.manifest import ROWS_FILE, TOKEN_BYTES_FILE, DataSettings, Manifest
from baseline.data.prepare import is_prepared, prepare, prepare_docstrings
from baseline.data.progress import Progress, silent
from baseline.data.shards import ShardSplit, split_folder
from harness.errors import MachineLacks, UsageProblem
from harness.track import Track

ORIGIN_FILE = "origin.json"
OriginKind = Literal["hub", "folder", "foreign"]
ORIGIN_WORDS: dict[OriginKind, str] = {
    "hub": "shards that are, byte for byte, those of the hub",
    "folder": "shards from a folder that nobody has vouched for",
    "foreign": "other text than the track's",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the text of prepared rows comes from, as far as it is known."""

    kind: OriginKind
    train_rows_digest: str
    """The rows that this is said of."""
    revision: str | None
    """Commit of the public corpus's repository; None unless the hub named it."""
    shards_digest: str | None
    """As the track pins it; None for foreign text."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Rows and tokenizer on disk, verified against the track's digests when this object was made."""

    folder: Path
    train: Manifest
    val: Manifest
    tokenizer_digest: str
    origin: Origin | None
    """None for the embedded corpus."""
    counts: bool
    """Whether runs on these rows may be recorded: the track pins them, or they come from the hub."""

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


# ---------------------------------------------------------------------- making it


def prepare_data(track: Track, data_folder: Path, source: Path | None = None, progress: Progress = silent) -> PreparedData:
    """Make the track's data, or verify and reuse what is there. Raises MachineLacks with one line otherwise.

    `source` is a folder that holds the shards of the track's public corpus, or other text (parquet, JSON lines, text files).
    """
    folder = data_folder / track.name
    if source and not track.data.is_public:
        raise UsageProblem("its text is embedded", where=f"track {track.name}", mend="leave out --from")
    if source is None and is_prepared(folder):
        return open_data(track, data_folder, progress)
    settings = DataSettings(sequence_len=track.data.sequence_len, vocab_size=track.data.vocab_size)
    try:
        if not track.data.is_public:
            return _opened(track, prepare_docstrings(folder, settings, progress=progress))
        split, origin = _public_text(track, data_folder, source, progress)
        prepared = prepare(split, folder, settings, workers=_cores(), progress=progress)
        write_sealed(folder / ORIGIN_FILE, asdict(replace(origin, train_rows_digest=prepared.train.rows_sha256)))
        return _opened(track, prepared)
    except DataError as error:
        raise MachineLacks(str(error), where=f"track {track.name}") from None


def shards_folder(track: Track, data_folder: Path) -> Path:
    """Where the shards of the track's public corpus lie."""
    return data_folder / "shards" / track.data.corpus


def dataset_of(track: Track) -> PublicDataset:
    """The track's public corpus at the revision that it pins."""
    return replace(DATASETS[track.data.corpus], revision=track.data.revision)


def _public_text(track: Track, data_folder: Path, source: Path | None, progress: Progress) -> tuple[ShardSplit, Origin]:
    """The shards to prepare, and where they come from; `train_rows_digest` is left empty."""
    dataset, folder, count = dataset_of(track), shards_folder(track, data_folder), track.data.train_shards or 0
    if source is None:
        split = download(dataset, folder, count, progress=progress)
    elif (source / dataset.last_name).is_file():
        split = bring(dataset, folder, count, source, progress)
    else:
        _refuse_foreign(track, source, dataset)
        return split_folder(source), Origin("foreign", "", None, None)
    lock = ShardLock.read(folder / LOCK_FILE, dataset.repository)
    found, pinned = lock.digest_of(dataset.names(count)), track.data.shards_digest
    if pinned not in (None, found):
        raise DataError(
            f"{folder} holds other shards than the track pins (shards_digest {found[:12]}…, not {pinned[:12]}…): "
            f"delete it, and download the shards of {dataset.repository} again"
        )
    kind: OriginKind = "hub" if lock.revision or pinned else "folder"
    return split, Origin(kind, "", lock.revision, found)


def _refuse_foreign(track: Track, source: Path, dataset: PublicDataset) -> None:
    """Raise DataError when the track pins what its text is."""
    if track.data.shards_digest or track.data.corpus_digest:
        raise DataError(
            f"{source} has no {dataset.last_name}, so it is not the text that the track pins: "
            f"give a folder with the shards of {dataset.repository}, or leave out --from to download them"
        )


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------------- opening it


def open_data(track: Track, data_folder: Path, progress: Progress = silent) -> PreparedData:
    """The data that is there, every byte verified; raises MachineLacks when it is missing or damaged."""
    folder = data_folder / track.name
    mend = f"`speedrun data prepare --track {track.name}` makes it"
    if not is_prepared(folder):
        raise MachineLacks(f"the rows of track {track.name} are not here", where=str(folder), mend=mend)
    try:
        return _opened(track, verify(folder, progress))
    except DataError as error:
        raise MachineLacks(str(error), mend=mend) from None


def require_counting(track: Track, data: PreparedData) -> PreparedData:
    """The data, if runs on it may be recorded; raises MachineLacks for rows that nobody vouches for."""
    if not data.counts:
        kind = ORIGIN_WORDS[data.origin.kind] if data.origin else "text of unknown origin"
        raise MachineLacks(
            f"these rows were made from {kind}, so no run on them is recorded",
            where=str(data.folder),
            mend=f"delete the folder and run `speedrun data prepare --track {track.name}`, or use `speedrun run`",
        )
    return data


def _opened(track: Track, prepared: Prepared) -> PreparedData:
    """Compare with what the track says and pins."""
    folder, data = prepared.folder, track.data
    there = prepared.train.settings
    if (there.sequence_len, there.vocab_size) != (data.sequence_len, data.vocab_size):
        raise MachineLacks(
            f"the rows have sequence_len {there.sequence_len} and vocab_size {there.vocab_size}, "
            f"the track has {data.sequence_len} and {data.vocab_size}",
            where=str(folder),
            mend="delete the folder and prepare it again",
        )
    pins = {
        "corpus_digest": (data.corpus_digest, prepared.train.corpus_sha256),
        "tokenizer_digest": (data.tokenizer_digest, prepared.tokenizer_sha256),
        "train_rows_digest": (data.train_rows_digest, prepared.train.rows_sha256),
        "val_rows_digest": (data.val_rows_digest, prepared.val.rows_sha256),
    }
    for name, (pinned, found) in pins.items():
        if pinned is not None and pinned != found:
            raise MachineLacks(
                f"{name} is {found[:12]}…, the track pins {pinned[:12]}…",
                where=f"{folder} against harness/tracks/{track.name}.toml",
                mend="install the locked packages (make setup) and delete the folder",
            )
    origin = _origin(folder, prepared) if data.is_public else None
    counts = data.is_pinned or not data.is_public or (origin is not None and origin.kind == "hub" and _same_shards(track, prepared))
    if counts and prepared.val.rows < data.val_rows:
        raise MachineLacks(f"the validation split has {prepared.val.rows} rows, the track scores {data.val_rows}", where=str(folder))
    return PreparedData(folder, prepared.train, prepared.val, prepared.tokenizer_sha256, origin, counts)


def _same_shards(track: Track, prepared: Prepared) -> bool:
    """Whether the rows were made from as many shards as the track takes."""
    return len(prepared.train.shards) == track.data.train_shards


def _origin(folder: Path, prepared: Prepared) -> Origin | None:
    """What is known of the rows' text; None when nothing is, or when it was said of other rows."""
    path = folder / ORIGIN_FILE
    if not path.exists():
        return None
    origin = Origin(**read_sealed(path))
    return origin if origin.train_rows_digest == prepared.train.rows_sha256 else None
