"""The model server: token rows in, raw logits out, and nothing else.

It runs in a fresh process after the clock has stopped. The evaluator owns both buffers (files without a name, mapped
here from inherited descriptors), keeps targets and labels to itself, and does every softmax. One request is one line
`rows length` on an inherited socket; the answer is one line `ok` once the logits lie in the buffer.

    tokens  int32   (max_rows, max_length)               written by the evaluator
    logits  float32 (max_rows, max_length, vocab_size)   written here
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from baseline.checkpoint import read_weights
from baseline.config import TrainConfig
from baseline.loop import build_model, initialise
from baseline.recipe import load_recipe
from baseline.world import die_with_parent, local_device


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    die_with_parent()
    device = local_device()
    config = TrainConfig.from_dict(json.loads(args.config.read_text()))
    recipe = load_recipe(config, args.submission, device)
    model = build_model(recipe, device)
    initialise(model, 0, device)
    read_weights(model, args.weights)
    model.eval()
    tokens = np.memmap(f"/dev/fd/{args.tokens_fd}", np.int32, "r", shape=(args.max_rows, args.max_length))
    logits = np.memmap(f"/dev/fd/{args.logits_fd}", np.float32, "r+", shape=(args.max_rows, args.max_length, config.vocab_size))
    with socket.socket(fileno=args.channel_fd) as channel, channel.makefile("rw", buffering=1) as lines:
        lines.write("ready\n")
        for line in lines:
            rows, length = (int(word) for word in line.split())
            answer(model, tokens, logits, rows, length, device)
            lines.write("ok\n")
    return 0


@torch.inference_mode()
def answer(model: nn.Module, tokens: NDArray[np.int32], logits: NDArray[np.float32], rows: int, length: int, device: torch.device) -> None:
    """Write the logits (rows, length, vocab_size) of the first `rows` rows, `length` tokens each."""
    batch = torch.from_numpy(np.ascontiguousarray(tokens[:rows, :length]).astype(np.int64)).to(device)
    output = model(batch)
    expected = (rows, length, logits.shape[2])
    if tuple(output.shape) != expected:
        raise ValueError(f"the model returned logits of shape {tuple(output.shape)} for tokens {(rows, length)}; expected {expected}")
    logits[:rows, :length] = output.float().cpu().numpy()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="baseline.serve", description="Serve raw logits of trained weights; see the module's text.")
    parser.add_argument("--config", type=Path, required=True, help="the track's TrainConfig as JSON")
    parser.add_argument("--submission", type=Path, help="folder with slot files")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--tokens-fd", type=int, required=True)
    parser.add_argument("--logits-fd", type=int, required=True)
    parser.add_argument("--max-rows", type=int, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
