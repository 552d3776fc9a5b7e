"""What a person sees of a run that has no harness around it: one line per step, a JSON-lines log, and optional trackers."""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from baseline.cards import peak_flops_of


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
    """Since the loop began."""

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
        left = self.seconds / self.step * (self.steps - self.step)
        parts.append(f"{int(left // 60)}:{int(left % 60):02d} left")
        return " | ".join(parts)


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
    """One JSON object per step, flushed at once, so that a killed run keeps its curve."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def log(self, report: StepReport) -> None:
        self._file.write(json.dumps(asdict(report)) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class WandbLike:
    """Weights & Biases, or trackio, which has the same interface."""

    def __init__(self, package: str, project: str, config: dict[str, Any]) -> None:
        self._module = importlib.import_module(package)
        self._module.init(project=project, config=config)

    def log(self, report: StepReport) -> None:
        values = {name: value for name, value in asdict(report).items() if value is not None and name not in ("step", "steps")}
        self._module.log(values, step=report.step)

    def close(self) -> None:
        self._module.finish()


class Speedometer:
    """Turns step boundaries into tokens per second and MFU."""

    def __init__(self, flops_per_token: float, world_size: int, device: torch.device) -> None:
        self._flops_per_token = flops_per_token
        peak = peak_flops_of(device)
        self._peak = peak * world_size if peak else None
        self._device = device
        self._began = self._last = time.perf_counter()

    def report(self, *, step: int, steps: int, loss: float, learning_rate: float, tokens: int) -> StepReport:
        now = time.perf_counter()
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
        )
