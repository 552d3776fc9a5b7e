"""Starts a run's processes in a known environment, watches what they use, and ends them without remainder."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from harness.sandbox.policy import UNCONFINED, Policy

REPOSITORY = Path(__file__).resolve().parent.parent
SUPERVISOR = Path(__file__).with_name("supervisor.py")
STOP_TIMEOUT_S = 10.0
LAST_WORDS_BYTES = 8192
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "VIRTUAL_ENV")
"""Variables of the caller's environment that a run sees; everything else is set here or absent."""
PRIVATE_FOLDERS = {
    "HOME": "home",
    "TMPDIR": "tmp",
    "XDG_CACHE_HOME": "cache",
    "TORCHINDUCTOR_CACHE_DIR": "cache/inductor",
    "TRITON_CACHE_DIR": "cache/triton",
}
"""Variable -> folder below a run's scratch folder."""


def child_environment(scratch: Path, threads: int) -> dict[str, str]:
    """The whole environment of a run: private home, caches and temporary folder, fixed threads, loopback only."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    for folder in private_folders(scratch):
        folder.mkdir(parents=True, exist_ok=True)
    interface = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return {
        **passed,
        **{name: str(scratch / folder) for name, folder in PRIVATE_FOLDERS.items()},
        **interface,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONSAFEPATH": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }


def private_folders(scratch: Path) -> list[Path]:
    """Where `child_environment` lets a run write: its home, caches and temporary folder."""
    return [scratch / folder for folder in PRIVATE_FOLDERS.values()]


def torchrun_command(processes: int, arguments: Sequence[str]) -> list[str]:
    """`baseline.train` on this machine under torchrun, without restarts."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--max-restarts=0"]
    return [*launcher, f"--nproc-per-node={processes}", "-m", "baseline.train", *arguments]


@dataclass(slots=True)
class SupervisedProcess:
    """A command and all its descendants. Leaving the context ends them all."""

    command: Sequence[str]
    environment: Mapping[str, str]
    console: Path
    file_size_limit: int
    working_folder: Path
    descriptors: Sequence[int] = ()
    """Open files that the command inherits."""
    sandbox: Policy = UNCONFINED
    """What the command may see and do."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _log: IO[bytes] | None = field(default=None, init=False)

    def __enter__(self) -> SupervisedProcess:
        self._log = self.console.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, str(SUPERVISOR), str(self.file_size_limit), *self.command],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=dict(self.environment),
            cwd=self.working_folder,
            pass_fds=tuple(self.descriptors),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has died already, which its status says
            self._process.stdin.write(self.sandbox.to_json().encode() + b"\n")
            self._process.stdin.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def exit_status(self) -> int | None:
        """The command's exit status; None while it runs."""
        return self._process.poll() if self._process else None

    def resident_bytes(self) -> int:
        """Resident memory of all descendants together; pages shared between them count for each."""
        total = 0
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self._process.pid).children(recursive=True) if self._process else []:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
        return total

    def stop(self) -> None:
        """Ask the supervisor to kill everything, and wait until it has."""
        if self._process is None:
            return
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._kill_directly()
        if self._log:
            self._log.close()
        self._process = None

    def _kill_directly(self) -> None:
        """A supervisor that does not answer is killed with its descendants."""
        assert self._process is not None
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            for process in family:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self._process.wait()


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


def last_words(console: Path, lines: int = 1) -> str:
    """The last lines of a console log that say something, as one line."""
    with contextlib.suppress(OSError):
        with console.open("rb") as log:
            log.seek(max(0, console.stat().st_size - LAST_WORDS_BYTES))
            text = log.read(LAST_WORDS_BYTES).decode(errors="replace")
        said = [line.strip() for line in text.splitlines() if line.strip()]
        return " / ".join(said[-lines:])
    return ""


def wait_until_stopped(process: SupervisedProcess, within_s: float) -> int | None:
    """Give a process a moment to end by itself; its exit status, or None."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if (status := process.exit_status()) is not None:
            return status
        time.sleep(0.02)
    return None
