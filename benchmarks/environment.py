"""What a result depends on besides the code: the machine and the versions it was read with."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def environment() -> dict[str, str | int | None]:
    """Processor, card, versions and threads of this process, for the JSON of a result."""
    on_card = torch.cuda.is_available()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "card": torch.cuda.get_device_name() if on_card else None,
        "cuda": torch.version.cuda if on_card else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    """Model name of the processor, as Linux tells it; elsewhere what Python knows."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
