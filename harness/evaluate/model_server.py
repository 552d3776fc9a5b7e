"""The evaluator's end of `baseline.serve`: buffers that the evaluator owns, token rows out, raw logits back."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import VoidRun, one_line
from harness.launch import SupervisedProcess, last_words
from harness.record import MAX_REASON_CHARACTERS

FILE_SIZE_LIMIT = 2**30
"""For each file that the model's process writes; it has no reason to write any."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is served: the track's config (a JSON file), the submission's files, the final weights."""

    config: Path
    submission: Path
    weights: Path
    vocab_size: int


class ModelServer:
    """A model in another process that answers one batch at a time."""

    def __init__(self, channel: socket.socket, process: SupervisedProcess, tokens: NDArray[np.int32], logits: NDArray[np.float32]) -> None:
        self._lines = channel.makefile("rw", buffering=1)
        self._process = process
        self._tokens = tokens
        self._logits = logits
        self._expect("ready")

    @property
    def max_rows(self) -> int:
        return int(self._tokens.shape[0])

    def logits(self, tokens: NDArray[np.integer]) -> NDArray[np.float32]:
        """tokens (rows, length) -> raw logits (rows, length, vocab_size), a view that the next call overwrites."""
        rows, length = tokens.shape
        self._tokens[:rows, :length] = tokens
        self._say(f"{rows} {length}\n")
        self._expect("ok")
        return self._logits[:rows, :length]

    def _say(self, line: str) -> None:
        try:
            self._lines.write(line)
        except OSError:
            raise VoidRun(self._death()) from None

    def _expect(self, word: str) -> None:
        try:
            answer = self._lines.readline(64).strip()
        except TimeoutError:
            raise VoidRun("evaluation: the model gave no answer within the track's limit") from None
        except (OSError, UnicodeDecodeError):
            answer = ""
        if answer != word:
            raise VoidRun(self._death())

    def _death(self) -> str:
        said = one_line(last_words(self._process.console))[:MAX_REASON_CHARACTERS]
        return f"evaluation: the model's process ended: {said or 'nothing was said'}"


@contextmanager
def serve(
    model: ServedModel, *, max_rows: int, length: int, environment: Mapping[str, str], scratch: Path, console: Path, timeout_s: float
) -> Iterator[ModelServer]:
    """Start a fresh process for `model` and yield its server; on leaving, the process is ended and the buffers are freed."""
    ours, theirs = socket.socketpair()
    ours.settimeout(timeout_s)
    cells = max_rows * length
    with ours, theirs, tempfile.TemporaryFile(dir=scratch) as tokens_file, tempfile.TemporaryFile(dir=scratch) as logits_file:
        tokens_file.truncate(4 * cells)
        logits_file.truncate(4 * cells * model.vocab_size)
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
            yield ModelServer(ours, process, tokens, logits)
