"""What a person sees of a run that has no harness around it: one line per step, a JSON-lines log, and optional trackers."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from baseline.cards import peak_flops_of
from baseline.config import ConfigError, TrainConfig
from baseline.contract import World
from baseline.data.durable import whole_file

PACE_STEPS = 20
"""Steps over which the pace is averaged: the first of a run may contain a compilation."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """One finished optimizer step."""

    step: int
    steps: int
    loss: float
    """Mean over the global batch, nats per token."""
    learning_rate: float
    """Schedule multiplier."""
    tokens_per_s: float
    """Over all ranks."""
    mfu: float | None
    """Model FLOPs utilisation against the card's dense bfloat16 peak; None where the peak is unknown."""
    peak_memory_gib: float | None
    seconds: float
    """Since this process began its loop."""
    seconds_left: float
    """To the horizon, at the pace of the last steps."""

    def line(self) -> str:
        parts = [
            f"step {self.step:>6}/{self.steps}",
            f"loss {self.loss:.4f}",
            f"lr ×{self.learning_rate:.2f}",
            f"{self.tokens_per_s:,.0f} tok/s",
        ]
        if self.mfu is not None:
            parts.append(f"MFU {self.mfu:.1%}")
        if self.peak_memory_gib is not None:
            parts.append(f"{self.peak_memory_gib:.1f} GiB")
        minutes, seconds = divmod(int(self.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
        return " | ".join(parts)


def headline(config: TrainConfig, built: dict[str, Any], world: World) -> str:
    """What a run is, in one line, before its first step. `built` is `recipe.description`."""
    rows = min(config.rows_per_forward, config.batch_rows // world.size)
    return (
        f"depth {config.depth}, width {config.width}, {config.num_steps} steps of {config.batch_tokens:,} tokens, "
        f"{built['flops_per_token']:.3g} FLOPs a token | {world.size} × {world.device.type}, {rows} rows a forward, "
        f"{config.dtype}{' with FP8' if config.fp8 else ''}, attention {built['attention']}"
    )


class Tracker(Protocol):
    def log(self, report: StepReport) -> None: ...
    def close(self) -> None: ...


class TerminalLine:
    """One line that renews itself on a terminal; every twentieth step a line of its own elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def log(self, report: StepReport) -> None:
        if self._live:
            print(f"\r\x1b[K{report.line()}", end="", file=sys.stderr, flush=True)
        elif report.step % 20 == 0 or report.step == report.steps:
            print(report.line(), file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._live:
            print(file=sys.stderr)


class JsonLines:
    """One JSON object per step, flushed at once, so that a killed run keeps its curve.

    Of an earlier log, the first `finished` steps stay: what was logged after the checkpoint is done, and logged, again.
    """

    def __init__(self, path: Path, finished: int) -> None:
        kept = path.read_text().splitlines(keepends=True)[:finished] if path.exists() else []
        with whole_file(path) as file:
            file.write("".join(kept).encode())
        self._file = path.open("a")

    def log(self, report: StepReport) -> None:
        self._file.write(json.dumps(asdict(report)) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class WandbLike:
    """Weights & Biases, or trackio, which has the same interface."""

    def __init__(self, package: str, project: str, config: dict[str, Any]) -> None:
        try:
            self._module = importlib.import_module(package)
        except ImportError:
            raise ConfigError(f"--tracker {package}: it is not installed; pip install 'speedrun[{package}]'") from None
        self._module.init(project=project, config=config)

    def log(self, report: StepReport) -> None:
        values = {name: value for name, value in asdict(report).items() if value is not None and name not in ("step", "steps")}
        self._module.log(values, step=report.step)

    def close(self) -> None:
        self._module.finish()


class Speedometer:
    """Turns step boundaries into tokens per second, MFU and time left."""

    def __init__(self, flops_per_token: float, world_size: int, device: torch.device) -> None:
        self._flops_per_token = flops_per_token
        peak = peak_flops_of(device)
        self._peak = peak * world_size if peak else None
        self._device = device
        self._began = self._last = time.perf_counter()
        self._durations: deque[float] = deque(maxlen=PACE_STEPS)

    def skip(self) -> None:
        """What happened since the last step was no training, a checkpoint for example."""
        self._last = time.perf_counter()

    def report(self, *, step: int, steps: int, loss: float, learning_rate: float, tokens: int) -> StepReport:
        now = time.perf_counter()
        self._durations.append(now - self._last)
        rate = tokens / (now - self._last)
        self._last = now
        memory = torch.cuda.max_memory_allocated(self._device) / 2**30 if self._device.type == "cuda" else None
        return StepReport(
            step=step,
            steps=steps,
            loss=loss,
            learning_rate=learning_rate,
            tokens_per_s=rate,
            mfu=rate * self._flops_per_token / self._peak if self._peak else None,
            peak_memory_gib=memory,
            seconds=now - self._began,
            seconds_left=sum(self._durations) / len(self._durations) * (steps - step),
        )
