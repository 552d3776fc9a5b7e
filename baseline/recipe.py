"""Composes a submission with the baseline: loads its slot files, checks what they give, and falls back where a slot is absent.

The submission's folder is importable as the package `submission`, so that one slot can build on another:
`from submission.model import Block`. Whatever goes wrong in a slot is one `SlotError` that names the file and the line.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from baseline.config import ConfigError, TrainConfig
from baseline.config_types import config_problem, fixed_problem
from baseline.contract import SLOT_FUNCTIONS, Ops, Recipe, Slot, StepPlan
from baseline.model import build_model
from baseline.ops import baseline_ops
from baseline.optimizer import build_optimizer
from baseline.schedule import schedule

PACKAGE = "submission"
"""Name under which the submission's folder can be imported."""

MODEL_MEMBERS = ("init_weights", "roles", "flops_per_token")
OPTIMIZER_MEMBERS = ("step", "zero_grad", "state_dict", "load_state_dict")


class SlotError(Exception):
    """A slot that does not keep the contract. `str(error)` is one line: file, what is wrong, what to do."""

    def __init__(self, slot: Slot, file: str, message: str, *, missing_package: str | None = None) -> None:
        self.slot = slot
        self.file = file
        self.message = " ".join(message.split())
        self.missing_package = missing_package
        """The package that this machine lacks, where that is the reason."""
        super().__init__(f"{file}: {self.message}")


@dataclass(frozen=True, slots=True)
class SlotFunctions:
    """The functions that a submission brings, by slot."""

    functions: dict[Slot, Callable[..., Any]]

    def configure(self, config: TrainConfig) -> TrainConfig:
        """The track's config as the submission changes it. Raises SlotError."""
        if "config" not in self.functions:
            return config
        with _blaming("config"):
            changed = self.functions["config"](config)
            _require("config", isinstance(changed, TrainConfig), f"configure must return a TrainConfig, not {_kind(changed)}")
            problem = config_problem(changed) or fixed_problem(config, changed)
            _require("config", problem is None, f"configure: {problem}")
            return cast(TrainConfig, changed.checked())

    def compose(self, config: TrainConfig, device: torch.device) -> Recipe:
        """The recipe at a config that `configure` has already been applied to. Raises SlotError for a broken kernels slot."""
        return Recipe(
            config=config,
            ops=self._ops(config, device),
            build_model=self._checked("model", _check_model) or build_model,
            build_optimizer=self._checked("optimizer", _check_optimizer) or build_optimizer,
            schedule=self._checked("schedule", _check_plan) or schedule,
            overridden=tuple(slot for slot in SLOT_FUNCTIONS if slot in self.functions),
        )

    def _ops(self, config: TrainConfig, device: torch.device) -> Ops:
        ops = baseline_ops(config, device)
        if "kernels" not in self.functions:
            return ops
        with _blaming("kernels"):
            replaced = self.functions["kernels"](ops, config)
            _require("kernels", isinstance(replaced, Ops), f"replace_ops must return an Ops, not {_kind(replaced)}")
            for field in fields(replaced):
                found = getattr(replaced, field.name)
                _require("kernels", callable(found), f"replace_ops: {field.name} must be a function, not {_kind(found)}")
            return cast(Ops, replaced)

    def _checked(self, slot: Slot, check: Callable[[Any], None]) -> Callable[..., Any] | None:
        """The slot's function, with what it returns checked at every call; None where the slot is absent."""
        function = self.functions.get(slot)
        if function is None:
            return None

        @wraps(function)
        def checked(*arguments: Any) -> Any:
            with _blaming(slot):
                result = function(*arguments)
                check(result)
                return result

        return checked


def load_recipe(config: TrainConfig, submission: Path | None, device: torch.device) -> Recipe:
    """What one run trains: `submission` (a folder with slot files; None for the baseline itself) at the track's `config`.

    Raises SlotError for whatever is wrong with a slot.
    """
    slots = load_slots(submission)
    return slots.compose(slots.configure(config), device)


def description(recipe: Recipe, model: nn.Module) -> dict[str, Any]:
    """What a run records of what it built: the attention backend's name, and training FLOPs per token by the model's own count."""
    attention = recipe.ops.attention
    name = getattr(attention, "name", None) or f"{attention.__module__}.{getattr(attention, '__qualname__', type(attention).__name__)}"
    return {"attention": str(name), "flops_per_token": float(model.flops_per_token())}  # type: ignore[operator]


def load_slots(submission: Path | None) -> SlotFunctions:
    """Import the slot files of a folder and find their functions. Executes the submission's code.

    Raises SlotError for a bad slot, ConfigError when there is no such folder: the baseline must not be trained in its place.
    """
    if submission is None:
        return SlotFunctions({})
    if not submission.is_dir():
        raise ConfigError(f"{submission} is no folder; name the one that holds the slot files")
    _mount(submission)
    found = [slot for slot in SLOT_FUNCTIONS if (submission / f"{slot}.py").is_file()]
    return SlotFunctions({slot: _load_function(slot) for slot in found})


# ---------------------------------------------------------------------- importing


def _mount(folder: Path) -> None:
    """Make `folder` importable as the package `submission`, in place of any that was before."""
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]
    importlib.invalidate_caches()
    sys.dont_write_bytecode = True  # a __pycache__ would be a foreign file in the submission's folder
    package = ModuleType(PACKAGE, "The submission that this process trains.")
    package.__path__ = [str(folder.resolve())]
    sys.modules[PACKAGE] = package


def _load_function(slot: Slot) -> Callable[..., Any]:
    """The contract's function from the slot's file."""
    name, parameters = SLOT_FUNCTIONS[slot]
    wanted = f"def {name}({', '.join(parameters)})"
    with _blaming(slot):
        function = getattr(importlib.import_module(f"{PACKAGE}.{slot}"), name, None)
        _require(slot, function is not None, f"the function {name} is missing; write `{wanted}`")
        _require(slot, callable(function), f"{name} must be a function, not {_kind(function)}")
        found = tuple(inspect.signature(cast(Callable[..., Any], function)).parameters)
        _require(slot, found == parameters, f"{name} takes ({', '.join(found)}); write `{wanted}`")
        return cast(Callable[..., Any], function)


# ---------------------------------------------------------------------- what the functions return


def _check_model(model: object) -> None:
    _require("model", isinstance(model, nn.Module), f"build_model must return an nn.Module, not {_kind(model)}")
    for member in MODEL_MEMBERS:
        _require("model", callable(getattr(model, member, None)), f"the model has no method {member}; see Model in baseline/contract.py")


def _check_optimizer(optimizer: object) -> None:
    for member in OPTIMIZER_MEMBERS:
        has = callable(getattr(optimizer, member, None))
        _require("optimizer", has, f"the optimizer has no method {member}; see Optimizer in baseline/contract.py")


def _check_plan(plan: object) -> None:
    _require("schedule", isinstance(plan, StepPlan), f"schedule must return a StepPlan, not {_kind(plan)}")
    assert isinstance(plan, StepPlan)
    for name in ("learning_rate", "momentum", "weight_decay"):
        value = getattr(plan, name)
        finite = isinstance(value, (int, float)) and abs(value) < float("inf")
        _require("schedule", finite, f"schedule: {name} = {value!r}; it must be a finite number")
    whole = isinstance(plan.batch_rows, int) and not isinstance(plan.batch_rows, bool) and plan.batch_rows > 0
    _require("schedule", whole, f"schedule: batch_rows = {plan.batch_rows!r}; it must be a positive whole number")


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _require(slot: Slot, holds: bool, message: str) -> None:
    if not holds:
        raise SlotError(slot, f"{slot}.py", message)


# ---------------------------------------------------------------------- blaming


@contextmanager
def _blaming(slot: Slot) -> Iterator[None]:
    """Turn whatever the slot's code raises into a SlotError with the line it came from."""
    try:
        yield
    except SlotError:
        raise
    except (Exception, SystemExit) as error:
        raise slot_error(slot, error) from error


def slot_error(slot: Slot, error: BaseException) -> SlotError:
    """`error`, raised while `slot` was at work, as one line with the innermost line of the submission's own code."""
    if isinstance(error, SlotError):
        return error
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if isinstance(error, SyntaxError) and error.filename:
        return SlotError(slot, Path(error.filename).name, f"line {error.lineno}: {error.msg}; mend the syntax")
    file, line = _origin(slot, error)
    return SlotError(slot, file, f"{line}{type(error).__name__}: {error}", missing_package=missing)


def _origin(slot: Slot, error: BaseException) -> tuple[str, str]:
    """(file, "line N: ") of the innermost frame in the submission's folder; the slot's file and no line where there is none."""
    package = sys.modules.get(PACKAGE)
    folder = Path(package.__path__[0]) if package else None
    frames = [f for f in traceback.extract_tb(error.__traceback__) if folder and Path(f.filename).parent == folder]
    return (Path(frames[-1].filename).name, f"line {frames[-1].lineno}: ") if frames else (f"{slot}.py", "")
