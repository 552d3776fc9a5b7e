"""The evaluator's end of `baseline.serve`: buffers that the evaluator owns, token rows out, raw logits back."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from harness.errors import VoidRun, one_line
from harness.launch import SupervisedProcess, last_words, wait_until_stopped
from harness.record import MAX_REASON_CHARACTERS

FILE_SIZE_LIMIT = 2**30
"""For each file that the model's process writes; it has no reason to write any."""
WATCH_INTERVAL_S = 0.5
DEATH_S = 2.0
"""How long a process whose connection ended may take to leave its exit status."""
KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is served: the track's config (a JSON file), the submission's files, the final weights."""

    config: Path
    submission: Path
    weights: Path
    vocab_size: int


class ModelServer:
    """A model in another process that answers one batch at a time, within limits on time and memory."""

    def __init__(
        self,
        channel: socket.socket,
        process: SupervisedProcess,
        tokens: NDArray[np.int32],
        logits: NDArray[np.float32],
        timeout_s: float,
        memory_bytes: int,
    ) -> None:
        self._channel = channel
        self._process = process
        self._tokens = tokens
        self._logits = logits
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._channel.settimeout(min(WATCH_INTERVAL_S, timeout_s))
        self._expect(b"ready")

    @property
    def max_rows(self) -> int:
        return int(self._tokens.shape[0])

    def logits(self, tokens: NDArray[np.integer]) -> NDArray[np.float32]:
        """tokens (rows, length) -> raw logits (rows, length, vocab_size), a view that the next call overwrites."""
        rows, length = tokens.shape
        self._tokens[:rows, :length] = tokens
        try:
            self._channel.sendall(f"{rows} {length}\n".encode())
        except OSError:
            raise self._death() from None
        self._expect(b"ok")
        return self._logits[:rows, :length]

    def _expect(self, word: bytes) -> None:
        """Wait for one answer, watching the process meanwhile; the deadline holds for the whole answer, however it arrives."""
        answer, deadline = b"", time.monotonic() + self._timeout_s
        while not answer.endswith(b"\n"):
            try:
                part = self._channel.recv(64)
            except TimeoutError:
                self._check_limits(deadline)
                continue
            except OSError:
                part = b""
            answer += part
            if not part or len(answer) > 64:
                raise self._death()
            self._check_limits(deadline)
        if answer.strip() != word:
            raise self._death()

    def _check_limits(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise VoidRun(f"evaluation: the model gave no answer within {self._timeout_s:g} s", by_entry=True)
        if self._process.resident_bytes() > self._memory_bytes:
            raise VoidRun("evaluation: out of memory: the model's process took more than the track allows", by_entry=True)

    def _death(self) -> VoidRun:
        """The model's process gave up, by its own code unless something killed it."""
        status = wait_until_stopped(self._process, DEATH_S)
        said = one_line(last_words(self._process.console))[:MAX_REASON_CHARACTERS]
        return VoidRun(f"evaluation: the model's process ended: {said or 'nothing was said'}", by_entry=status != KILLED)


@contextmanager
def serve(
    model: ServedModel,
    *,
    max_rows: int,
    length: int,
    environment: Mapping[str, str],
    scratch: Path,
    console: Path,
    timeout_s: float,
    memory_bytes: int,
) -> Iterator[ModelServer]:
    """Start a fresh process for `model` and yield its server; on leaving, the process is ended and the buffers are freed."""
    ours, theirs = socket.socketpair()
    cells = max_rows * length
    with ours, theirs, shared_file(4 * cells, scratch) as tokens_file, shared_file(4 * cells * model.vocab_size, scratch) as logits_file:
        arguments = {
            "--config": model.config,
            "--submission": model.submission,
            "--weights": model.weights,
            "--channel-fd": theirs.fileno(),
            "--tokens-fd": tokens_file.fileno(),
            "--logits-fd": logits_file.fileno(),
            "--max-rows": max_rows,
            "--max-length": length,
        }
        process = SupervisedProcess(
            command=[sys.executable, "-m", "baseline.serve", *(str(word) for pair in arguments.items() for word in pair)],
            environment=environment,
            console=console,
            file_size_limit=FILE_SIZE_LIMIT,
            working_folder=scratch,
            descriptors=(theirs.fileno(), tokens_file.fileno(), logits_file.fileno()),
        )
        with process:
            theirs.close()
            tokens = np.memmap(tokens_file, np.int32, "r+", shape=(max_rows, length))
            logits = np.memmap(logits_file, np.float32, "r+", shape=(max_rows, length, model.vocab_size))
            yield ModelServer(ours, process, tokens, logits, timeout_s, memory_bytes)


def shared_file(size: int, folder: Path) -> IO[bytes]:
    """A file without a name to map in two processes. On Linux its size is sealed: shrinking it would kill whoever has it mapped."""
    if sys.platform != "linux":
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the caller closes it
        file.truncate(size)
        return file
    descriptor = os.memfd_create("evaluation", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return os.fdopen(descriptor, "r+b")
