"""The evaluator's end of `baseline.serve`: buffers that the evaluator owns, token rows out, raw logits back."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import VoidRun, one_line
from harness.evaluate.asked import Request, targets_of
from harness.evaluate.logit_memory import LogitMemory, TokenScores, mapped_logits, shared_file
from harness.launch import SupervisedProcess, last_words, wait_until_stopped
from harness.record import MAX_REASON_CHARACTERS
from harness.sandbox.policy import UNCONFINED, Policy

FILE_SIZE_LIMIT = 2**30
"""For each file that the model's process writes; it has no reason to write any."""
WATCH_INTERVAL_S = 0.5
DEATH_S = 2.0
"""How long a process whose connection ended may take to leave its exit status."""
KILLED = 128 + signal.SIGKILL
MAX_ANSWER_BYTES = 64
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""glibc gives large blocks back as soon as they are freed, and the system clears every page of the next one. Logits are such blocks:
on one Zen 4 core, capping 1,000 × 32,768 of them takes 0.31 s with the defaults and 0.11 s with these."""
SLOTS = 3
"""One is being scored here while the next is answered there; a question in between has the third."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is served: a module that speaks the protocol of `baseline.serve`, and how it finds the model."""

    command: tuple[str, ...]
    """Module and arguments, after `python -m`."""
    vocab_size: int

    @classmethod
    def trained(cls, config: Path, submission: Path | None, weights: Path, vocab_size: int) -> ServedModel:
        """Weights of the baseline's trainer: its config (a JSON file), the submission's files, the weights."""
        entry = () if submission is None else ("--submission", str(submission))
        return cls(("baseline.serve", "--config", str(config), *entry, "--weights", str(weights)), vocab_size)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one request may hold."""

    tokens: int
    """Cells of the token buffer, padding included."""
    positions: int
    """Logits."""
    overhead: int = 64
    """Cells that take about as long as a request's fixed costs: so many may be padding before a second request pays."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how a server runs."""

    environment: Mapping[str, str]
    scratch: Path
    console: Path
    timeout_s: float
    """For one answer, and for the start."""
    memory_bytes: int
    """Resident memory of its processes."""
    sandbox: Policy = UNCONFINED
    """What its processes may see and do."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A request's logits, until the next answer is taken."""

    request: Request
    slot: int
    fits: bool
    """False: memory did not suffice, and there are no logits."""
    memory: LogitMemory

    def scores(self) -> TokenScores:
        """How all targets of the rows fare, in the order of `asked.targets_of`."""
        return self.memory.scores(self.slot, self.request.positions, *targets_of(self.request.rows))

    def logits(self, begin: int = 0, end: int | None = None) -> NDArray[np.float32]:
        """A copy of the logits (positions, vocab), in the order of the rows, or of some of them."""
        return self.memory.logits(self.slot, begin, self.request.positions if end is None else end)


class ModelServer:
    """A model in another process that answers one request after another, within limits on time and memory."""

    def __init__(
        self,
        channel: socket.socket,
        process: SupervisedProcess,
        tokens: NDArray[np.int32],
        wanted: NDArray[np.uint8],
        memory: LogitMemory,
        place: Place,
    ) -> None:
        self._channel = channel
        self._process = process
        self._tokens = tokens
        self._wanted = wanted
        self._memory = memory
        self._place = place
        self._sent: deque[int] = deque()
        """Slots whose answer is still to come, in the order of the requests."""
        self._fits: dict[int, bool] = {}
        self._said = b""
        self._next_look = 0.0
        self._ready: bytes | None = None
        self._channel.settimeout(min(WATCH_INTERVAL_S, place.timeout_s))

    @property
    def shares_prefixes(self) -> bool:
        """Whether requests may have a `start`. Waits until the server is ready."""
        if self._ready is None:
            self._ready = self._word(b"ready shared", b"ready rows")
        return self._ready == b"ready shared"

    def ask(self, request: Request) -> Answer:
        """One answer now, whatever else is on its way. Raises VoidRun when memory does not suffice for it."""
        slot = SLOTS - 1
        self._send(slot, request)
        answer = self._answer(slot, request)
        if not answer.fits:
            raise VoidRun(f"evaluation: out of memory on a request of {request.cells} tokens", by_entry=True)
        return answer

    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """The answers in order; while one is looked at, the next request is already being answered."""
        waiting: deque[tuple[int, Request]] = deque()
        for number, request in enumerate(requests):
            slot = number % (SLOTS - 1)
            self._send(slot, request)
            waiting.append((slot, request))
            if len(waiting) == SLOTS - 1:
                yield self._answer(*waiting.popleft())
        while waiting:
            yield self._answer(*waiting.popleft())

    def _send(self, slot: int, request: Request) -> None:
        shares = self.shares_prefixes
        if request.start and not shares:
            raise ValueError("this model reads whole rows; ask without a start")
        request.fill(self._tokens[slot], self._wanted[slot])
        try:
            self._channel.sendall(request.line(slot).encode())
        except OSError:
            raise self._death() from None
        self._sent.append(slot)

    def _answer(self, slot: int, request: Request) -> Answer:
        """Wait for the slot's answer, and for those that come before it."""
        while slot not in self._fits:
            self._fits[self._sent.popleft()] = self._word(b"ok", b"oom") == b"ok"
        return Answer(request, slot, self._fits.pop(slot), self._memory)

    def _word(self, *expected: bytes) -> bytes:
        """Wait for one line, watching the process meanwhile; the deadline holds for the whole line, however it arrives."""
        deadline = time.monotonic() + self._place.timeout_s
        while b"\n" not in self._said:
            try:
                part = self._channel.recv(MAX_ANSWER_BYTES)
            except TimeoutError:
                self._check_limits(deadline)
                continue
            except OSError:
                part = b""
            self._said += part
            if not part or len(self._said) > MAX_ANSWER_BYTES:
                raise self._death()
            self._check_limits(deadline)
        word, _, self._said = self._said.partition(b"\n")
        if word not in expected:
            raise self._death()
        return word

    def _check_limits(self, deadline: float) -> None:
        now = time.monotonic()
        if now > deadline:
            raise VoidRun(f"evaluation: the model gave no answer within {self._place.timeout_s:g} s", by_entry=True)
        if now < self._next_look:  # looking for all descendants of a process takes longer than a small answer
            return
        self._next_look = now + WATCH_INTERVAL_S
        if self._process.resident_bytes() > self._place.memory_bytes:
            raise VoidRun("evaluation: out of memory: the model's process took more than the track allows", by_entry=True)

    def _death(self) -> VoidRun:
        """The model's process gave up, by its own code unless something killed it."""
        status = wait_until_stopped(self._process, DEATH_S)
        said = one_line(last_words(self._process.console))[:MAX_REASON_CHARACTERS]
        return VoidRun(f"evaluation: the model's process ended: {said or 'nothing was said'}", by_entry=status != KILLED)


@contextmanager
def serve(model: ServedModel, capacity: Capacity, place: Place, memory: LogitMemory | None = None) -> Iterator[ModelServer]:
    """Start a fresh process for `model` and yield its server; on leaving, the process is ended and the buffers are freed.

    `memory` (SLOTS, capacity.positions, vocab_size) is where the logits go; by default it is made in this machine's main memory.
    """
    shape = (SLOTS, capacity.tokens)
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        tokens = stack.enter_context(shared_file(4 * shape[0] * shape[1], place.scratch))
        wanted = stack.enter_context(shared_file(shape[0] * shape[1], place.scratch))
        logits = memory or stack.enter_context(mapped_logits(place.scratch, (SLOTS, capacity.positions, model.vocab_size)))
        given = {
            "--channel-fd": theirs.fileno(),
            "--tokens-fd": tokens.fileno(),
            "--wanted-fd": wanted.fileno(),
            "--slots": SLOTS,
            "--max-tokens": capacity.tokens,
            "--max-positions": capacity.positions,
        }
        arguments = [*model.command, *(str(word) for pair in given.items() for word in pair), *logits.arguments]
        process = SupervisedProcess(
            command=[sys.executable, "-m", *arguments],
            environment={**place.environment, **KEEP_FREED_MEMORY},
            console=place.console,
            file_size_limit=FILE_SIZE_LIMIT,
            working_folder=place.scratch,
            descriptors=(theirs.fileno(), tokens.fileno(), wanted.fileno(), *logits.descriptors),
            sandbox=place.sandbox,
        )
        stack.enter_context(process)
        theirs.close()
        token_buffer = np.memmap(tokens, np.int32, "r+", shape=shape)
        yield ModelServer(ours, process, token_buffer, np.memmap(wanted, np.uint8, "r+", shape=shape), logits, place)
