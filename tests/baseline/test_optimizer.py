"""The optimizer on one rank: the algorithm against a plain float64 version of it, its settings, its state, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baseline.adamw import adamw_settings, adamw_step
from baseline.contract import StepPlan, World
from baseline.muon import apply_direction, direction
from baseline.ops import baseline_ops
from baseline.optimizer import MatrixGroup, MuonAdamW, build_optimizer
from baseline.shards import StateError
from tests.baseline.odd_model import CPU, PARAMETERS, OddModel, config_of, crude_polar_factor, gradients_of, ops_of, set_gradients
from tests.baseline.reference_optimizer import Reference

ALONE = World(0, 1, CPU)
PLANS = [StepPlan(0.5 + 0.1 * i, 0.85 + 0.02 * i, 1 - 0.15 * i, 8) for i in range(6)]


def trained(model: OddModel, optimizer: MuonAdamW, steps: range) -> dict[str, Tensor]:
    """The parameters after the given steps of drawn gradients."""
    for step in steps:
        set_gradients(model, step)
        optimizer.step(PLANS[step])
    return model.values()


def odd_optimizer(model: OddModel, **changes: Any) -> MuonAdamW:
    config = config_of(**changes)
    return build_optimizer(model, config, ops_of(config), ALONE)


# ---------------------------------------------------------------------- the algorithm


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"row_equilibration": False},
        {"norm_restoration": False},
        {"variance_reduction": False},
        {"variance_beta": 0.5},
        {"cautious_weight_decay": False},
        {"row_equilibration": False, "norm_restoration": False, "variance_reduction": False, "cautious_weight_decay": False},
        {"matrix_optimizer": "adamw"},
    ],
    ids=str,
)
def test_six_steps_agree_with_the_algorithm_in_float64(changes: dict[str, Any]) -> None:
    model = OddModel()
    reference = Reference(model, **changes)
    for step in range(6):
        reference.step(gradients_of(model, step), PLANS[step])
    values = trained(model, odd_optimizer(model, **changes), range(6))
    for name, expected in reference.values.items():
        torch.testing.assert_close(values[name].double(), expected, rtol=0, atol=3e-6, msg=f"{name} differs")


@pytest.mark.parametrize(("name", "least", "most", "alike"), [("polar_express", 0.85, 1.15, 0.99), ("newton_schulz", 0.65, 1.2, 0.97)])
def test_a_bare_muon_step_is_the_learning_rate_times_a_nearly_orthogonal_matrix(name: str, least: float, most: float, alike: float) -> None:
    off = {"row_equilibration": False, "norm_restoration": False, "variance_reduction": False, "matrix_weight_decay": 0.0}
    config = config_of(orthogonalization=name, **off)
    model = OddModel({"wide": PARAMETERS["wide"]})
    before = model.values()["wide"]
    optimizer = build_optimizer(model, config, baseline_ops(config, CPU), ALONE)
    set_gradients(model, 0)
    optimizer.step(StepPlan(1.0, 0.9, 1.0, 8))
    update = (before - model.values()["wide"]) / config.matrix_lr
    exact = crude_polar_factor(gradients_of(model, 0)["wide"]) / 0.8
    singular_values = torch.linalg.svdvals(update)
    assert singular_values.min() > least
    assert singular_values.max() < most
    assert torch.cosine_similarity(update.flatten(), exact.flatten(), dim=0) > alike


# ---------------------------------------------------------------------- settings


def test_settings_of_every_adamw_role() -> None:
    config = config_of(lm_head_lr=0.11, embedding_lr=0.12, value_embedding_lr=0.13, resid_scale_lr=0.14, x0_scale_lr=0.15, gate_lr=0.16)
    settings = {
        role: adamw_settings(role, config) for role in ("lm_head", "embedding", "value_embedding", "resid_scale", "x0_scale", "gate")
    }
    assert {role: (s.learning_rate, s.beta1, s.beta2, s.weight_decay) for role, s in settings.items()} == {
        "lm_head": (0.11, 0.8, 0.96, 0.01),
        "embedding": (0.12, 0.8, 0.995, 0.001),
        "value_embedding": (0.13, 0.8, 0.995, 0.01),
        "resid_scale": (0.14, 0.8, 0.95, 0.05),
        "x0_scale": (0.15, 0.96, 0.95, 0.0),
        "gate": (0.16, 0.8, 0.95, 0.0),
    }


def test_matrices_under_adamw_learn_at_a_tenth_of_muons_rate_without_decay() -> None:
    settings = adamw_settings("matrix", config_of(matrix_optimizer="adamw", matrix_lr=0.02))
    assert settings.learning_rate == pytest.approx(0.002)
    assert (settings.beta1, settings.beta2, settings.weight_decay) == (0.9, 0.95, 0.0)


def test_a_plan_with_learning_rate_zero_changes_nothing() -> None:
    model = OddModel()
    before = model.values()
    optimizer = odd_optimizer(model)
    set_gradients(model, 0)
    optimizer.step(StepPlan(0.0, 0.9, 1.0, 8))
    assert all(torch.equal(before[name], value) for name, value in model.values().items())


def test_a_missing_gradient_counts_as_zeros() -> None:
    missing = ("square_b", "tall", "embedding", "aligned_lm_head", "smear_scale")
    results = []
    for fill in (None, 0.0):
        model, config = OddModel(), config_of()
        optimizer = build_optimizer(model, config, baseline_ops(config, CPU), ALONE)
        for step in range(3):
            set_gradients(model, step)
            if step > 0:
                for name in missing:
                    parameter = model.get_parameter(name)
                    parameter.grad = None if fill is None else torch.zeros_like(parameter)
            optimizer.step(PLANS[step])
        results.append(model.values())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_zero_grad_forgets_every_gradient() -> None:
    model = OddModel()
    optimizer = odd_optimizer(model)
    set_gradients(model, 0)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_step_leaves_the_gradients_as_they_were() -> None:
    model = OddModel()
    optimizer = odd_optimizer(model)
    set_gradients(model, 0)
    optimizer.step(PLANS[0])
    expected = gradients_of(model, 0)
    assert all(torch.equal(parameter.grad, expected[name]) for name, parameter in model.named_parameters() if parameter.grad is not None)


# ---------------------------------------------------------------------- precision


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_stack_is_orthogonalised_in_the_compute_dtype(name: str) -> None:
    seen: set[torch.dtype] = set()

    def watched(stack: Tensor) -> Tensor:
        seen.add(stack.dtype)
        return crude_polar_factor(stack)

    config = config_of(dtype=name)
    model = OddModel()
    trained(model, build_optimizer(model, config, replace(ops_of(config), orthogonalize=watched), ALONE), range(1))
    assert seen == {getattr(torch, name)}


def test_a_bfloat16_embedding_is_the_float32_update_rounded_once() -> None:
    exact, rounded = (OddModel({"embedding": PARAMETERS["embedding"], "lm_head": PARAMETERS["lm_head"]}) for _ in range(2))
    rounded.embedding = nn.Parameter(rounded.get_parameter("embedding").detach().bfloat16())
    exact.embedding = nn.Parameter(rounded.embedding.detach().float())
    optimizers = [odd_optimizer(model) for model in (exact, rounded)]
    for model, optimizer in zip((exact, rounded), optimizers, strict=True):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.25)
        optimizer.step(PLANS[0])
    assert torch.equal(exact.embedding.detach().bfloat16(), rounded.embedding.detach())
    assert torch.equal(exact.values()["lm_head"], rounded.values()["lm_head"])
    assert {tensor.dtype for group in optimizers[1].groups for tensor in group.state.values()} == {torch.float32}


def test_one_traced_graph_serves_every_step_of_the_schedule() -> None:
    torch._dynamo.reset()
    compiled: list[object] = []

    def count(graph: torch.fx.GraphModule, _: object) -> Any:
        compiled.append(graph)
        return graph.forward

    model = OddModel({name: PARAMETERS[name] for name in ("square_a", "square_b", "embedding")})
    optimizer = odd_optimizer(model)
    optimizer._adamw_step = torch.compile(adamw_step, dynamic=False, fullgraph=True, backend=count)
    optimizer._direction = torch.compile(direction, dynamic=False, fullgraph=True, backend=count)
    optimizer._apply_direction = torch.compile(apply_direction, dynamic=False, fullgraph=True, backend=count)
    values = trained(model, optimizer, range(6))
    eager = OddModel(model.shapes)
    expected = trained(eager, odd_optimizer(eager), range(6))
    torch._dynamo.reset()
    assert len(compiled) == 3
    assert all(torch.equal(values[name], expected[name]) for name in values)


# ---------------------------------------------------------------------- state


def test_a_resumed_run_goes_on_bit_for_bit() -> None:
    model = OddModel()
    optimizer = odd_optimizer(model)
    halfway = trained(model, optimizer, range(3))
    state = optimizer.state_dict()
    expected = trained(model, optimizer, range(3, 6))
    resumed = OddModel()
    resumed.load_state_dict(halfway)
    successor = odd_optimizer(resumed)
    successor.load_state_dict(state)
    values = trained(resumed, successor, range(3, 6))
    assert all(torch.equal(values[name], expected[name]) for name in values)


def test_the_state_is_a_copy_that_later_steps_do_not_touch() -> None:
    model = OddModel()
    optimizer = odd_optimizer(model)
    trained(model, optimizer, range(1))
    state = optimizer.state_dict()["parameters"]["embedding"]["mean"]
    before = state.clone()
    trained(model, optimizer, range(1, 2))
    assert torch.equal(state, before)


def test_the_state_names_every_parameter_and_counts_the_steps() -> None:
    model = OddModel()
    optimizer = odd_optimizer(model)
    trained(model, optimizer, range(2))
    state = optimizer.state_dict()
    shapes = {name: {key: tuple(tensor.shape) for key, tensor in tensors.items()} for name, tensors in state["parameters"].items()}
    assert state["steps"] == 2
    assert shapes.keys() == PARAMETERS.keys()
    assert shapes["experts"] == {"momentum": (2, 8, 8), "second_moment": (2, 8, 1)}
    assert shapes["wide"] == {"momentum": (5, 12), "second_moment": (1, 12)}
    assert shapes["resid_scales"] == {"mean": (5,), "mean_square": (5,)}


def test_a_state_of_another_optimizer_is_refused_by_name() -> None:
    state = odd_optimizer(OddModel(), variance_reduction=False).state_dict()
    with pytest.raises(StateError, match=r"'square_a'.*second_moment.*config"):
        odd_optimizer(OddModel()).load_state_dict(state)


def test_a_state_of_a_larger_model_is_refused_by_name() -> None:
    state = odd_optimizer(OddModel()).state_dict()
    smaller = OddModel({name: shape for name, shape in PARAMETERS.items() if name != "tall"})
    with pytest.raises(StateError, match=r"'tall'.*no such parameter"):
        odd_optimizer(smaller).load_state_dict(state)


def test_a_frozen_parameter_is_left_alone() -> None:
    model = OddModel()
    model.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    trained(model, odd_optimizer(model), range(1))
    assert torch.equal(model.frozen, torch.ones(3))


# ---------------------------------------------------------------------- what an entry overrides


def test_a_subclass_can_orthogonalise_in_other_pieces() -> None:
    class ByHalves(MuonAdamW):
        def orthogonalize(self, group: MatrixGroup, stack: Tensor) -> Tensor:
            return super().orthogonalize(group, stack.view(-1, 4, 8)).view_as(stack)

    config = config_of(row_equilibration=False, norm_restoration=False, variance_reduction=False, matrix_weight_decay=0.0)
    model = OddModel({"square_a": PARAMETERS["square_a"]})
    before = model.values()["square_a"]
    values = trained(model, ByHalves(model, config, ops_of(config), ALONE), range(1))
    update = (before - values["square_a"]) / (config.matrix_lr * PLANS[0].learning_rate)
    for half in update.chunk(2):
        torch.testing.assert_close(half @ half.T, 0.64 * torch.eye(4), rtol=0, atol=1e-4)
