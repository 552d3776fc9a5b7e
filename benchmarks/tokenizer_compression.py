r"""Bytes of text per token: the vocabulary that a preparation trains, beside those of GPT-2 and GPT-4 (cl100k_base).

    python benchmarks/tokenizer_compression.py ../shared/text/wikipedia ../shared/text/permissive \
        --out benchmarks/results/tokenizer_compression.json

Our tokenizer is trained on the training shards of the first folder, and every tokenizer is then run over the last shard of each folder,
which none of ours was trained on. tiktoken brings the vocabularies of GPT-2 and cl100k_base; where it can neither find nor fetch one,
that column is left out, with the reason.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import tiktoken
from rich.console import Console
from rich.table import Table

from baseline.data.manifest import DataSettings
from baseline.data.shards import Shard, read_documents, split_folder
from baseline.data.tokenizer import train_tokenizer

REFERENCES = {"GPT-2": "gpt2", "GPT-4": "cl100k_base"}
THREADS = 2


@dataclass(frozen=True, slots=True)
class Compression:
    """One tokenizer on one text."""

    text: str
    tokenizer: str
    vocab_size: int
    bytes: int
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens


def compression(text: str, name: str, encoding: tiktoken.Encoding, shard: Shard) -> Compression:
    """Run a tokenizer over every document of a shard. Text that spells a special token is ordinary text."""
    size = tokens = 0
    for batch in read_documents(shard):
        size += sum(len(document.encode()) for document in batch.texts)
        tokens += sum(map(len, encoding.encode_ordinary_batch(batch.texts, num_threads=THREADS)))
    return Compression(text, name, encoding.n_vocab, size, tokens)


def references() -> tuple[dict[str, tiktoken.Encoding], dict[str, str]]:
    """(the vocabularies to compare with, by name; why the others are not here)."""
    found, absent = {}, {}
    for name, encoding in REFERENCES.items():
        try:
            found[name] = tiktoken.get_encoding(encoding)
        except Exception as error:  # whatever the download raises where there is no network
            absent[name] = (str(error).strip() or type(error).__name__).splitlines()[0]
    return found, absent


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare how well tokenizers compress text.")
    parser.add_argument("folders", type=Path, nargs="+", help="folders of shards; the tokenizer is trained on the first")
    parser.add_argument("--vocab-size", type=int, default=32_768)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    settings = DataSettings(2_048, args.vocab_size)
    train = split_folder(args.folders[0]).train
    texts = (text for shard in train for batch in read_documents(shard) for text in batch.texts)
    ours = train_tokenizer(texts, settings.vocab_size, settings.tokenizer_characters, settings.document_characters)
    others, absent = references()
    encodings = {"ours": ours.encoding(), **others}
    results = [
        compression(folder.name, name, encoding, split_folder(folder).val[0])
        for folder in args.folders
        for name, encoding in encodings.items()
    ]
    console = Console(width=110)
    console.print(table_of(results))
    for name, reason in absent.items():
        console.print(f"{name} is not compared: {reason}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "measured": "bytes of text per token on the last shard of each folder",
            "trained_on": args.folders[0].name,
            "packages": {name: version(name) for name in ("rustbpe", "tiktoken")},
            "absent": absent,
            "results": [{**asdict(result), "bytes_per_token": round(result.bytes_per_token, 4)} for result in results],
        }
        args.out.write_text(json.dumps(content, indent=1) + "\n")


def table_of(results: list[Compression]) -> Table:
    """One row for each tokenizer, one column for each text."""
    texts = list(dict.fromkeys(result.text for result in results))
    names = list(dict.fromkeys(result.tokenizer for result in results))
    value = {(result.tokenizer, result.text): result for result in results}
    table = Table("bytes per token", "vocabulary", *texts)
    for name in names:
        columns = [f"{value[name, text].bytes_per_token:.3f}" for text in texts]
        table.add_row(name, f"{value[name, texts[0]].vocab_size:,}", *columns)
    return table


if __name__ == "__main__":
    main()
