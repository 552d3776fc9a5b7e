"""One run's conversation with its ranks, watched: what they say, whether they live, and what they use."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from harness.control import ControlServer, Message
from harness.errors import VoidRun, one_line
from harness.launch import SupervisedProcess, folder_bytes, last_words
from harness.record import MAX_REASON_CHARACTERS
from harness.track import Limits

WITNESS = -1
LAST_WORDS_S = 1.0
"""How long a dying rank has to say why, after its connection ended."""
RESOURCE_INTERVAL_S = 1.0
FULL_DISK_BYTES = 2**26
MAX_STEPS = 1_000_000
MAX_STEP_TOKENS = 2**40
"""Bounds on what rank 0 can make this process keep."""
MAX_NAME_CHARACTERS = 100
GIB = 2**30


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What rank 0 said of one step, and when it arrived. Shown, never scored."""

    step: int
    loss: float
    at_ns: int


@dataclass(frozen=True, slots=True)
class Built:
    """What rank 0 said of the model that it built. Shown, never judged by; None where it said nothing that makes sense."""

    attention: str | None = None
    flops_per_token: float | None = None


@dataclass(slots=True)
class Conversation:
    """Waits for the ranks' words; raises VoidRun with one reason when the run cannot go on."""

    server: ControlServer
    processes: Collection[SupervisedProcess]
    limits: Limits
    scratch: Path
    on_step: Callable[[CurvePoint], None]
    curve: list[CurvePoint] = field(default_factory=list)
    tokens: int = 0
    peak_memory_bytes: int = 0
    _said: dict[tuple[int, str], Message] = field(default_factory=dict)
    _heard_ns: dict[int, int] = field(default_factory=dict)
    _next_resources: float = 0.0
    _awaited: str = "hello"

    def wait_for(self, word: str, ranks: Collection[int], *, within_s: float, waiting_for: str, silence_s: float | None = None) -> int:
        """Block until every one of `ranks` has said `word`; returns the stamp (monotonic ns) of the last."""
        began = time.monotonic()
        self._awaited = word
        for rank in ranks:
            self._heard_ns[rank] = time.monotonic_ns()
        while not all((rank, word) in self._said for rank in ranks):
            self._take_all(self.server.receive(0.1))
            self._check_processes()
            self._check_resources()
            if time.monotonic() - began > within_s:
                missing = ", ".join(_rank_name(rank) for rank in sorted(ranks) if (rank, word) not in self._said)
                raise VoidRun(f"{waiting_for} took longer than the track's {within_s:g} s ({missing})")
            if silence_s is not None:
                self._check_silence(ranks, word, silence_s)
        return max(self._said[rank, word].at_ns for rank in ranks)

    def built(self) -> Built:
        """What rank 0 said of its model with `ready`."""
        said = self._said[0, "ready"].values
        attention, flops = said.get("attention"), said.get("flops_per_token")
        return Built(
            attention=one_line(attention)[:MAX_NAME_CHARACTERS] if isinstance(attention, str) and attention.strip() else None,
            flops_per_token=flops if isinstance(flops, float) and math.isfinite(flops) and flops > 0 else None,
        )

    def require_silence(self) -> None:
        """Raise VoidRun if a rank has said more than it was asked for."""
        self._take_all(self.server.receive(0))

    def _take_all(self, messages: list[Message]) -> None:
        """Words, then ends of connections, then reasons: when a rank dies without a word, its peers give up because of it."""
        for message in messages:
            if message.word not in ("gone", "failed"):
                self._take(message)
        failures = [message for message in messages if message.word == "failed"]
        for message in messages:
            if message.word == "gone":
                self._gone(message.rank, failures)
        for message in failures:
            raise self._failure(message)

    def _take(self, message: Message) -> None:
        self._heard_ns[message.rank] = message.at_ns
        expected = ("done", "step") if self._awaited == "done" else (self._awaited,)
        if message.rank != WITNESS and message.word not in expected:
            raise VoidRun(f"{_rank_name(message.rank)} said {one_line(message.word)[:40]!r} out of turn", by_entry=True)
        if message.word == "step":
            if message.rank == 0:
                self._step(message)
            return
        self._said.setdefault((message.rank, message.word), message)

    def _step(self, message: Message) -> None:
        """Keep the next step's line; whatever else is said of steps counts nothing."""
        step, loss, tokens = (message.values.get(name) for name in ("step", "loss", "tokens"))
        if step != len(self.curve) + 1 or step > MAX_STEPS:
            return
        if isinstance(loss, float) and math.isfinite(loss) and isinstance(tokens, int) and 0 < tokens <= MAX_STEP_TOKENS:
            point = CurvePoint(len(self.curve) + 1, loss, message.at_ns)
            self.curve.append(point)
            self.tokens += tokens
            self.on_step(point)

    def _gone(self, rank: int, failures: list[Message]) -> None:
        """A connection ended. After its last word that is as it should be; before, the rank died.

        A rank says why on a second connection, which may be read after the end of its first.
        """
        if (rank, "initialised" if rank == WITNESS else "done") in self._said:
            return
        deadline = time.monotonic() + LAST_WORDS_S
        while True:
            for message in failures:
                if message.rank == rank:
                    raise self._failure(message)
            if time.monotonic() > deadline:
                raise VoidRun(f"{_rank_name(rank)} died before it was done")
            failures = [message for message in self.server.receive(0.1) if message.word == "failed"]

    def _failure(self, message: Message) -> VoidRun:
        """A rank gave up and said why. It is the entry's doing unless the parent itself sees that the disk is full."""
        reason = one_line(str(message.values.get("reason", "no reason given")))[:MAX_REASON_CHARACTERS]
        full = shutil.disk_usage(self.scratch).free < FULL_DISK_BYTES
        return VoidRun(f"{_rank_name(message.rank)}: {reason}", by_entry=not full)

    def _check_processes(self) -> None:
        """A launcher that ended although ranks are still owed words ends the run."""
        for process in self.processes:
            status = process.exit_status()
            if status is None or status == 0:
                continue
            self._take_all(self.server.receive(LAST_WORDS_S))
            said = one_line(last_words(process.console))[:MAX_REASON_CHARACTERS]
            raise VoidRun(f"the processes ended with status {status}: {said or 'nothing was said'}")

    def _check_resources(self) -> None:
        if time.monotonic() < self._next_resources:
            return
        self._next_resources = time.monotonic() + RESOURCE_INTERVAL_S
        used = sum(process.resident_bytes() for process in self.processes)
        self.peak_memory_bytes = max(self.peak_memory_bytes, used)
        if used > self.limits.memory_bytes:
            raise VoidRun(f"out of memory: {used / GIB:.1f} GiB resident, the track allows {self.limits.memory_bytes / GIB:.1f} GiB")
        written = folder_bytes(self.scratch)
        if written > self.limits.scratch_bytes:
            raise VoidRun(f"disk quota: {written / GIB:.2f} GiB written, the track allows {self.limits.scratch_bytes / GIB:.2f} GiB")

    def _check_silence(self, ranks: Collection[int], word: str, silence_s: float) -> None:
        now = time.monotonic_ns()
        for rank in ranks:
            quiet_s = (now - self._heard_ns[rank]) / 1e9
            if (rank, word) not in self._said and quiet_s > silence_s:
                raise VoidRun(f"{_rank_name(rank)} has said nothing for {quiet_s:.0f} s; the track allows {silence_s:g} s")


def _rank_name(rank: int) -> str:
    return "the witness" if rank == WITNESS else f"rank {rank}"
