"""The model server: token rows in, raw logits of the wanted positions out, and nothing else.

It runs in a fresh process after the clock has stopped. The evaluator owns all buffers (files without a name, mapped here from
inherited descriptors; on a card, memory that it has exported to this process), keeps targets and labels to itself, and does every
softmax. A request is one line on an inherited socket. Each names one of the slots that the buffers are divided into, so that the
evaluator can fill one while another is being answered; answers come in the order of the requests.

    rows SLOT ROWS LENGTH                       independent rows, padded on the right
    shared SLOT PREFIXES START ROWS LENGTH      rows that continue prefixes of START tokens; only for models that take a `cache`

    tokens  int32   (slots, max_tokens)             ROWS · LENGTH tokens; of a shared request, first PREFIXES · START tokens of the
                                                    prefixes, and after the rows' tokens the index of each row's prefix, (ROWS,)
    wanted  uint8   (slots, max_tokens)             ROWS · LENGTH marks: 1 where logits are wanted
    logits  float32 (slots, max_positions, vocab)   written here: of the wanted positions, in row-major order

The first line from here is `ready shared` or `ready rows`: which requests the model can take. Each request is answered by `ok` once its
logits lie in the buffer, or by `oom` when it did not fit into memory.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baseline.attention import AttentionFn, dot_product_attention, visible
from baseline.checkpoint import read_weights
from baseline.config import TrainConfig
from baseline.loop import build_model, initialise
from baseline.recipe import load_slots
from baseline.world import die_with_parent, local_device

SIGNS_OF_FULL_MEMORY = ("DefaultCPUAllocator", "bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED")
"""In a RuntimeError where torch has no exception type for it: its CPU allocator, C++ libraries, and cuBLAS's own workspace."""


class Scorer(Protocol):
    """A model as this module asks it. B rows, T tokens, n wanted positions, V vocabulary."""

    device: torch.device
    shares_prefixes: bool

    def rows(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """tokens (B, T) int64, wanted (B, T) bool -> logits (n, V)."""
        ...

    def shared(self, prefixes: Tensor, prefix_of: Tensor, tokens: Tensor, wanted: Tensor) -> Tensor:
        """prefixes (G, P), prefix_of (B,) int64; row b of tokens (B, T) continues prefix prefix_of[b] -> logits (n, V)."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    die_with_parent()
    device = local_device()
    slots = load_slots(args.submission)
    given = TrainConfig.from_dict(json.loads(args.config.read_text()))
    config = given if args.configured else slots.configure(given)
    # Scores are of the weights as they are: not rounded to 8 bits, nor compiled for shapes that only training has.
    recipe = slots.compose(config.with_(fp8=False, compile=False), device)
    model = build_model(recipe, device)
    initialise(model, 0, device)
    read_weights(model, args.weights)
    model.eval()
    serve(TrainedModel(model, device, recipe.ops.attention), args, config.vocab_size)
    return 0


# ---------------------------------------------------------------------- requests


@dataclass(frozen=True, slots=True)
class Buffers:
    """The evaluator's memory, mapped."""

    tokens: NDArray[np.int32]
    wanted: NDArray[np.uint8]
    logits: Tensor


def serve(scorer: Scorer, args: argparse.Namespace, vocab_size: int) -> None:
    """Answer requests until the evaluator closes the connection."""
    buffers = open_buffers(args, vocab_size)
    with socket.socket(fileno=args.channel_fd) as channel, channel.makefile("r") as requests:
        channel.sendall(b"ready shared\n" if scorer.shares_prefixes else b"ready rows\n")
        for request in requests:
            fits = _fits_into_memory(scorer, buffers, request.split())
            if not fits and scorer.device.type == "cuda":
                torch.cuda.empty_cache()
            channel.sendall(b"ok\n" if fits else b"oom\n")


def _fits_into_memory(scorer: Scorer, buffers: Buffers, request: Sequence[str]) -> bool:
    """Answer one request; False if memory did not suffice. Nothing of the attempt is alive when this returns."""
    try:
        answer(scorer, buffers, request[0], [int(word) for word in request[1:]])
    except (torch.OutOfMemoryError, MemoryError):
        return False
    except RuntimeError as error:
        if any(sign in str(error) for sign in SIGNS_OF_FULL_MEMORY):
            return False
        raise
    return True


@torch.inference_mode()
def answer(scorer: Scorer, buffers: Buffers, kind: str, numbers: Sequence[int]) -> None:
    """Write the logits that one request asks for."""
    slot, *prefix_shape, rows, length = numbers
    cells = rows * length
    marks = buffers.wanted[slot, :cells].astype(bool).reshape(rows, length)
    wanted = torch.from_numpy(marks).to(scorer.device)
    parts = [math.prod(prefix_shape), cells, rows] if kind == "shared" else [cells]
    given = torch.split(torch.from_numpy(buffers.tokens[slot, : sum(parts)].astype(np.int64)).to(scorer.device), parts)
    if kind == "shared":
        output = scorer.shared(given[0].view(*prefix_shape), given[2], given[1].view(rows, length), wanted)
    else:
        output = scorer.rows(given[0].view(rows, length), wanted)
    expected = (int(marks.sum()), buffers.logits.shape[-1])
    if tuple(output.shape) != expected:
        raise ValueError(f"the model returned logits of shape {tuple(output.shape)} for {expected[0]} positions; expected {expected}")
    buffers.logits[slot, : expected[0]].copy_(output)
    if scorer.device.type == "cuda":
        torch.cuda.synchronize(scorer.device)


def open_buffers(args: argparse.Namespace, vocab_size: int) -> Buffers:
    shape = (args.slots, args.max_tokens)
    logits_shape = (args.slots, args.max_positions, vocab_size)
    return Buffers(
        tokens=np.memmap(f"/dev/fd/{args.tokens_fd}", np.int32, "r", shape=shape),
        wanted=np.memmap(f"/dev/fd/{args.wanted_fd}", np.uint8, "r", shape=shape),
        logits=exported_memory(args.logits_handle, logits_shape)
        if args.logits_handle
        else torch.from_numpy(np.memmap(f"/dev/fd/{args.logits_fd}", np.float32, "r+", shape=logits_shape)),
    )


def exported_memory(handle: str, shape: tuple[int, ...]) -> Tensor:
    """A float32 tensor in memory of the card that the evaluator has exported: the arguments of torch's IPC, bytes as hex, in JSON."""
    fields = [bytes.fromhex(value) if isinstance(value, str) else value for value in json.loads(handle)]
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared_cuda(*fields)
    memory = torch.empty(0, dtype=torch.float32, device=storage.device)
    return memory.set_(storage, 0, shape, torch.empty(shape, device="meta").stride())


# ---------------------------------------------------------------------- the model


class TrainedModel:
    """A model that fulfils `contract.Model`, asked with `wanted` and `cache` where its `forward` takes them."""

    def __init__(self, model: nn.Module, device: torch.device, attention: AttentionFn) -> None:
        takes = inspect.signature(model.forward).parameters
        self.device = device
        self.shares_prefixes = "cache" in takes and "wanted" in takes
        self._selects = "wanted" in takes
        self._model = model
        self._attention = attention

    def rows(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        if self._selects:
            logits: Tensor = self._model(tokens, wanted=wanted)
            return logits
        everywhere: Tensor = self._model(tokens)
        if everywhere.ndim != 3 or everywhere.shape[:2] != tokens.shape:
            raise ValueError(f"the model returned logits of shape {tuple(everywhere.shape)} for tokens {tuple(tokens.shape)}")
        return everywhere.flatten(0, 1) if bool(wanted.all()) else everywhere[wanted]

    def shared(self, prefixes: Tensor, prefix_of: Tensor, tokens: Tensor, wanted: Tensor) -> Tensor:
        cache = SharedPrefixes(self._attention)
        self._model(prefixes, cache=cache, wanted=torch.zeros_like(prefixes, dtype=torch.bool))
        cache.continue_with(prefix_of)
        logits: Tensor = self._model(tokens, cache=cache, wanted=wanted)
        return logits


class SharedPrefixes:
    """A cache for scoring, as `GPT.forward` uses `generate.Cache`: reads prefixes once, then rows that continue them."""

    def __init__(self, attention: AttentionFn) -> None:
        self.length = 0
        """Tokens that all layers have seen."""
        self._attention = attention
        self._prefix_of: Tensor | None = None
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys and values (G, up to P, Hkv, D) of each layer."""
        self._last_embeddings: Tensor | None = None

    def continue_with(self, prefix_of: Tensor) -> None:
        """The next tokens are rows, and row b continues prefix prefix_of[b]."""
        self._prefix_of = prefix_of

    def shifted(self, x: Tensor) -> Tensor:
        """Embeddings x (B, T, C) one position later: the prefix's last one comes first, or zeros before a prefix."""
        if self._prefix_of is None or self._last_embeddings is None:
            self._last_embeddings = x[:, -1:]
            first = torch.zeros_like(x[:, :1])
        else:
            first = self._last_embeddings[self._prefix_of]
        return torch.cat([first, x[:, :-1]], dim=1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """q (B, T, H, D), k and v (B, T, Hkv, D) -> (B, T, H, D)."""
        if self._prefix_of is None:
            seen = k.shape[1] if window < 0 else min(window, k.shape[1])
            self._kept[layer] = k[:, k.shape[1] - seen :], v[:, v.shape[1] - seen :]
            return self._attention(q, k, v, window)
        keys, values = (torch.cat([old[self._prefix_of], new], dim=1) for old, new in zip(self._kept[layer], (k, v), strict=True))
        end = self.length + q.shape[1]
        positions = torch.arange(end - keys.shape[1], end, device=q.device)
        return dot_product_attention(q, keys, values, visible(positions[-q.shape[1] :], positions, window))

    def advance(self, tokens: int) -> None:
        """Called by the model when every layer has attended."""
        self.length += tokens


# ---------------------------------------------------------------------- arguments


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="baseline.serve", description="Serve raw logits of trained weights; see the module's text.")
    parser.add_argument("--config", type=Path, required=True, help="the track's TrainConfig as JSON")
    parser.add_argument("--configured", action="store_true", help="the config is a checkpoint's: the submission has changed it already")
    parser.add_argument("--submission", type=Path, help="folder with slot files")
    parser.add_argument("--weights", type=Path, required=True)
    add_buffer_arguments(parser)
    return parser.parse_args(arguments)


def add_buffer_arguments(parser: argparse.ArgumentParser) -> None:
    """What `serve` reads of the command line."""
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--tokens-fd", type=int, required=True)
    parser.add_argument("--wanted-fd", type=int, required=True)
    logits = parser.add_mutually_exclusive_group(required=True)
    logits.add_argument("--logits-fd", type=int)
    logits.add_argument("--logits-handle", help="JSON; see exported_memory")
    for name in ("--slots", "--max-tokens", "--max-positions"):
        parser.add_argument(name, type=int, required=True)


if __name__ == "__main__":
    sys.exit(main())
