"""The model server: what it answers is what the model says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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
DIAL = Dial(vocab_size=300, sequence_len=48, tokens_per_parameter=1.0, aspect_ratio=32, head_dim=32, reference_batch_tokens=48)
CONFIG = TrainConfig.from_depth(2, DIAL, batch_tokens=48, num_steps=1)
MAX_ROWS, MAX_LENGTH = 5, 48


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


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its buffers as this process sees them, and the channel."""

    tokens: NDArray[np.int32]
    logits: NDArray[np.float32]
    channel: socket.socket
    process: subprocess.Popen[bytes]

    def answer(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        rows, length = tokens.shape
        self.tokens[:rows, :length] = tokens
        self.channel.sendall(f"{rows} {length}\n".encode())
        assert self.channel.recv(64) == b"ok\n"
        return self.logits[:rows, :length].copy()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    write_weights(random_model(), folder / "weights.safetensors")
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    with ours, tempfile.TemporaryFile() as tokens, tempfile.TemporaryFile() as logits:
        tokens.truncate(4 * MAX_ROWS * MAX_LENGTH)
        logits.truncate(4 * MAX_ROWS * MAX_LENGTH * CONFIG.vocab_size)
        descriptors = {"channel": theirs.fileno(), "tokens": tokens.fileno(), "logits": logits.fileno()}
        command = [sys.executable, "-m", "baseline.serve", "--config", str(folder / "config.json")]
        command += ["--weights", str(folder / "weights.safetensors"), f"--max-rows={MAX_ROWS}", f"--max-length={MAX_LENGTH}"]
        command += [f"--{name}-fd={descriptor}" for name, descriptor in descriptors.items()]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, cwd=ROOT, pass_fds=list(descriptors.values()), env=environment) as process:
            theirs.close()
            assert ours.recv(64) == b"ready\n"
            shape = (MAX_ROWS, MAX_LENGTH)
            yield Server(
                np.memmap(tokens, np.int32, "r+", shape=shape),
                np.memmap(logits, np.float32, "r+", shape=(*shape, CONFIG.vocab_size)),
                ours,
                process,
            )
            ours.close()
            assert process.wait(20) == 0


@pytest.mark.parametrize(("rows", "length"), [(MAX_ROWS, MAX_LENGTH), (1, MAX_LENGTH), (3, 17), (1, 1)])
def test_the_logits_are_the_models_own(rows: int, length: int, server: Server) -> None:
    tokens = np.random.default_rng(rows).integers(0, CONFIG.vocab_size, (rows, length))
    with torch.inference_mode():
        expected = random_model()(torch.from_numpy(tokens)).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(server.answer(tokens), expected, rtol=0, atol=1e-5)


def test_an_answer_touches_nothing_but_its_rows(server: Server) -> None:
    server.logits[:] = 7.0
    server.answer(np.zeros((2, 9), np.int64))
    assert (server.logits[2:] == 7.0).all()
    assert (server.logits[:, 9:] == 7.0).all()
    assert not (server.logits[:2, :9] == 7.0).any()
