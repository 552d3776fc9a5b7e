"""Checks a prepared folder against its manifests: every byte of every file that a run reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from baseline.data.durable import sha256_of
from baseline.data.errors import DataError
from baseline.data.manifest import MANIFEST_FILE, ROWS_FILE, TOKEN_BYTES, TOKEN_BYTES_FILE, TOKENIZER_FILE, Manifest, Split
from baseline.data.progress import Progress, Tally, silent
from baseline.data.tokenizer import Tokenizer

SPLITS: tuple[Split, Split] = ("train", "val")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared folder: rows for training and validation under one tokenizer."""

    folder: Path
    tokenizer_sha256: str
    train: Manifest
    val: Manifest


def verify(folder: Path, progress: Progress = silent) -> Prepared:
    """Hash everything under `folder` and compare. Raises DataError naming the first file that is missing, damaged or foreign."""
    tokenizer_path = folder / TOKENIZER_FILE
    tokenizer_sha256 = Tokenizer.load(tokenizer_path).digest
    manifests = {split: Manifest.read(folder / split) for split in SPLITS}
    tally = Tally("verify", sum(_rows_size(manifest) for manifest in manifests.values()), progress)
    for split, manifest in manifests.items():
        _check_counts(folder / split, manifest, split)
        if manifest.tokenizer_sha256 != tokenizer_sha256:
            raise DataError(
                f"{tokenizer_path} is not the tokenizer that {folder / split / ROWS_FILE} was made with: prepare the data again"
            )
        _check_rows(folder / split / ROWS_FILE, manifest, tally)
        if manifest.token_bytes_sha256:
            _check_digest(folder / split / TOKEN_BYTES_FILE, manifest.token_bytes_sha256)
    train, val = manifests["train"], manifests["val"]
    if train.recipe_sha256 != val.recipe_sha256:
        raise DataError(f"{folder / 'train'} and {folder / 'val'} come from different preparations: prepare the data again")
    return Prepared(folder, tokenizer_sha256, train, val)


def _rows_size(manifest: Manifest) -> int:
    """Bytes of rows.bin."""
    return manifest.rows * manifest.row_length * TOKEN_BYTES


def _check_counts(folder: Path, manifest: Manifest, split: Split) -> None:
    packed = manifest.rows * manifest.row_length
    if manifest.split != split or packed + manifest.cropped_tokens + manifest.tail_tokens != manifest.tokens:
        raise DataError(f"{folder / MANIFEST_FILE} contradicts itself: its counts do not add up. Prepare the data again")


def _check_rows(path: Path, manifest: Manifest, tally: Tally) -> None:
    size = path.stat().st_size if path.is_file() else 0
    if size != _rows_size(manifest):
        raise DataError(f"{path} has {size} bytes and must have {_rows_size(manifest)}: delete it and prepare the data again")
    _check_digest(path, manifest.rows_sha256, tally)


def _check_digest(path: Path, expected: str, tally: Tally | None = None) -> None:
    try:
        found = sha256_of(path, tally)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): prepare the data again") from None
    if found != expected:
        raise DataError(f"{path} is damaged: SHA-256 {found[:12]}… instead of {expected[:12]}…. Delete it and prepare the data again")
