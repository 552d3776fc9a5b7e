"""Checks that a recipe keeps the contract, without training: run by `speedrun check` in a child process, or by hand.

    python -m baseline.inspection --config-json track.json --submission submissions/mine

The report says what is wrong in the entrant's words. It comes from a process that ran the entrant's code, so nothing
that counts is ever taken from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from baseline.agreement import disagreements
from baseline.behaviour import try_out
from baseline.config import TrainConfig
from baseline.contract import Recipe, Role, Slot
from baseline.loop import TrainingError, micro_batch
from baseline.recipe import SlotError, SlotFunctions, load_slots, slot_error
from baseline.roles import parameters_by_role
from baseline.world import local_device

DEFAULT_TOLERANCE = 0.02
"""Relative error allowed of a replaced op where the track names no other."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to inspect."""

    config: TrainConfig
    """The track's, before the submission's `configure`."""
    submission: Path | None
    depths: tuple[int, ...] = ()
    """Further depths at which the model must build."""
    tolerance: float = DEFAULT_TOLERANCE
    processes: int = 1
    """Processes that the track trains with; the batch must divide among them."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not keep the contract."""

    slot: Slot
    file: str
    message: str
    missing_package: str | None = None


@dataclass(slots=True)
class Report:
    """What the inspection found. `config` is the resolved one, None where `configure` failed."""

    problems: list[Problem] = field(default_factory=list)
    config: dict[str, Any] | None = None
    parameters: int | None = None
    flops_per_token: float | None = None
    overridden: tuple[Slot, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    @contextmanager
    def collecting(self, slot: Slot) -> Iterator[None]:
        """Note what fails inside as a problem of `slot`, once."""
        try:
            yield
        except (Exception, SystemExit) as error:
            blamed = slot_error(slot, error)
            problem = Problem(blamed.slot, _where(blamed, self.overridden), blamed.message, blamed.missing_package)
            if problem not in self.problems:
                self.problems.append(problem)


def inspect(request: Request, device: torch.device) -> Report:
    """Load, compose and try out the recipe. Every problem found is in the report; none is raised."""
    report = Report()
    with report.collecting("config"):
        slots = load_slots(request.submission)
        report.overridden = tuple(slots.functions)
        resolved = slots.configure(request.config)
        report.config = resolved.to_dict()
        with report.collecting("kernels"):
            _inspect_recipe(slots, portable(resolved, device), request, device, report)
    return report


def portable(config: TrainConfig, device: torch.device) -> TrainConfig:
    """The same model without what only saves time: any machine can then inspect it."""
    if device.type == "cuda":
        return config.with_(compile=False, fp8=False)
    return config.with_(compile=False, fp8=False, dtype="float32", attention_backend="auto")


def _inspect_recipe(slots: SlotFunctions, config: TrainConfig, request: Request, device: torch.device, report: Report) -> None:
    recipe = slots.compose(config, device)
    if "kernels" in slots.functions:
        for message in disagreements(recipe.ops, config, device, request.tolerance):
            report.problems.append(Problem("kernels", "kernels.py", message))
    with report.collecting("schedule"):
        _check_schedule(recipe, request.processes)
    with report.collecting("model"):
        _check_at_full_size(recipe, report)
        for depth in request.depths:
            _check_depth(slots, request.config, depth, device)
        try_out(slots, config, device)


def _check_at_full_size(recipe: Recipe, report: Report) -> None:
    """Build without memory, and take what the model says of itself."""
    model = _built(recipe)
    report.parameters = sum(p.numel() for p in model.parameters())
    flops = model.flops_per_token()  # type: ignore[operator]
    if not (isinstance(flops, (int, float)) and 0 < flops < float("inf")):
        raise SlotError("model", "model.py", f"flops_per_token() gives {flops!r}; it must be a positive number")
    report.flops_per_token = float(flops)


def _check_depth(slots: SlotFunctions, config: TrainConfig, depth: int, device: torch.device) -> None:
    """The submission must build at a depth that it claims to work at."""
    resolved = slots.configure(config.at_depth(depth))
    if resolved.depth != depth:
        message = f"configure sets depth {resolved.depth}, though submission.toml claims depth {depth}; narrow `depths` or derive the depth"
        raise SlotError("config", "config.py", message)
    try:
        _built(slots.compose(portable(resolved, device), device))
    except Exception as error:
        blamed = slot_error("model", error)
        raise SlotError(blamed.slot, blamed.file, f"at the claimed depth {depth}: {blamed.message}") from error


def _built(recipe: Recipe) -> nn.Module:
    """The model on the meta device, with its roles checked."""
    with torch.device("meta"):
        model = recipe.build_model(recipe.config, recipe.ops)
    strangers = set(parameters_by_role(model)) - set(get_args(Role))
    if strangers:
        raise SlotError("model", "model.py", f"roles(): {min(strangers)!r} is no role; use one of {', '.join(get_args(Role))}")
    return model


def _check_schedule(recipe: Recipe, processes: int) -> None:
    """The first, the middle and the last step must have a plan whose batch divides among the processes."""
    steps = recipe.config.num_steps
    for step in sorted({0, steps // 2, steps - 1}):
        plan = recipe.schedule(step, recipe.config)
        try:
            micro_batch(plan.batch_rows, recipe.config.rows_per_forward, processes)
        except TrainingError as error:
            slot: Slot = "schedule" if "schedule" in recipe.overridden else "config"
            raise SlotError(slot, f"{slot}.py", f"at step {step}: {error}") from error


def _where(error: SlotError, overridden: tuple[Slot, ...]) -> str:
    """The file to look into; where the baseline's own code failed, what the entry changed made it fail."""
    if error.slot in overridden or not overridden or error.file != f"{error.slot}.py":
        return error.file
    return f"{overridden[0]}.py (seen in the baseline's {error.slot})"


# ---------------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Inspect, write the report as JSON, return 0 when all is well, else 3."""
    args = parse(arguments)
    config = TrainConfig.from_dict(json.loads(args.config_json.read_text()))
    request = Request(config, args.submission, tuple(args.depth), args.tolerance, args.processes)
    report = inspect(request, local_device())
    text = json.dumps({"ok": report.ok, **asdict(report)}, indent=2)
    if args.json_out:
        args.json_out.write_text(text)
    else:
        print(text)
    return 0 if report.ok else 3


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="baseline.inspection", description="Check that a recipe keeps the contract; see the module's text."
    )
    parser.add_argument("--config-json", type=Path, required=True, help="the track's TrainConfig as JSON")
    parser.add_argument("--submission", type=Path, help="folder with slot files; without it, the baseline itself")
    parser.add_argument("--depth", type=int, action="append", default=[], help="also build the model at this depth; repeatable")
    parser.add_argument("--tolerance", type=float, default=DEFAULT_TOLERANCE, help="relative error allowed of a replaced op (default 0.02)")
    parser.add_argument("--processes", type=int, default=1, help="processes that the batch must divide among (default 1)")
    parser.add_argument("--json-out", type=Path, help="file for the report; without it, standard output")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
