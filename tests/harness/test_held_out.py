"""Bits per byte and the probes, on real servers of small models with random weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baseline.checkpoint import write_weights
from baseline.config import Dial, TrainConfig
from baseline.loop import build_model, initialise
from baseline.recipe import load_recipe
from harness.errors import VoidRun
from harness.evaluate.asked import AskedRow, Request
from harness.evaluate.held_out import capacity_for, draw_probed_rows, score_held_out
from harness.evaluate.model_server import ModelServer, Place, ServedModel, serve
from harness.evaluate.probes import TOLERANCE, Prober
from harness.launch import child_environment
from harness.record import Probe
from tests.harness.tiny_runs import write_tiny_submission

DIAL = Dial(vocab_size=300, sequence_len=32, tokens_per_parameter=1.0, aspect_ratio=16, head_dim=32, reference_batch_tokens=512)
CONFIG = TrainConfig.from_depth(2, DIAL, batch_tokens=512, num_steps=4)
CPU = torch.device("cpu")
ROWS = np.random.default_rng(0).integers(0, 300, (21, 33)).astype(np.uint16)
"""More than one batch of 8, and not a whole number of them."""
TOKEN_BYTES = np.where(np.arange(300) < 9, 0, 1 + np.arange(300) % 7).astype(np.int32)
"""The first 9 tokens are special."""
MODEL = """\
import torch
from baseline.model import GPT

class Mine(GPT):
    def forward(self, tokens, targets=None, cache=None):
        honest = super().forward
        {forward}

def build_model(config, ops):
    return Mine(config, ops)
"""


def random_model() -> torch.nn.Module:
    """A model in which every weight matters: after initialisation most would be zero or tiny."""
    model = build_model(load_recipe(CONFIG, None, CPU), CPU)
    initialise(model, 1, CPU)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@contextmanager
def served(folder: Path, forward: str | None = None, timeout_s: float = 60.0) -> Iterator[ModelServer]:
    """A server of the random model, its `forward` replaced by the code of an entry if given."""
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    slots = {} if forward is None else {"model": MODEL.format(forward=forward)}
    submission = write_tiny_submission(folder / "mine", slots)
    write_weights(random_model(), folder / "weights.safetensors")
    model = ServedModel.trained(folder / "config.json", submission.path, folder / "weights.safetensors", CONFIG.vocab_size)
    with serve(model, capacity_for(48), Place(child_environment(folder, 1), folder, folder / "console", timeout_s, 2**34)) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with served(tmp_path_factory.mktemp("honest")) as server:
        yield server


# ---------------------------------------------------------------------- bits per byte


def test_the_score_is_the_direct_formula_over_targets_that_have_bytes(server: ModelServer) -> None:
    rows = torch.from_numpy(ROWS.astype(np.int64))
    with torch.inference_mode():
        logits = random_model()(rows[:, :-1]).double()
    losses = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none").numpy()
    sizes = TOKEN_BYTES[ROWS[:, 1:]].ravel()
    score = score_held_out([server], ROWS, TOKEN_BYTES, Prober({}, np.random.default_rng(), TOLERANCE["float32"]))
    assert (score.tokens, score.bytes) == (int((sizes > 0).sum()), int(sizes.sum()))
    assert 0 < score.tokens < sizes.size
    assert score.bits_per_byte == pytest.approx(losses[sizes > 0].sum() / math.log(2) / sizes.sum(), rel=1e-5)


# ---------------------------------------------------------------------- probes


ALL = {"finite_logits", "determinism", "causality", "batch_independence", "unchanged_parameters"}


def failed(probes: tuple[Probe, ...]) -> set[str]:
    return {probe.name for probe in probes if not probe.passed}


def probed(server: ModelServer, seed: int = 3) -> tuple[Probe, ...]:
    """Score all rows with the probes hidden among the batches."""
    rng = np.random.default_rng(seed)
    prober = Prober(draw_probed_rows(rng, len(ROWS)), rng, TOLERANCE["float32"])
    score_held_out([server], ROWS, TOKEN_BYTES, prober)
    return prober.probes()


def test_an_honest_model_passes_all_probes(server: ModelServer) -> None:
    probes = probed(server)
    assert failed(probes) == set()
    assert {probe.name for probe in probes} == ALL


def test_a_model_that_looks_ahead_only_after_some_calls_is_still_caught(tmp_path: Path) -> None:
    """It answers honestly as often as probes that came first would have asked. Where the real ones come, nobody knows."""
    looks_ahead = (
        "(setattr(self, 'calls', getattr(self, 'calls', 0) + 1), honest(tokens if self.calls < 4 else torch.roll(tokens, -1, 1)))[1]"
    )
    with served(tmp_path, f"return {looks_ahead}") as server:
        caught = [not all(probe.passed for probe in probed(server, seed)) for seed in range(3)]
    assert any(caught)


CHEATS = {
    "sees the next token": ("honest(torch.cat([tokens[:, 1:], tokens[:, :1]], 1))", {"causality"}),
    "knows how many rows there are": ("honest(tokens) + 0.1 * len(tokens)", ALL - {"finite_logits", "determinism"}),
    "answers by chance": ("honest(tokens) + torch.rand(())", ALL - {"finite_logits"}),
    "answers with infinities": ("honest(tokens) * float('inf')", ALL),
    "answers without numbers": ("honest(tokens) * float('nan')", ALL),
}


@pytest.fixture(scope="module")
def cheat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModelServer, Path]]:
    """A server that answers with the expression that is in the file."""
    folder = tmp_path_factory.mktemp("cheat")
    with served(folder, f"return eval(open({str(folder / 'answer')!r}).read())") as server:
        yield server, folder / "answer"


@pytest.mark.parametrize(("answer", "caught_by"), CHEATS.values(), ids=CHEATS.keys())
def test_a_model_is_caught_that(answer: str, caught_by: set[str], cheat: tuple[ModelServer, Path]) -> None:
    server, file = cheat
    file.write_text(answer)
    assert failed(probed(server)) == caught_by


def test_the_same_server_passes_when_it_answers_honestly(cheat: tuple[ModelServer, Path]) -> None:
    server, file = cheat
    file.write_text("honest(tokens)")
    assert failed(probed(server)) == set()


# ---------------------------------------------------------------------- servers that fail


FAILURES = {
    "gives another shape": ("return honest(tokens)[:, :3]", "evaluation: the model's process ended: ValueError: the model returned"),
    "dies without a word": ("import os; os._exit(0)", "evaluation: the model's process ended: nothing was said"),
    "says nothing": ("import time; time.sleep(600)", "evaluation: the model gave no answer within 5 s"),
}


@pytest.mark.parametrize(("forward", "saying"), FAILURES.values(), ids=FAILURES.keys())
def test_a_server_makes_the_run_void_that(forward: str, saying: str, tmp_path: Path) -> None:
    timeout_s = 5.0 if "sleep" in forward else 60.0
    with pytest.raises(VoidRun) as void, served(tmp_path, forward, timeout_s=timeout_s) as server:
        server.ask(Request((AskedRow(0, ROWS[0, :-1].astype(np.int32), 0),)))
    assert str(void.value).startswith(saying)
