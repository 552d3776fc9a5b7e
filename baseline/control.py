"""The trainer's half of the conversation with the parent that holds the clock.

Every rank connects to the parent's Unix socket and the two exchange JSON lines. The parent never believes a figure
that arrives here; it stamps each line on its own clock.

    rank -> parent   hello {rank}          connected, before the model exists
    parent -> rank   warm  + descriptor    rows of dummy tokens for the warm-up
    rank -> parent   ready {what it built} built, compiled and warmed up; attention backend and FLOPs per token, for the record only
    parent -> rank   seed  {seed}
    rank -> parent   initialised           initial weights written by rank 0 (and by the witness)
    parent -> rank   go    + descriptor    the packed training rows: the clock runs
    rank -> parent   step {step, loss, tokens}   for the progress bar and the loss curve only
    rank -> parent   done                  the final weights are durable: the clock stops when the last rank says so
    rank -> parent   failed {reason}       instead of any of the above; the run is void
"""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any

DESCRIPTOR_BYTES = array.array("i").itemsize
ORPHANED = 70
"""Exit status of a rank whose parent went away."""


class ControlSocket:
    """One rank's connection. A parent that closes it ends this process."""

    def __init__(self, path: str, rank: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._received = b""
        self._descriptors: list[int] = []
        self.say("hello", rank=rank)

    def say(self, word: str, **values: Any) -> None:
        """Send one line. A vanished parent means that nobody wants this run: leave at once."""
        try:
            self._socket.sendall(json.dumps({"say": word, **values}).encode() + b"\n")
        except OSError:
            os._exit(ORPHANED)

    def expect(self, word: str) -> dict[str, Any]:
        """Wait for the parent's next line, which must be `word`."""
        message = self._next_line()
        if message.get("do") != word:
            raise ConnectionError(f"expected {word!r} from the parent, got {message!r}")
        return message

    def expect_descriptor(self, word: str) -> int:
        """Like `expect`, for a line that carries an open file descriptor; returns the descriptor."""
        self.expect(word)
        if not self._descriptors:
            raise ConnectionError(f"the parent's {word!r} came without its file descriptor")
        return self._descriptors.pop(0)

    def _next_line(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            data, ancillary, _, _ = self._socket.recvmsg(65_536, socket.CMSG_LEN(4 * DESCRIPTOR_BYTES))
            if not data:
                os._exit(ORPHANED)
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    usable = len(payload) - len(payload) % DESCRIPTOR_BYTES
                    self._descriptors.extend(array.array("i", payload[:usable]))
            self._received += data
        line, self._received = self._received.split(b"\n", 1)
        message = json.loads(line)
        return message if isinstance(message, dict) else {}


def report_failure(path: str, rank: int, reason: str) -> None:
    """Tell the parent why this rank gives up, on a connection of its own; silent when the parent is gone."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            connection.sendall(json.dumps({"say": "failed", "rank": rank, "reason": reason}).encode() + b"\n")
    except OSError:
        return
