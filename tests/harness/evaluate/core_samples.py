"""Small bundles, small tokenizers, and where the real ones may lie."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import rustbpe
import tiktoken

from baseline.data.tokenizer import SPLIT_PATTERN
from harness.evaluate.core.items import Kind
from harness.evaluate.core.tasks import Task
from harness.evaluate.core.tokenizer import TiktokenTokenizer

REPOSITORY = Path(__file__).parents[3]
SHARED = REPOSITORY.parent / "shared"
REAL_BUNDLE = SHARED / "core"
NO_SPLIT = r"(?s:.+)"
"""One piece, so that merges cross every boundary that prompts have."""

needs_real_bundle = pytest.mark.skipif(not REAL_BUNDLE.is_dir(), reason="the CORE bundle is not beside the repository")

Rows = Sequence[Mapping[str, Any]]

CHOICES: Rows = [
    {"query": "Where do fish live?", "choices": ["in water", "in trees"], "gold": 0},
    {"query": "Which one is warm?", "choices": ["ice", "the sun", "the moon"], "gold": 1},
    {"query": "What  is 2 + 2 ?", "choices": ["four", "five", "four or five"], "gold": 0},
    {"query": " Who, said: «nein»?", "choices": ["она", "er selbst"], "gold": 1},
]
SCHEMAS: Rows = [
    {
        "context_options": ["The cup fell on the floor because the cup", "The cup fell on the floor because the floor"],
        "continuation": "was wet.",
        "gold": 1,
    },
    {"context_options": ["Ann thanked Eve as Ann", "Ann thanked Eve as Eve"], "continuation": "had helped", "gold": 1},
    {"context_options": ["A dog saw a cat and the dog", "A dog saw a cat and the cat"], "continuation": "barked at it", "gold": 0},
]
PASSAGES: Rows = [
    {"context": "One, two, three, ", "continuation": "four"},
    {"context": "\n  The opposite of up is\t", "continuation": "down  "},
    {"context": "Roses are red, violets are", "continuation": "blue\nand green"},
    {"context": "A: ( [ { } ]", "continuation": ")"},
]


def task_of(kind: Kind, rows: Rows, *, label: str = "tiny", shots: int = 0, delimiter: str = " ", file: str = "", **fields: Any) -> Task:
    """A task whose pins fit `rows` as `content_of` writes them."""
    content = content_of(rows)
    pins = {"rows": len(rows), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return Task(
        label,
        file or f"tiny/{label}.jsonl",
        kind,
        shots,
        delimiter,
        **{**pins, "random_baseline": 25.0, "corrected_baseline": 40.0, **fields},
    )


def content_of(rows: Rows) -> bytes:
    """A file of examples."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A bundle as a folder."""
    for name, content in files.items():
        path = folder / "eval_data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path: Path, files: Mapping[str, bytes], prefix: str = "eval_bundle/eval_data/") -> Path:
    """A bundle as a zip file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(prefix + name, content)
    return path


@cache
def learned_tokenizer(pattern: str = SPLIT_PATTERN, vocab_size: int = 420) -> TiktokenTokenizer:
    """Merges learned from the samples above, so that they occur; BOS is the last id."""
    texts = [str(value) for row in (*CHOICES, *SCHEMAS, *PASSAGES) for value in row.values()] * 4
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter([*texts, "\n\n".join(texts)]), vocab_size, pattern=pattern)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    return TiktokenTokenizer(
        tiktoken.Encoding("learned", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<bos>": len(ranks)}), len(ranks)
    )


def crossing_tokenizer(*merges: str) -> TiktokenTokenizer:
    """Bytes, and the given texts as tokens wherever they occur; built by merging from left to right."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for merge in merges:
        token = merge.encode()
        for stop in range(2, len(token) + 1):
            ranks.setdefault(token[:stop], len(ranks))
    bos = len(ranks)
    return TiktokenTokenizer(tiktoken.Encoding("crossing", pat_str=NO_SPLIT, mergeable_ranks=ranks, special_tokens={"<bos>": bos}), bos)


def public_tokenizer(name: str) -> TiktokenTokenizer:
    """gpt2 or cl100k_base, or a skip where their files are not at hand."""
    if (SHARED / "tiktoken").is_dir():
        os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(SHARED / "tiktoken"))
    if "TIKTOKEN_CACHE_DIR" not in os.environ:
        pytest.skip("the files of tiktoken's public encodings are not at hand")
    encoding = tiktoken.get_encoding(name)
    return TiktokenTokenizer(encoding, encoding.eot_token)
