"""Shards of documents -> a tokenizer, and packed rows of token ids for training and validation.

The result depends on the documents and the settings alone: not on the number of workers, nor on how often the work was killed and
started again. Everything that is finished lies in OUT/unfinished until the manifests are written; a restart goes on from there.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from baseline.data.docstrings import write_shards
from baseline.data.durable import exclusive, read_sealed, sha256_of, whole_file, write_sealed
from baseline.data.errors import DataError
from baseline.data.integrity import SPLITS, Prepared, verify
from baseline.data.manifest import (
    FORMAT,
    MANIFEST_FILE,
    NANO,
    ROWS_FILE,
    TOKEN_BYTES,
    TOKEN_BYTES_FILE,
    TOKENIZER_FILE,
    DataSettings,
    Manifest,
    Split,
    digest_of,
)
from baseline.data.packing import Packer
from baseline.data.pieces import Piece, Workbench, make_pieces
from baseline.data.progress import Progress, Tally, silent
from baseline.data.shards import ShardSplit, read_documents
from baseline.data.space import require_space
from baseline.data.tokenizer import SPLIT_PATTERN, Tokenizer, train_tokenizer

UNFINISHED = "unfinished"
ROWS_PER_WRITE = 1024
WRITTEN_PER_SHARD_BYTE = 3.0
"""Token ids and rows together, per byte of zstd parquet: 2.0 for an encyclopedia, 2.7 for books at 32,768 tokens (measured)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for."""

    source: ShardSplit
    settings: DataSettings

    def recipe(self) -> dict[str, object]:
        """Everything that determines the prepared bytes, as far as it can be seen without reading the shards."""
        return {
            "format": FORMAT,
            "settings": asdict(self.settings),
            "pattern": SPLIT_PATTERN,
            "train": [[shard.name, shard.size] for shard in self.source.train],
            "val": [[shard.name, shard.size] for shard in self.source.val],
        }


def prepare(source: ShardSplit, out: Path, settings: DataSettings, *, workers: int = 1, progress: Progress = silent) -> Prepared:
    """Fill `out` with train/, val/ and tokenizer/ and return their manifests; when they are there already, verify them and return.

    Two processes may call this at once: the second waits and then verifies. Needs about twice the size of the token ids on disk
    while it works. Raises DataError when a shard is unusable, or when `out` holds rows of other shards or settings.
    """
    plan = Plan(source, settings.checked())
    work = out / UNFINISHED
    with exclusive(out):
        if is_prepared(out):
            prepared = _verified(out, plan, progress)
        else:
            _open_work(work, plan)
            require_space(out, _bytes_to_write(plan, work), "token ids and rows")
            bench = Workbench.of(work, _tokenizer(work / "tokenizer.json", plan, progress))
            _build(out, plan, bench, workers, progress)
            prepared = verify(out, progress)
        if work.exists():
            shutil.rmtree(work)
        return prepared


def is_prepared(out: Path) -> bool:
    """Whether a preparation has finished in `out`; what it left is not verified."""
    return all((out / split / MANIFEST_FILE).exists() for split in SPLITS)


def prepare_docstrings(out: Path, settings: DataSettings = NANO, *, workers: int = 1, progress: Progress = silent) -> Prepared:
    """Prepare the embedded corpus; its documents are written to `out`/documents first."""
    documents = out / "documents"
    with exclusive(documents):
        source = write_shards(documents, progress=progress)
    return prepare(source, out, settings, workers=workers, progress=progress)


# ---------------------------------------------------------------------- what is there already


def _verified(out: Path, plan: Plan, progress: Progress) -> Prepared:
    """The finished preparation in `out`, if it is whole and the one that the plan asks for."""
    prepared = verify(out, progress)
    if prepared.train.recipe_sha256 == digest_of(plan.recipe()):
        return prepared
    there, asked = asdict(prepared.train.settings), asdict(plan.settings)
    differing = [f"{name} {there[name]}, not {asked[name]}" for name in asked if asked[name] != there[name]]
    reason = "; ".join(differing) or "other shards, or another version"
    raise DataError(f"{out} holds rows of another preparation ({reason}): choose another folder, or delete this one")


def _open_work(work: Path, plan: Plan) -> None:
    """Make `work` the folder of unfinished work for this plan; what another plan left there is removed."""
    note = work / "recipe.json"
    try:
        if read_sealed(note) == plan.recipe():
            return
    except DataError:
        pass
    if note.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    if any(path.name != "recipe.json.partial" for path in work.iterdir()):
        raise DataError(f"{work} holds files that no preparation wrote: move them away, or choose another folder")
    write_sealed(note, plan.recipe())


def _bytes_to_write(plan: Plan, work: Path) -> int:
    """An upper estimate of what token ids and rows will take, without the token ids that are there already."""
    shards = sum(shard.size for shard in (*plan.source.train, *plan.source.val))
    there = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    return max(0, round(shards * WRITTEN_PER_SHARD_BYTE) - there)


def _tokenizer(path: Path, plan: Plan, progress: Progress) -> Tokenizer:
    """The tokenizer of an earlier attempt, or a newly trained one."""
    try:
        return Tokenizer.load(path)
    except DataError:
        texts = (text for shard in plan.source.train for batch in read_documents(shard) for text in batch.texts)
    settings = plan.settings
    tokenizer = train_tokenizer(texts, settings.vocab_size, settings.tokenizer_characters, settings.document_characters, progress)
    tokenizer.save(path)
    return tokenizer


# ---------------------------------------------------------------------- the work


def _build(out: Path, plan: Plan, bench: Workbench, workers: int, progress: Progress) -> None:
    """Tokenize and pack both splits. The manifests come last: a folder that has both is finished."""
    pieces = make_pieces([*plan.source.train, *plan.source.val], bench, workers, progress)
    tally = Tally("pack", sum(piece.tokens * TOKEN_BYTES for piece in pieces), progress)
    bench.tokenizer.save(out / TOKENIZER_FILE)
    token_bytes_sha256 = _write_token_bytes(out / "val" / TOKEN_BYTES_FILE, bench.tokenizer)
    boundary = len(plan.source.train)
    train = _pack("train", pieces[:boundary], out, plan, bench, tally)
    val = _pack("val", pieces[boundary:], out, plan, bench, tally)
    train.write(out / "train")
    replace(val, token_bytes_sha256=token_bytes_sha256).write(out / "val")


def _write_token_bytes(path: Path, tokenizer: Tokenizer) -> str:
    """Write the (V,) int32 array of bytes per token; returns the file's SHA-256."""
    with whole_file(path) as file:
        np.save(file, tokenizer.token_bytes().astype("<i4"))
    return sha256_of(path)


def _pack(split: Split, pieces: Sequence[Piece], out: Path, plan: Plan, bench: Workbench, tally: Tally) -> Manifest:
    """Write the split's rows.bin and return its manifest, which is not written yet."""
    settings = plan.settings
    packer = Packer(_documents(pieces, tally), settings.buffer_documents, settings.refill_documents)
    rows, rows_sha256 = _write_rows(out / split / ROWS_FILE, packer, settings.sequence_len + 1)
    if not rows:
        raise DataError(
            f"the {split} split holds {packer.tokens} tokens, less than one row of {settings.sequence_len + 1}: "
            "give more text, or lower sequence_len"
        )
    sources = tuple(piece.source for piece in pieces)
    return Manifest(
        split=split,
        settings=settings,
        recipe_sha256=digest_of(plan.recipe()),
        rows=rows,
        documents=packer.documents,
        text_bytes=sum(source.text_bytes for source in sources),
        tokens=packer.tokens,
        cropped_tokens=packer.cropped_tokens,
        cropped_share=round(packer.cropped_tokens / packer.tokens, 6),
        tail_tokens=packer.tail_tokens,
        bos_id=bench.tokenizer.bos_id,
        corpus_sha256=hashlib.sha256("".join(source.text_sha256 + "\n" for source in sources).encode()).hexdigest(),
        tokenizer_sha256=bench.sha256,
        rows_sha256=rows_sha256,
        token_bytes_sha256=None,
        shards=sources,
    )


def _documents(pieces: Sequence[Piece], tally: Tally) -> Iterator[NDArray[np.uint16]]:
    """The documents of all pieces in the global order."""
    for piece in pieces:
        yield from piece.documents()
        tally.advance(piece.tokens * TOKEN_BYTES)


def _write_rows(path: Path, packer: Packer, row_length: int) -> tuple[int, str]:
    """Write rows (N, T + 1) until the documents are used up; returns N and the file's SHA-256."""
    block = np.empty((ROWS_PER_WRITE, row_length), dtype="<u2")
    digest, rows = hashlib.sha256(), 0
    with whole_file(path) as file:
        while True:
            filled = next((index for index, row in enumerate(block) if not packer.fill(row)), ROWS_PER_WRITE)
            data = block[:filled].tobytes()
            file.write(data)
            digest.update(data)
            rows += filled
            if filled < ROWS_PER_WRITE:
                return rows, digest.hexdigest()
