"""What machine this is: the facts that a run records, and what `speedrun doctor` says of it.

Nothing here imports torch: the harness asks installed packages for their metadata, and the driver's `nvidia-smi` for GPUs.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil

from harness.record import Environment
from harness.sandbox import landlock
from harness.sandbox.available import FORCED_BY, chosen, shortcoming

TIMED_PACKAGES = (
    "torch",
    "triton",
    "flash-attn",
    "flash-attn-4",
    "nvidia-cublas",
    "nvidia-cudnn-cu13",
    "nvidia-nccl-cu13",
    "numpy",
    "pydantic",
    "safetensors",
    "scipy",
    "tiktoken",
)
"""Packages whose version can change a time or a score; those that are not installed are left out of the record."""

GIB = 2**30
NANO_PROCESSES = 2
NANO_MEMORY_BYTES = 2 * GIB
"""Two ranks, a witness and a model server with torch imported (0.21 GiB each, measured with torch 2.13 for CPU), and as much again."""
GPT2_DISK_BYTES = 40 * GIB
"""170 ClimbMix shards of about 100 MB, as much again for their packed tokens, and room for checkpoints."""
COMMAND_TIMEOUT_S = 20

State = Literal["ok", "missing", "limited"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `speedrun doctor`."""

    name: str
    state: State
    detail: str
    mend: str = ""
    """What to do about it; empty where nothing need or can be done."""


def read_environment(repo_root: Path) -> Environment:
    """The facts about this machine that a run records. The host name goes in only as a digest: it tells machines apart, no more."""
    return Environment(
        hostname_digest=hashlib.sha256(socket.gethostname().encode()).hexdigest()[:16],
        os=platform.platform(),
        cpu=cpu_model(),
        cpu_cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        accelerators=tuple(accelerators()),
        python=platform.python_version(),
        packages=installed_versions(TIMED_PACKAGES),
        git_commit=_git(repo_root, "rev-parse", "HEAD"),
        git_dirty=git_dirty(repo_root),
    )


def describe_machine(repo_root: Path) -> list[Check]:
    """What this machine can run, and what is missing."""
    return [
        _python_check(),
        _cores_check(usable_cores()),
        _memory_check(psutil.virtual_memory().available),
        _disk_check(shutil.disk_usage(repo_root).free),
        _torch_check(installed_versions(["torch"]).get("torch")),
        _gpu_check(accelerators()),
        _triton_check(installed_versions(["triton"]).get("triton")),
        _sandbox_check(),
    ]


# ---------------------------------------------------------------------- facts


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name: from /proc/cpuinfo, else from macOS's sysctl, else the architecture."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return _output(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.machine() or "unknown"


def usable_cores() -> int:
    """Processors that this process may run on; fewer than the machine has under taskset or in a container."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def accelerators() -> list[str]:
    """One line for each NVIDIA GPU: name, memory, driver. Empty without a driver."""
    listing = _output(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"])
    return [_accelerator(line) for line in (listing or "").splitlines() if line.count(",") == 2]


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Distribution name -> version, of those installed."""
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_dirty(repo_root: Path) -> bool | None:
    """Whether tracked files differ from the commit; None where there is no commit. Untracked files are submissions, which have digests."""
    if _git(repo_root, "rev-parse", "HEAD") is None:
        return None
    return bool(_git(repo_root, "status", "--porcelain", "--untracked-files=no"))


def _accelerator(line: str) -> str:
    name, memory, driver = (part.strip() for part in line.split(","))
    return f"{name}, {memory}, driver {driver}"


def _git(repo_root: Path, *arguments: str) -> str | None:
    return _output(["git", "-C", str(repo_root), *arguments])


def _output(command: list[str]) -> str | None:
    """What a command prints, stripped; None if it is not installed, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


# ---------------------------------------------------------------------- checks


def _python_check() -> Check:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Check("python", "ok" if fits else "limited", platform.python_version(), "" if fits else "use Python 3.11, 3.12 or 3.13")


def _cores_check(cores: int) -> Check:
    if cores >= NANO_PROCESSES:
        return Check("processors", "ok", f"{cores} cores usable")
    return Check(
        "processors", "limited", "1 core usable", f"the nano track times {NANO_PROCESSES} processes: use a machine with as many cores"
    )


def _memory_check(available: int) -> Check:
    detail = f"{available / GIB:.1f} GiB free"
    if available >= NANO_MEMORY_BYTES:
        return Check("memory", "ok", detail)
    return Check("memory", "limited", detail, f"the nano track wants {NANO_MEMORY_BYTES / GIB:.0f} GiB: close something")


def _disk_check(free: int) -> Check:
    detail = f"{free / GIB:.1f} GiB free"
    if free >= GPT2_DISK_BYTES:
        return Check("disk", "ok", detail)
    return Check("disk", "limited", detail, f"enough for nano; the gpt2 track's data take {GPT2_DISK_BYTES / GIB:.0f} GiB")


def _torch_check(version: str | None) -> Check:
    return Check("torch", "ok", version) if version else Check("torch", "missing", "not installed", "pip install torch")


def _gpu_check(gpus: list[str]) -> Check:
    if gpus:
        return Check("gpu", "ok", f"{len(gpus)} × {gpus[0]}")
    return Check("gpu", "missing", "no NVIDIA driver answers", "none is needed for nano; the other tracks need one")


def _triton_check(version: str | None) -> Check:
    if version:
        return Check("triton", "ok", version)
    return Check("triton", "missing", "not installed", "torch's CUDA builds bring it; without it no Triton kernel runs")


def _sandbox_check() -> Check:
    """What would be in force in a run now; every stronger sandbox has been tried, and is named with its obstacle."""
    mode = chosen()
    if mode == "namespaces":
        top = f"with Landlock ABI {landlock.abi()}" if landlock.abi() else "without Landlock, which this kernel lacks"
        return Check("sandbox", "ok", f"namespaces, {top}")
    mend = "an administrator can allow user namespaces" if sys.platform == "linux" else "use Linux"
    if FORCED_BY in os.environ:
        mend = f"unset {FORCED_BY}"
    if mode == "none":
        mend += "; until then run only code that you have read: such runs cannot reproduce a claim"
    return Check("sandbox", "limited" if mode == "landlock" else "missing", f"{mode}; {shortcoming(mode)}", mend)
