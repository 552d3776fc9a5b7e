"""What each parameter is for, as the model says it, checked before an optimizer relies on it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from baseline.contract import Role

Parameters = dict[str, nn.Parameter]
"""Parameters by name."""


class RoleError(ValueError):
    """A model whose `roles()` an optimizer cannot follow. The message names the parameter and the mend."""


def parameters_by_role(model: nn.Module) -> dict[Role, Parameters]:
    """The model's trainable parameters by role and name. Raises RoleError unless each has exactly one role and lies contiguously."""
    names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    roles: Mapping[Role, list[nn.Parameter]] = model.roles()  # type: ignore[operator]
    by_role: dict[Role, Parameters] = {}
    role_of: dict[nn.Parameter, Role] = {}
    for role, parameters in roles.items():
        for parameter in parameters:
            problem = _problem(parameter, names.get(parameter), role_of.get(parameter))
            if problem:
                raise RoleError(f"roles()[{role!r}]: {problem}")
            role_of[parameter] = role
            by_role.setdefault(role, {})[names[parameter]] = parameter
    missing = [name for parameter, name in names.items() if parameter not in role_of]
    if missing:
        raise RoleError(f"roles(): {missing[0]} is missing; list it under the role it has")
    return by_role


def _problem(parameter: nn.Parameter, name: str | None, earlier_role: Role | None) -> str | None:
    """What keeps this parameter from being trained, and the mend; None if nothing does."""
    if name is None:
        return f"a tensor of shape {tuple(parameter.shape)} is no trainable parameter of the model; remove it"
    if earlier_role is not None:
        return f"{name} is already listed under {earlier_role!r}; list it once"
    if not parameter.is_contiguous():
        return f"{name} is not contiguous in memory; build it with .contiguous()"
    return None
