"""Serves a pretrained model in Hugging Face's format by the protocol of `baseline.serve`. Needs the extra `hf`.

python -m harness.evaluate.pretrained_server --model FOLDER_OR_NAME [--gguf FILE] --vocab-size N …
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils import logging

from baseline.serve import add_buffer_arguments, serve
from baseline.world import die_with_parent, local_device

DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}
"""Type of device -> compute dtype."""
ROUNDING = {torch.float32: 1e-2, torch.bfloat16: 1.0}
"""Largest difference of two logits by which a faster way may differ from the model's plain forward on the sample rows."""
SAMPLE_TOKENS = 12


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    die_with_parent()
    logging.disable_progress_bar()
    device = local_device()
    options = {"gguf_file": args.gguf} if args.gguf else {}
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=DTYPES[device.type], **options).to(device).eval()
    serve(PretrainedModel(model, device, args.vocab_size), args, args.vocab_size)
    return 0


class PretrainedModel:
    """A causal model of `transformers`. Fulfils `baseline.serve.Scorer`.

    Two ways are faster than its plain forward: the head on the wanted positions alone, and a cache of prefixes. Not every
    architecture bears them (one scales its logits behind the head, another has a cache of another kind), so each is tried once on
    sample rows, and used if it gives what the plain forward gives.
    """

    def __init__(self, model: Any, device: torch.device, vocab_size: int) -> None:
        self.device = device
        self._model = model
        self._vocab_size = vocab_size
        self._selects = self._same(self._select)
        self.shares_prefixes = self._selects and self._same(self._share)

    def rows(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        return self._select(tokens, wanted) if self._selects else self._plain(tokens, wanted)

    def shared(self, prefixes: Tensor, prefix_of: Tensor, tokens: Tensor, wanted: Tensor) -> Tensor:
        cache = DynamicCache(config=self._model.config)
        self._model.base_model(input_ids=prefixes, past_key_values=cache, use_cache=True)
        cache.batch_select_indices(prefix_of)
        hidden = self._model.base_model(input_ids=tokens, past_key_values=cache, use_cache=True).last_hidden_state
        return self._head(hidden[wanted])

    def _plain(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        logits: Tensor = self._model(input_ids=tokens, use_cache=False).logits
        return logits[wanted][:, : self._vocab_size].float()

    def _select(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        hidden = self._model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        return self._head(hidden[wanted])

    def _share(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """Rows that begin alike, with their common beginning read once."""
        start = SAMPLE_TOKENS // 2
        prefix_of = torch.zeros(len(tokens), dtype=torch.int64, device=self.device)
        return self.shared(tokens[:1, :start], prefix_of, tokens[:, start:], wanted[:, start:])

    def _head(self, hidden: Tensor) -> Tensor:
        """Final hidden states (n, C) -> logits (n, vocab). The table may be padded."""
        logits: Tensor = self._model.get_output_embeddings()(hidden)
        return logits[:, : self._vocab_size].float()

    @torch.inference_mode()
    def _same(self, way: Any) -> bool:
        """Whether a way to answer gives, on three sample rows that begin alike, the logits of the plain forward."""
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(self._vocab_size, (3, SAMPLE_TOKENS), generator=generator)
        tokens[:, : SAMPLE_TOKENS // 2] = tokens[0, : SAMPLE_TOKENS // 2]
        wanted = torch.arange(SAMPLE_TOKENS).expand(3, -1) >= SAMPLE_TOKENS // 2
        tokens, wanted = tokens.to(self.device), wanted.to(self.device)
        plain = self._plain(tokens, wanted)
        try:
            return bool((way(tokens, wanted) - plain).abs().max() <= ROUNDING[self._model.dtype])
        except (AttributeError, NotImplementedError, TypeError, ValueError):
            return False


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="harness.evaluate.pretrained_server", description="Serve a pretrained model's raw logits.")
    parser.add_argument("--model", required=True, help="a folder, or a name on the hub")
    parser.add_argument("--gguf", help="name of the GGUF file in it")
    parser.add_argument("--vocab-size", type=int, required=True)
    add_buffer_arguments(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
