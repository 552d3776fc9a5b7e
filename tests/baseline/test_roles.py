"""Models whose roles an optimizer cannot follow are refused with the name of the parameter and the mend."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from baseline.contract import World
from baseline.optimizer import MuonAdamW, build_optimizer
from baseline.roles import RoleError
from tests.baseline.odd_model import CPU, PARAMETERS, OddModel, config_of, ops_of


def optimizer_of(model: OddModel) -> MuonAdamW:
    config = config_of()
    return build_optimizer(model, config, ops_of(config), World(0, 1, CPU))


def test_a_parameter_without_a_role_is_named() -> None:
    model = OddModel()
    model.extra = nn.Parameter(torch.zeros(3))
    with pytest.raises(RoleError, match="extra is missing"):
        optimizer_of(model)


def test_a_parameter_with_two_roles_is_named() -> None:
    model = OddModel({"lm_head": PARAMETERS["lm_head"]})
    model.roles = lambda: {"lm_head": [model.lm_head], "embedding": [model.lm_head]}  # type: ignore[method-assign, list-item]
    with pytest.raises(RoleError, match="lm_head is already listed under 'lm_head'"):
        optimizer_of(model)


def test_a_tensor_that_is_no_parameter_of_the_model_is_refused() -> None:
    model = OddModel({"lm_head": PARAMETERS["lm_head"]})
    model.roles = lambda: {"lm_head": [model.lm_head, nn.Parameter(torch.zeros(2, 3))]}  # type: ignore[method-assign, list-item]
    with pytest.raises(RoleError, match=r"shape \(2, 3\) is no trainable parameter"):
        optimizer_of(model)


def test_a_vector_among_the_matrices_is_named() -> None:
    with pytest.raises(RoleError, match=r"bias has shape \(5,\).*another role"):
        optimizer_of(OddModel({"bias": ("matrix", (5,))}))


def test_a_parameter_that_is_not_contiguous_is_named() -> None:
    model = OddModel({"wide": PARAMETERS["wide"]})
    model.wide = nn.Parameter(torch.zeros(12, 5).t())
    with pytest.raises(RoleError, match="wide is not contiguous"):
        optimizer_of(model)
