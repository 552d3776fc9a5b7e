"""The model server: what it answers is what the model says, of the wanted positions, however the rows reach it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from baseline.checkpoint import write_weights
from baseline.config import Dial, TrainConfig
from baseline.loop import build_model, initialise
from baseline.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
DIAL = Dial(
    vocab_size=300,
    sequence_len=48,
    tokens_per_parameter=1.0,
    aspect_ratio=32,
    head_dim=32,
    reference_batch_tokens=48,
    short_window_multiple=4,
)
CONFIG = TrainConfig.from_depth(3, DIAL, batch_tokens=48, num_steps=1)
"""Windows of 12 tokens in the first layers; value embeddings, smear, backout."""
SLOTS, MAX_TOKENS, MAX_POSITIONS = 2, 400, 250
CHANGED_MODEL = """\
import torch
from baseline.model import GPT

class Mine(GPT):
    {method}

def build_model(config, ops):
    return Mine(config, ops)
"""


def random_model() -> nn.Module:
    """A model in which every weight matters: after initialisation most would be zero or tiny."""
    cpu = torch.device("cpu")
    model = build_model(load_recipe(CONFIG, None, cpu), cpu)
    initialise(model, 1, cpu)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@torch.inference_mode()
def expected(tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits (rows, length, vocab) straight from the model."""
    logits: NDArray[np.float32] = random_model()(torch.from_numpy(tokens)).numpy()
    assert np.abs(logits).max() > 0.1
    return logits


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its buffers as this process sees them, the channel, and what it can take."""

    tokens: NDArray[np.int32]
    wanted: NDArray[np.uint8]
    logits: NDArray[np.float32]
    channel: socket.socket
    ready: bytes

    def rows(self, tokens: NDArray[np.int64], wanted: NDArray[np.bool_], slot: int = 0) -> NDArray[np.float32]:
        self.fill(slot, tokens.ravel(), wanted)
        assert self.ask("rows", slot, *tokens.shape) == b"ok\n"
        return self.logits[slot, : wanted.sum()].copy()

    def shared(
        self, prefixes: NDArray[np.int64], prefix_of: NDArray[np.int64], tokens: NDArray[np.int64], wanted: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        self.fill(0, np.concatenate([prefixes.ravel(), tokens.ravel(), prefix_of]), wanted)
        assert self.ask("shared", 0, *prefixes.shape, *tokens.shape) == b"ok\n"
        return self.logits[0, : wanted.sum()].copy()

    def fill(self, slot: int, tokens: NDArray[np.int64], wanted: NDArray[np.bool_]) -> None:
        self.tokens[slot, : tokens.size] = tokens
        self.wanted[slot, : wanted.size] = wanted.ravel()

    def ask(self, *words: str | int) -> bytes:
        self.channel.sendall(" ".join(map(str, words)).encode() + b"\n")
        return self.channel.recv(64)


@contextmanager
def served(folder: Path, method: str | None = None, configure: str | None = None, config: TrainConfig = CONFIG) -> Iterator[Server]:
    """A server of the random model, one of its methods replaced by the code of an entry if given.

    `configure` is the expression of an entry's config slot, for a checkpoint that it has changed already.
    """
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    write_weights(random_model(), folder / "weights.safetensors")
    sizes = {"tokens": 4 * SLOTS * MAX_TOKENS, "wanted": SLOTS * MAX_TOKENS, "logits": 4 * SLOTS * MAX_POSITIONS * CONFIG.vocab_size}
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        ours.settimeout(60)
        files = {name: stack.enter_context(tempfile.TemporaryFile()) for name in sizes}
        for name, size in sizes.items():
            files[name].truncate(size)
        descriptors = {"channel": theirs.fileno(), **{name: file.fileno() for name, file in files.items()}}
        command = [
            sys.executable,
            "-m",
            "baseline.serve",
            f"--config={folder / 'config.json'}",
            f"--weights={folder / 'weights.safetensors'}",
        ]
        command += [f"--slots={SLOTS}", f"--max-tokens={MAX_TOKENS}", f"--max-positions={MAX_POSITIONS}"]
        command += [f"--{name}-fd={descriptor}" for name, descriptor in descriptors.items()]
        if method is not None or configure is not None:
            (folder / "entry").mkdir()
            command.append(f"--submission={folder / 'entry'}")
        if method is not None:
            (folder / "entry" / "model.py").write_text(CHANGED_MODEL.format(method=method))
        if configure is not None:
            (folder / "entry" / "config.py").write_text(f"def configure(config):\n    return {configure}\n")
            command.append("--configured")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, cwd=ROOT, pass_fds=list(descriptors.values()), env=environment) as process:
            theirs.close()
            yield Server(
                np.memmap(files["tokens"], np.int32, "r+", shape=(SLOTS, MAX_TOKENS)),
                np.memmap(files["wanted"], np.uint8, "r+", shape=(SLOTS, MAX_TOKENS)),
                np.memmap(files["logits"], np.float32, "r+", shape=(SLOTS, MAX_POSITIONS, CONFIG.vocab_size)),
                ours,
                ours.recv(64),
            )
            ours.close()
            assert process.wait(20) == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("served")) as server:
        yield server


def random_rows(rows: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Tokens, and marks of about a third of the positions."""
    rng = np.random.default_rng([rows, length])
    return rng.integers(0, CONFIG.vocab_size, (rows, length)), rng.random((rows, length)) < 0.35


# ---------------------------------------------------------------------- rows


@pytest.mark.parametrize(("rows", "length"), [(5, 48), (1, 48), (3, 17), (1, 1)])
def test_the_logits_are_the_models_own(rows: int, length: int, server: Server) -> None:
    tokens, wanted = random_rows(rows, length)
    wanted[0, 0] = True
    np.testing.assert_allclose(server.rows(tokens, wanted), expected(tokens)[wanted], rtol=0, atol=1e-5)


def test_a_model_without_the_parameter_wanted_gives_the_same(tmp_path: Path) -> None:
    tokens, wanted = random_rows(4, 30)
    with served(tmp_path, "def forward(self, tokens, targets=None): return super().forward(tokens, targets)") as server:
        assert server.ready == b"ready rows\n"
        for marks in (wanted, np.ones_like(wanted)):
            np.testing.assert_allclose(server.rows(tokens, marks), expected(tokens)[marks], rtol=0, atol=1e-5)


def test_a_checkpoints_config_is_not_changed_again(tmp_path: Path) -> None:
    tokens, wanted = random_rows(2, 30)
    with served(tmp_path, configure="config.with_(depth=config.depth + 1)") as server:
        np.testing.assert_allclose(server.rows(tokens, wanted), expected(tokens)[wanted], rtol=0, atol=1e-5)


def test_weights_are_scored_as_they_are(tmp_path: Path) -> None:
    """Not in 8 bits, which no CPU multiplies, and not compiled, however they were trained."""
    tokens, wanted = random_rows(2, 30)
    with served(tmp_path, config=CONFIG.with_(fp8=True, compile=True)) as server:
        np.testing.assert_allclose(server.rows(tokens, wanted), expected(tokens)[wanted], rtol=0, atol=1e-5)


def test_slots_are_apart_and_answered_in_order(server: Server) -> None:
    batches = [random_rows(3, 20), random_rows(2, 31)]
    for slot, (tokens, wanted) in enumerate(batches):
        server.fill(slot, tokens.ravel(), wanted)
    server.channel.sendall(b"rows 0 3 20\nrows 1 2 31\n")
    answers = b""
    while len(answers) < 6:
        answers += server.channel.recv(64)
    assert answers == b"ok\nok\n"
    for slot, (tokens, wanted) in enumerate(batches):
        np.testing.assert_allclose(server.logits[slot, : wanted.sum()], expected(tokens)[wanted], rtol=0, atol=1e-5)


def test_an_answer_touches_nothing_but_its_positions(server: Server) -> None:
    server.logits[:] = 7.0
    tokens, wanted = random_rows(2, 9)
    server.rows(tokens, wanted, slot=1)
    assert (server.logits[0] == 7.0).all()
    assert (server.logits[1, wanted.sum() :] == 7.0).all()
    assert not (server.logits[1, : wanted.sum()] == 7.0).any()


# ---------------------------------------------------------------------- shared prefixes


@pytest.mark.parametrize("start", [1, 7, 12, 13, 40])
def test_rows_that_share_a_prefix_get_the_logits_of_whole_rows(start: int, server: Server) -> None:
    """Shorter and longer than the windows; prefixes named in any order."""
    rng = np.random.default_rng(start)
    prefixes, prefix_of = rng.integers(0, CONFIG.vocab_size, (2, start)), np.array([1, 0, 1, 1])
    tokens, wanted = random_rows(4, 8)
    assert server.ready == b"ready shared\n"
    whole = expected(np.concatenate([prefixes[prefix_of], tokens], axis=1))[:, start:]
    np.testing.assert_allclose(server.shared(prefixes, prefix_of, tokens, wanted), whole[wanted], rtol=0, atol=2e-5)


# ---------------------------------------------------------------------- memory


FULL = {
    "a card's memory": 'raise torch.OutOfMemoryError("CUDA out of memory")',
    "this machine's memory": 'raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can\'t allocate memory")',
    "what python may have": "raise MemoryError",
}


@pytest.mark.parametrize("failure", FULL.values(), ids=FULL.keys())
def test_a_request_too_large_is_answered_by_oom_and_the_next_one_by_logits(failure: str, tmp_path: Path) -> None:
    tokens, wanted = random_rows(4, 10)
    method = f"""def embed(self, tokens, cache=None):
        if len(tokens) > 2:
            {failure}
        return super().embed(tokens, cache)"""
    with served(tmp_path, method) as server:
        server.fill(0, tokens.ravel(), wanted)
        assert server.ask("rows", 0, 4, 10) == b"oom\n"
        np.testing.assert_allclose(server.rows(tokens[:2], wanted[:2]), expected(tokens[:2])[wanted[:2]], rtol=0, atol=1e-5)
