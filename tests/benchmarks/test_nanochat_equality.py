"""The frozen trainer computes what nanochat's head computes: settings, logits, loss, gradients, and the weights after 1, 5 and 20 steps.

Both start from the same weights, float32, uncompiled. No weight starts at zero as in a run, where whole paths would have no gradient yet.
A step rounds each weight once or twice in float32, and that alone moves it by a thousandth of its step: hence MOVEMENT_TOLERANCE.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from baseline.config import Dial, TrainConfig
from baseline.data.rows import RowReader
from baseline.optimizer import ElementGroup, MatrixGroup, MuonAdamW
from baseline.schedule import schedule
from benchmarks.cpu_train import random_rows
from benchmarks.nanochat_head import NanochatTrainer, build_model, nanochat_name, script_results
from benchmarks.side_by_side import BaselineTrainer
from tests.benchmarks.nanochat_clone import float32_clone, needs_clone

pytestmark = needs_clone

CPU = torch.device("cpu")
GRADIENT_TOLERANCE = 1e-5
"""Relative Frobenius error of a parameter's gradient; 1.2e-6 was read."""
MOVEMENT_TOLERANCE = 3e-3
"""Distance of the two trainers' weights over the distance from the start; 1.0e-3 was read, after the first step."""
SMALL = TrainConfig.from_depth(4, Dial(4096, 512, 12.0, max_batch_tokens=1024), num_steps=60, rows_per_forward=1)
"""Two rows a step, in two micro-steps."""
SPEEDRUN = Dial(vocab_size=32_768, sequence_len=2_048, tokens_per_parameter=8.0)
TINY_BATCHES = Dial(vocab_size=4096, sequence_len=512, tokens_per_parameter=12.0, reference_batch_tokens=8192, max_batch_tokens=2048)

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Pair:
    """Both trainers at the same weights, and those weights under our names."""

    ours: BaselineTrainer
    theirs: NanochatTrainer
    start: Weights
    reader: RowReader

    def their(self, name: str) -> Any:
        """nanochat's parameter for ours of that name."""
        return self.theirs.model.get_parameter(nanochat_name(name))


def pair(config: TrainConfig) -> Pair:
    theirs = NanochatTrainer(float32_clone(), config, CPU, seed=1)
    ours = BaselineTrainer(config, CPU, seed=2)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in theirs.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=0.02)
        for name, parameter in ours.model.named_parameters():
            parameter.copy_(theirs.model.get_parameter(nanochat_name(name)))
    start = {name: p.detach().clone() for name, p in ours.model.named_parameters()}
    return Pair(ours, theirs, start, RowReader(random_rows(config, 64), 0, 1, CPU))


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Any:
    with torch.compiler.set_stance("force_eager"):
        yield


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(("depth", "dial"), [(12, SPEEDRUN), (20, SPEEDRUN), (24, SPEEDRUN), (4, TINY_BATCHES)])
def test_windows_and_counts_and_learning_rates_are_those_that_nanochats_script_derives(depth: int, dial: Dial) -> None:
    config = TrainConfig.from_depth(depth, dial)
    clone = float32_clone()
    theirs = build_model(clone, config, torch.device("meta"), seed=0)
    ours = BaselineTrainer.unwritten(config)
    results = script_results(clone, config, theirs)

    assert [-1 if left >= config.sequence_len else left for left, _ in theirs.window_sizes] == config.windows()
    assert theirs.estimate_flops() == ours.flops_per_token()
    counts, ours_counts = theirs.num_scaling_params(), ours.parameter_counts()
    assert counts["total"] == ours_counts["total"]
    assert counts["transformer_matrices"] + counts["lm_head"] == ours_counts["scaling"]
    assert results["target_tokens"] // config.batch_tokens == config.num_steps
    rates = {
        "lm_head_lr": theirs.lm_head.weight,
        "embedding_lr": theirs.transformer.wte.weight,
        "value_embedding_lr": next(iter(theirs.value_embeds.values())).weight,
        "resid_scale_lr": theirs.resid_lambdas,
        "x0_scale_lr": theirs.x0_lambdas,
        "gate_lr": theirs.smear_lambda,
        "matrix_lr": theirs.transformer.h[0].attn.c_q.weight,
    }
    for field, parameter in rates.items():
        group = next(g for g in results["optimizer"].param_groups if any(p is parameter for p in g["params"]))
        assert getattr(config, field) == pytest.approx(group["initial_lr"], rel=1e-7), field
    assert config.matrix_weight_decay == pytest.approx(results["weight_decay_scaled"], rel=1e-7)


@pytest.mark.parametrize("depth", [12, 20, 24])
def test_the_batch_is_the_one_that_nanochats_scaling_law_chooses(depth: int) -> None:
    config = TrainConfig.from_depth(depth, SPEEDRUN)
    clone = float32_clone()
    model = build_model(clone, config, torch.device("meta"), seed=0)
    results = script_results(clone, config, model, total_batch_size=-1)
    assert config.batch_tokens == results["total_batch_size"]


def test_learning_rate_momentum_and_weight_decay_are_nanochats_at_every_step() -> None:
    config = SMALL.with_(num_steps=1300)  # long enough to leave the momentum's warmup of 400 steps before the warmdown
    theirs = NanochatTrainer(float32_clone(), config, CPU, seed=0)
    for step in range(config.num_steps):
        plan = schedule(step, config)
        expected = [f(step) for f in theirs.schedules]
        found = [plan.learning_rate, plan.momentum, config.matrix_weight_decay * plan.weight_decay]
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-15), step


def test_every_group_has_nanochats_betas_and_weight_decay() -> None:
    both = pair(SMALL)
    theirs = {id(p): group for group in both.theirs.optimizer.param_groups for p in group["params"]}
    assert isinstance(both.ours.optimizer, MuonAdamW)
    for group in both.ours.optimizer.groups:
        for name in group.parameters:
            expected = theirs[id(both.their(name))]
            assert isinstance(group, MatrixGroup) == (expected["kind"] == "muon")
            if isinstance(group, ElementGroup):
                settings = group.settings
                assert (settings.beta1, settings.beta2) == expected["betas"]
                assert settings.weight_decay == expected["weight_decay"]


# ---------------------------------------------------------------------- one batch


@pytest.mark.parametrize("compile", [False, True], ids=["as without a compiler", "as for a compiler"])
def test_logits_and_loss_and_all_gradients_agree(compile: bool) -> None:
    both = pair(SMALL.with_(compile=compile))
    inputs, targets = both.reader.batch(0, 0, 2)
    torch.testing.assert_close(both.ours.model(inputs), both.theirs.model(inputs), rtol=0, atol=5e-6)
    losses = [model(inputs, targets) for model in (both.ours.model, both.theirs.model)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    for loss in losses:
        loss.backward()
    for name, parameter in both.ours.model.named_parameters():
        expected = both.their(name).grad
        assert (parameter.grad - expected).norm() <= GRADIENT_TOLERANCE * expected.norm(), name


def test_fewer_key_heads_than_query_heads_agree_too() -> None:
    both = pair(SMALL.with_(num_kv_heads=1))
    inputs, _ = both.reader.batch(0, 0, 2)
    torch.testing.assert_close(both.ours.model(inputs), both.theirs.model(inputs), rtol=0, atol=5e-6)


# ---------------------------------------------------------------------- several steps


def movement_errors(ours: Weights, theirs: Weights, start: Weights) -> dict[str, float]:
    """For each parameter, how far apart the trainers are, over how far nanochat's went."""
    return {name: float((ours[name] - theirs[name]).norm() / (theirs[name] - start[name]).norm()) for name in start}


def weights_of(trainer: BaselineTrainer) -> Weights:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize(("compile", "steps"), [(False, 5), (True, 20)], ids=["as without a compiler", "as for a compiler"])
def test_weights_and_losses_agree_step_after_step(compile: bool, steps: int) -> None:
    both = pair(SMALL.with_(compile=compile))
    for step in range(steps):
        losses = [trainer.train_step(step, both.reader).item() for trainer in (both.ours, both.theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=3e-6)
        if step + 1 in (1, 5, 20):
            theirs = {name: both.their(name).detach() for name in both.start}
            errors = movement_errors(weights_of(both.ours), theirs, both.start)
            assert max(errors.values()) < MOVEMENT_TOLERANCE, (step + 1, max(errors, key=lambda name: errors[name]))


@cache
def weights_after_five_steps(config: TrainConfig) -> tuple[Weights, Weights]:
    """(at the start, after five steps) of our trainer."""
    both = pair(config)
    for step in range(5):
        both.ours.train_step(step, both.reader)
    return both.start, weights_of(both.ours)


@pytest.mark.parametrize(
    "change",
    [
        {"variance_beta": 0.85},
        {"momentum_start": 0.84},
        {"cautious_weight_decay": False},
        {"row_equilibration": False},
        {"norm_restoration": False},
        {"orthogonalization": "newton_schulz"},
        {"matrix_lr": SMALL.matrix_lr * 1.01},
        {"embedding_lr": SMALL.embedding_lr * 1.01},
        {"matrix_weight_decay": SMALL.matrix_weight_decay * 1.2},
        {"warmup_steps": 41},
    ],
    ids=lambda change: next(iter(change)),
)
def test_so_small_a_change_of_the_mathematics_would_be_seen(change: dict[str, Any]) -> None:
    start, unchanged = weights_after_five_steps(SMALL)
    _, changed = weights_after_five_steps(SMALL.with_(**change))
    assert max(movement_errors(changed, unchanged, start).values()) > MOVEMENT_TOLERANCE
