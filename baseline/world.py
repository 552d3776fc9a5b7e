"""This process among the others: device, process group, and the promise not to outlive the parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from baseline.contract import World

PR_SET_PDEATHSIG = 1
COLLECTIVE_TIMEOUT = timedelta(minutes=10)


def local_device() -> torch.device:
    """The card of this local rank, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def join_world() -> World:
    """Join torchrun's process group (NCCL on cards, gloo on CPUs); a process started without torchrun is a world of one."""
    device = local_device()
    torch.set_float32_matmul_precision("high")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return World(0, 1, device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
    return World(dist.get_rank(), size, device)


def leave_world() -> None:
    """Wait for the slowest rank before the process group is destroyed: one that leaves early breaks the others' connections."""
    if dist.is_initialized():
        dist.barrier()


def die_with_parent() -> None:
    """Ask Linux to kill this process when torchrun dies; elsewhere the control socket's end does it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
