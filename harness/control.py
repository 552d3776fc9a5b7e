"""The parent's side of the conversation with the ranks: a Unix socket, JSON lines, descriptors by SCM_RIGHTS.

See `baseline.control` for the words. Lines from ranks are hostile input: bounded in length, parsed strictly, and never
a source of a figure that counts.
"""

from __future__ import annotations

import array
import contextlib
import json
import selectors
import socket
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

MAX_LINE_BYTES = 65_536
SEND_TIMEOUT_S = 5.0
WORDS = frozenset({"hello", "ready", "initialised", "step", "done", "failed"})
"""All that a rank may say; "gone" is the server's own word."""


@dataclass(frozen=True, slots=True)
class Message:
    """One line from a rank, stamped on arrival. `word` is "gone" when the rank's connection ended."""

    rank: int
    word: str
    values: dict[str, Any]
    at_ns: int


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    rank: int | None = None
    received: bytes = b""


class ControlServer:
    """Listens for the ranks of one run, those of `expected`. Use as a context manager; leaving it closes and removes the socket."""

    def __init__(self, path: Path, expected: Collection[int]) -> None:
        self._path = path
        self._expected = frozenset(expected)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ranks: dict[int, _Connection] = {}

    def __enter__(self) -> ControlServer:
        return self

    def __exit__(self, *_: object) -> None:
        for key in self._selector.get_map().values():
            cast(socket.socket, key.fileobj).close()
        self._selector.close()
        self._path.unlink(missing_ok=True)

    def ranks(self) -> set[int]:
        """Ranks that have said hello."""
        return set(self._ranks)

    def receive(self, timeout_s: float) -> list[Message]:
        """Lines that arrived within the timeout, in order of arrival; empty when there was none."""
        messages: list[Message] = []
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                accepted, _ = self._listener.accept()
                accepted.settimeout(SEND_TIMEOUT_S)
                self._selector.register(accepted, selectors.EVENT_READ, _Connection(accepted))
            else:
                messages += self._read(key.data)
        return messages

    def send(self, rank: int, word: str, descriptor: int | None = None, **values: Any) -> None:
        """Send one line to one rank, with a file descriptor if given. A rank that has gone is reported by `receive`."""
        line = json.dumps({"do": word, **values}).encode() + b"\n"
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))] if descriptor is not None else []
        with contextlib.suppress(OSError):
            self._ranks[rank].socket.sendmsg([line], rights)

    def _read(self, connection: _Connection) -> list[Message]:
        now = time.monotonic_ns()
        try:
            data = connection.socket.recv(MAX_LINE_BYTES)
        except OSError:
            data = b""
        connection.received += data
        lines = connection.received.split(b"\n")
        connection.received = lines.pop()
        messages = [message for line in lines if (message := self._parse(connection, line, now))]
        if not data or len(connection.received) > MAX_LINE_BYTES:
            self._close(connection.socket)
            if connection.rank is not None:
                messages.append(Message(connection.rank, "gone", {}, now))
        return messages

    def _parse(self, connection: _Connection, line: bytes, now: int) -> Message | None:
        """A message, or None for a line that makes no sense."""
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            return None
        word = values.pop("say", None) if isinstance(values, dict) else None
        if not isinstance(word, str) or word not in WORDS:
            return None
        rank = self._introduced(connection, word, values.get("rank")) if connection.rank is None else connection.rank
        return None if rank is None else Message(rank, word, values, now)

    def _introduced(self, connection: _Connection, word: str, rank: object) -> int | None:
        """The rank that a connection's first words name: a hello by an expected rank that nobody else has, or a last word on its own."""
        if not isinstance(rank, int) or isinstance(rank, bool) or rank not in self._expected:
            return None
        if word == "hello" and rank not in self._ranks:
            connection.rank = rank
            self._ranks[rank] = connection
            return rank
        return rank if word == "failed" else None

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()
