"""The servers that evaluate one model together: how many this machine takes, with how much each, and their start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import psutil

from harness.environment import accelerators, installed_versions, usable_cores
from harness.evaluate.logit_memory import LogitMemory
from harness.evaluate.model_server import SLOTS, Capacity, ModelServer, Place, ServedModel, serve

ON_CPU = Capacity(tokens=2**12, positions=2**10, overhead=2**6)
ON_CARD = Capacity(tokens=2**17, positions=2**13, overhead=2**13)
"""What a request may hold at first; requests that do not fit into memory are halved."""
MOST_CPU_SERVERS = 8
COPIES_OF_MODEL = 3
"""What a CPU server holds, in sizes of the model: the file while it is read, the model, and a request's activations."""
SERVER_BYTES = 2**29
"""What it holds besides, torch and the logits of a request."""
SHARE_FOR_LOGITS = 1 / 8
"""Of a card's free memory, for all slots."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Servers that work side by side: one on each card, or some on the CPU."""

    servers: int
    threads: int
    """CPU threads of each."""
    cards: bool

    @classmethod
    def of_this_machine(cls, model_bytes: int) -> Crew:
        """A server for each card; without cards one for each core, as far as the memory goes for so many models and a spare one."""
        cores = usable_cores()
        if cards := usable_cards():
            return cls(cards, max(1, cores // cards), True)
        each = SERVER_BYTES + COPIES_OF_MODEL * model_bytes
        fitting = psutil.virtual_memory().available // each - 1
        servers = max(1, min(cores, MOST_CPU_SERVERS, fitting))
        return cls(servers, max(1, cores // servers), False)

    def alone(self) -> Crew:
        """One server with the threads of all."""
        return replace(self, servers=1, threads=self.servers * self.threads)

    def capacity(self, vocab_size: int) -> Capacity:
        """What one request may hold here."""
        if not self.cards:
            return ON_CPU
        from harness.evaluate.cuda_ipc import free_bytes

        room = int(free_bytes(0) * SHARE_FOR_LOGITS) // (SLOTS * 4 * vocab_size)
        return replace(ON_CARD, positions=max(1, min(ON_CARD.positions, room)))

    @contextmanager
    def start(self, model: ServedModel, capacity: Capacity, place: Place) -> Iterator[list[ModelServer]]:
        """Start all servers; they become ready while the caller does something else. On leaving they are ended."""
        with ExitStack() as stack:
            servers = []
            for number in range(self.servers):
                environment = {**place.environment, "OMP_NUM_THREADS": str(self.threads)}
                memory = self._card_memory(number, model, capacity)
                if memory is not None:
                    environment["CUDA_VISIBLE_DEVICES"] = visible_cards()[number]
                servers.append(stack.enter_context(serve(model, capacity, replace(place, environment=environment), memory)))
            yield servers

    def _card_memory(self, card: int, model: ServedModel, capacity: Capacity) -> LogitMemory | None:
        """Where the logits of a server on a card go; None for a server on the CPU, which makes its own."""
        if not self.cards:
            return None
        from harness.evaluate.cuda_ipc import CudaLogits

        return CudaLogits(card, (SLOTS, capacity.positions, model.vocab_size))


def usable_cards() -> int:
    """CUDA cards that a server here can use: none where torch is built for CPUs."""
    return 0 if installed_versions(["torch"]).get("torch", "").endswith("+cpu") else len(visible_cards())


def visible_cards() -> list[str]:
    """What CUDA_VISIBLE_DEVICES says of each card that this process may use, or would say."""
    found = [str(number) for number in range(len(accelerators()))]
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if named is None else [name.strip() for name in named.split(",") if name.strip()][: len(found)]
