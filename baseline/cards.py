"""Peak dense bfloat16 throughput of accelerator cards, for model FLOPs utilisation. Source: the vendors' data sheets, without sparsity."""

from __future__ import annotations

import torch

PEAK_BF16_FLOPS: tuple[tuple[str, float], ...] = (
    ("GB200", 2.5e15),
    ("B200", 2.25e15),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIE", 756e12),
    ("H100", 989e12),
    ("GH200", 989e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("RTX 5090", 209.5e12),
    ("RTX 4090", 165.2e12),
    ("RTX 3090", 71e12),
    ("MI300X", 1307.4e12),
)
"""(part of the device's name, FLOP/s); the first match counts, so longer names stand before shorter ones."""


def peak_flops(name: str) -> float | None:
    """FLOP/s of a card by its device name; None for a card that is not in the table."""
    upper = name.upper()
    return next((peak for part, peak in PEAK_BF16_FLOPS if part.upper() in upper), None)


def peak_flops_of(device: torch.device) -> float | None:
    """FLOP/s of this device; None on CPU and on unknown cards."""
    return peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
