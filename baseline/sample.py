"""Text from a trained checkpoint, while it is generated.

    python -m baseline.sample runs/d12 --tokenizer data/gpu1/tokenizer/tokenizer.json --prompt "The sky is"

The prompt begins a document; without one the model begins it. A sample ends after `--max-tokens`, or where the model ends the document.
"""

from __future__ import annotations

import argparse
import codecs
import json
import os
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tiktoken import Encoding
from torch import nn

from baseline.checkpoint import STATE, WEIGHTS, CheckpointError, latest_checkpoint, read_state, read_weights
from baseline.config import ConfigError, TrainConfig
from baseline.data.errors import DataError
from baseline.data.tokenizer import Tokenizer, encode_document
from baseline.generate import generate
from baseline.loop import build_model, initialise
from baseline.recipe import SlotError, load_slots, slot_error
from baseline.world import die_with_parent, local_device

USAGE, CONTRACT, LACKS, INTERRUPTED = 2, 3, 4, 5
"""Exit statuses: a bad argument; a submission that breaks its contract; a damaged file or too little memory; interrupted."""

FROM_STANDARD_INPUT = "-"
SEEDS = range(2**64)


class SampleError(ValueError):
    """An argument that cannot work. The message names it and the mend."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status; whatever can be expected to go wrong is one line on stderr."""
    args = parse(arguments)
    try:
        run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, and the flush at exit must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print()
        return INTERRUPTED
    except (SampleError, ConfigError) as error:
        return _refused(error, USAGE)
    except SlotError as error:
        return _refused(error, CONTRACT)
    except (CheckpointError, DataError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        return _refused(error, LACKS)
    return 0


def run(args: argparse.Namespace) -> None:
    """Generate, and print as the arguments say: one JSON object, one sample as it grows, or several under headings."""
    checkpoint = checkpoint_at(args.checkpoint)
    config: TrainConfig = read_state(checkpoint)["config"]
    tokenizer = fitting_tokenizer(args.tokenizer, config.vocab_size)
    prompt = prompt_text(args.prompt)
    model = trained_model(checkpoint, config, args.submission, local_device())
    live = args.samples == 1 and not args.as_json
    if live:
        print(printable(prompt), end="", flush=True)
    result = sample(model, tokenizer, prompt, args, live)
    if args.as_json:
        print(json.dumps(as_values(result, checkpoint, prompt, args), sort_keys=True))
        return
    if live:
        print()
    else:
        for number, grown in enumerate(result.samples, 1):
            print(f"--- sample {number} of {args.samples} ---\n{printable(prompt + grown.text)}")
    print(f"{result.tokens:,} tokens, {result.tokens_per_s:,.0f} tokens/s, seed {args.seed}, {checkpoint}", file=sys.stderr)


# ---------------------------------------------------------------------- what to sample from


def checkpoint_at(folder: Path) -> Path:
    """`folder` if it is a checkpoint, else the newest whole checkpoint in it. Raises SampleError."""
    if (folder / STATE).is_file():
        return folder
    newest = latest_checkpoint(folder)
    if newest is None:
        raise SampleError(f"{folder} holds no checkpoint; name a folder step_NNNNNN, or the --out folder of a training that saved one")
    return newest


def fitting_tokenizer(files: Sequence[Path], vocab_size: int) -> Tokenizer:
    """The one tokenizer among `files` that has `vocab_size` tokens. Raises SampleError for none, or for several that differ."""
    for file in files:
        if not file.is_file():
            raise SampleError(f"--tokenizer {file}: there is no such file")
    tokenizers = {file: Tokenizer.load(file) for file in files}
    fitting = {tokenizer.digest: tokenizer for tokenizer in tokenizers.values() if tokenizer.vocab_size == vocab_size}
    if not fitting:
        found = ", ".join(f"{file} has {tokenizer.vocab_size:,}" for file, tokenizer in tokenizers.items()) or "there is no tokenizer here"
        raise SampleError(f"the model knows {vocab_size:,} tokens, and {found}; name the one it was trained with: --tokenizer FILE")
    if len(fitting) > 1:
        raise SampleError(f"several tokenizers have {vocab_size:,} tokens; name the one it was trained with: --tokenizer FILE")
    return next(iter(fitting.values()))


def prompt_text(argument: str) -> str:
    """The prompt: the argument itself, or standard input without its last line end. Raises SampleError unless it is Unicode text."""
    try:
        text = sys.stdin.buffer.read().decode() if argument == FROM_STANDARD_INPUT else argument
        text.encode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise SampleError(f"--prompt: not UTF-8 text ({error.reason}); convert it first") from None
    return text.removesuffix("\n") if argument == FROM_STANDARD_INPUT else text


def trained_model(checkpoint: Path, config: TrainConfig, submission: Path | None, device: torch.device) -> nn.Module:
    """The checkpoint's model on `device`, ready to generate. Raises SlotError or CheckpointError.

    The checkpoint's config is what the submission's `configure` once made, so only the other slots are applied. How training was
    executed does not matter here: no compilation, no 8-bit products, and attention that runs anywhere.
    """
    here = config.with_(compile=False, fp8=False, attention_backend="sdpa")
    recipe = load_slots(submission).compose(here, device)
    model = build_model(recipe, device)
    initialise(model, 0, device)
    try:
        read_weights(model, checkpoint / WEIGHTS)
    except CheckpointError as error:
        if submission is None and "does not fit" in str(error):
            raise CheckpointError(
                f"{checkpoint / WEIGHTS}: does not fit the baseline's model; if a submission trained it, name its folder: --submission DIR"
            ) from None
        raise
    return model.eval()


# ---------------------------------------------------------------------- generating


@dataclass(slots=True)
class Sample:
    """One continuation, token by token."""

    encoding: Encoding
    end: int
    """The token that begins a document, and so ends the one before."""
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    """What the tokens spell; bytes of a character that is not complete yet wait."""
    ended: bool = False
    _decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    def add(self, token: int) -> str:
        """Take the next token; returns the characters that it completes. What follows the end is ignored."""
        self.ended = self.ended or token == self.end
        if self.ended:
            return ""
        self.tokens.append(token)
        characters = self._decoder.decode(self.encoding.decode_single_token_bytes(token))
        self.text += characters
        return characters


@dataclass(frozen=True, slots=True)
class Sampled:
    """All samples, and how long they took, reading the prompt included."""

    samples: list[Sample]
    seconds: float

    @property
    def tokens(self) -> int:
        """In all samples together."""
        return sum(len(sample.tokens) for sample in self.samples)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def sample(model: nn.Module, tokenizer: Tokenizer, prompt: str, args: argparse.Namespace, live: bool) -> Sampled:
    """Continue the document that `prompt` begins; `live` prints the first sample's characters as they become whole.

    Raises SampleError for a number out of range, SlotError for what a submission's model raises, MemoryError.
    """
    if args.seed not in SEEDS:
        raise SampleError(f"--seed {args.seed}: it must be at least 0 and below 2^64")
    encoding = tokenizer.encoding()
    tokens = encode_document(encoding, tokenizer.bos_id, prompt).tolist()
    samples = [Sample(encoding, tokenizer.bos_id) for _ in range(args.samples)]
    settings = {"max_tokens": args.max_tokens, "temperature": args.temperature, "top_k": args.top_k, "seed": args.seed}
    try:
        columns = generate(model, tokens, samples=args.samples, **settings)
    except ValueError as error:
        raise SampleError(f"--{str(error).replace('_', '-')}") from None
    began = time.perf_counter()
    for column in _explained(columns, args):
        new = [grown.add(token) for grown, token in zip(samples, column, strict=True)]
        if live:
            print(printable(new[0]), end="", flush=True)
        if all(grown.ended for grown in samples):
            break
    return Sampled(samples, time.perf_counter() - began)


def _explained(columns: Iterator[list[int]], args: argparse.Namespace) -> Iterator[list[int]]:
    """The same columns. What the model raises becomes SlotError where it is a submission's, MemoryError where that is the reason."""
    try:
        yield from columns
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate" in str(error)):
            wanted = f"{args.samples:,} × {args.max_tokens:,} tokens"
            raise MemoryError(f"not enough memory for {wanted}; lower --samples or --max-tokens") from None
        if args.submission:
            raise slot_error("model", error) from error
        raise


# ---------------------------------------------------------------------- showing


def printable(text: str) -> str:
    """`text` with control characters spelled out, except line ends and tabs: a terminal must not obey what a model writes."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else c.encode("unicode_escape").decode("ascii") for c in text)


def as_values(result: Sampled, checkpoint: Path, prompt: str, args: argparse.Namespace) -> dict[str, Any]:
    """What --json prints: the text as it is, control characters included, and the ids of the tokens."""
    return {
        "checkpoint": str(checkpoint),
        "prompt": prompt,
        "seed": args.seed,
        "temperature": args.temperature,
        "top_k": args.top_k,
        "samples": [{"text": grown.text, "tokens": grown.tokens, "ended": grown.ended} for grown in result.samples],
        "tokens": result.tokens,
        "tokens_per_s": result.tokens_per_s,
    }


def _refused(error: BaseException, status: int) -> int:
    print(f"baseline.sample: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
    return status


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="baseline.sample", description="Generate text from a trained checkpoint; see the module's text.")
    parser.add_argument("checkpoint", type=Path, help="folder step_NNNNNN, or the --out folder of a training: its newest checkpoint")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="tokenizer.json; of several, the one that fits",
    )
    parser.add_argument("--submission", type=Path, metavar="DIR", help="folder with the slot files that it was trained with")
    parser.add_argument("--prompt", default="", help="text to continue (default: none); - reads it from standard input")
    parser.add_argument("--samples", type=int, default=1, help="independent continuations (default 1)")
    parser.add_argument("--max-tokens", type=int, default=256, help="most tokens of each (default 256)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token each time (default 0.8)")
    parser.add_argument("--top-k", type=int, help="draw from that many likeliest tokens only (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object instead of text")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    die_with_parent()
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal that lacks a character shows a question mark
    sys.exit(main())
