"""Commands in real sandboxes, for tests: one set of folders each, and every mode that this machine can make."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.launch import SupervisedProcess, child_environment, private_folders, wait_until_stopped
from harness.sandbox.available import obstacle
from harness.sandbox.policy import Mode
from harness.sandbox.surroundings import make_policy

CONFINING: tuple[Mode, ...] = ("namespaces", "landlock")
FILE_BYTES = 2**24


def modes(*names: Mode) -> list[Any]:
    """Parameters of a test: those that this machine cannot make are skipped with the reason."""
    return [pytest.param(name, marks=pytest.mark.skipif(bool(why := obstacle(name)), reason=f"{name}: {why}")) for name in names]


def confined(
    mode: Mode,
    folder: Path,
    command: Sequence[str],
    *,
    readable: Sequence[Path] = (),
    descriptors: Sequence[int] = (),
    file_bytes: int = FILE_BYTES,
) -> SupervisedProcess:
    """A command that works in `folder`, and may write to its private folders there."""
    environment = child_environment(folder, 1)
    policy = make_policy(mode, readable=readable, writable=private_folders(folder), shared_memory_bytes=2**24)
    return SupervisedProcess(command, environment, folder / "console", file_bytes, folder, descriptors, policy)


def python(code: str, *arguments: str) -> list[str]:
    """A command: this interpreter without site packages, which starts faster."""
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


def answer_of(process: SupervisedProcess) -> dict[str, Any]:
    """What a command printed as its only line, JSON, once it has ended."""
    with process:
        status = wait_until_stopped(process, 30)
    said = process.console.read_text()
    assert status == 0, said
    answer: dict[str, Any] = json.loads(said)
    return answer
