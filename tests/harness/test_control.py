"""The parent's socket: what honest ranks say arrives, what hostile ones send does nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baseline.control import ORPHANED, ControlSocket, report_failure
from harness.control import MAX_LINE_BYTES, WORDS, ControlServer, Message
from harness.launch import REPOSITORY

RANKS = {-1, 0, 1}


@contextmanager
def listening() -> Iterator[tuple[ControlServer, str]]:
    """A server for the ranks 0 and 1 and the witness, and its path."""
    with tempfile.TemporaryDirectory(prefix="control-") as folder, ControlServer(Path(folder) / "control", RANKS) as server:
        yield server, str(Path(folder) / "control")


@pytest.fixture
def server_and_path() -> Iterator[tuple[ControlServer, str]]:
    with listening() as both:
        yield both


@contextmanager
def connected(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(path)
        yield raw


def said(server: ControlServer) -> list[tuple[int, str]]:
    """All that arrives until nothing more comes."""
    return [(message.rank, message.word) for message in messages(server)]


def messages(server: ControlServer) -> list[Message]:
    found, quiet = [], 0
    while quiet < 2:  # a call may only accept connections
        new = server.receive(0.01)
        found += new
        quiet = 0 if new else quiet + 1
    return found


def line(**values: object) -> bytes:
    return json.dumps(values).encode() + b"\n"


HELLO = line(say="hello", rank=0)

# ---------------------------------------------------------------------- honest ranks


def test_what_a_rank_says_arrives_in_order_with_its_values(server_and_path: tuple[ControlServer, str]) -> None:
    server, path = server_and_path
    rank = ControlSocket(path, 1)
    rank.say("ready")
    rank.say("step", step=1, loss=2.5)
    arrived = messages(server)
    assert [(m.rank, m.word) for m in arrived] == [(1, "hello"), (1, "ready"), (1, "step")]
    assert arrived[2].values == {"step": 1, "loss": 2.5}
    assert [m.at_ns for m in arrived] == sorted(m.at_ns for m in arrived)
    assert server.ranks() == {1}
    rank._socket.close()


def test_a_line_may_arrive_in_pieces(server_and_path: tuple[ControlServer, str]) -> None:
    server, path = server_and_path
    with connected(path) as raw:
        raw.sendall(HELLO[:7])
        assert said(server) == []
        raw.sendall(HELLO[7:] + line(say="ready")[:3])
        assert said(server) == [(0, "hello")]


def test_a_descriptor_travels_with_its_word(server_and_path: tuple[ControlServer, str], tmp_path: Path) -> None:
    server, path = server_and_path
    (tmp_path / "rows").write_bytes(b"rows of tokens")
    rank = ControlSocket(path, 0)
    assert said(server) == [(0, "hello")]
    with (tmp_path / "rows").open("rb") as rows:
        server.send(0, "seed", seed=7)
        server.send(0, "go", rows.fileno())
    assert rank.expect("seed")["seed"] == 7
    descriptor = rank.expect_descriptor("go")
    assert os.pread(descriptor, 100, 0) == b"rows of tokens"
    os.close(descriptor)
    rank._socket.close()


def test_another_word_than_expected_is_an_error(server_and_path: tuple[ControlServer, str]) -> None:
    server, path = server_and_path
    rank = ControlSocket(path, 0)
    assert said(server) == [(0, "hello")]
    server.send(0, "seed", seed=7)
    with pytest.raises(ConnectionError, match="expected 'go'"):
        rank.expect("go")
    rank._socket.close()


def test_a_descriptor_that_does_not_come_is_an_error(server_and_path: tuple[ControlServer, str]) -> None:
    server, path = server_and_path
    rank = ControlSocket(path, 0)
    assert said(server) == [(0, "hello")]
    server.send(0, "go")
    with pytest.raises(ConnectionError, match="without its file descriptor"):
        rank.expect_descriptor("go")
    rank._socket.close()


def test_the_end_of_a_connection_is_reported_once_and_sending_to_it_is_harmless(server_and_path: tuple[ControlServer, str]) -> None:
    server, path = server_and_path
    with connected(path) as raw:
        raw.sendall(HELLO + line(say="done"))
    assert said(server) == [(0, "hello"), (0, "done"), (0, "gone")]
    server.send(0, "go")
    assert said(server) == []


def test_a_reason_comes_on_a_connection_of_its_own(server_and_path: tuple[ControlServer, str]) -> None:
    server, path = server_and_path
    report_failure(path, 1, "no luck")
    (message,) = messages(server)
    assert (message.rank, message.word, message.values["reason"]) == (1, "failed", "no luck")


def test_a_rank_whose_parent_goes_away_ends() -> None:
    with listening() as (server, path):
        code = f"from baseline.control import ControlSocket; ControlSocket({path!r}, 0).expect('go')"
        rank = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
        while not server.receive(0.1):
            pass
    assert rank.wait(10) == ORPHANED


def test_leaving_closes_every_connection_and_removes_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "control"
    server = ControlServer(path, RANKS)
    with connected(str(path)) as greeted, connected(str(path)) as silent:
        with server:
            greeted.sendall(HELLO)
            assert said(server) == [(0, "hello")]
        assert not path.exists()
        assert (greeted.recv(1), silent.recv(1)) == (b"", b"")


# ---------------------------------------------------------------------- hostile ones

NOT_A_HELLO = {
    "no JSON": b"hello\n",
    "binary": bytes(range(256)) + b"\n",
    "an empty line": b"\n",
    "a number": b"7\n",
    "a number of many digits": b'{"say": "hello", "rank": ' + b"1" * 5000 + b"}\n",
    "a list": b'["say", "hello"]\n',
    "null": b"null\n",
    "deep nesting": b'{"say":' * 9000 + b"\n",
    "deep lists": b"[" * 60_000 + b"\n",
    "no word": line(rank=0),
    "a word that is no text": line(say=["hello"], rank=0),
    "an unknown word": line(say="hallo", rank=0),
    "the server's own word": line(say="gone", rank=0),
    "no rank": line(say="hello"),
    "a rank that is not expected": line(say="hello", rank=2),
    "a rank that is true": line(say="hello", rank=True),
    "a rank that is false": line(say="hello", rank=False),
    "a rank that is text": line(say="hello", rank="0"),
    "a rank with a fraction": line(say="hello", rank=0.0),
    "a huge rank": line(say="hello", rank=10**400),
    "a reason of an unexpected rank": line(say="failed", rank=7, reason="me"),
    "a reason of the rank true": line(say="failed", rank=True, reason="me"),
    "another word before hello": line(say="done", rank=0),
    "a line without an end": b"x" * (3 * MAX_LINE_BYTES),
}


@pytest.mark.parametrize("sent", NOT_A_HELLO.values(), ids=NOT_A_HELLO.keys())
def test_nonsense_produces_no_message_and_the_next_rank_is_heard(server_and_path: tuple[ControlServer, str], sent: bytes) -> None:
    server, path = server_and_path
    with connected(path) as hostile, connected(path) as honest:
        hostile.setblocking(False)
        hostile.send(sent)
        assert said(server) == []
        assert server.ranks() == set()
        honest.sendall(HELLO)
        assert said(server) == [(0, "hello")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
hostile_lines = (
    st.binary().map(lambda data: data + b"\n")
    | json_values.map(lambda value: json.dumps(value).encode() + b"\n")
    | st.dictionaries(st.sampled_from(["say", "rank", "reason", "step"]), json_values).map(lambda value: json.dumps(value).encode() + b"\n")
)


@given(lines=st.lists(hostile_lines, max_size=5), greeted=st.booleans())
@example(lines=[line(say="gone"), line(say="hello", rank=1)], greeted=True)
@settings(max_examples=30, deadline=None)
def test_no_bytes_can_break_the_server_or_speak_for_another_rank(lines: list[bytes], greeted: bool) -> None:
    with listening() as (server, path), connected(path) as hostile, connected(path) as honest:
        hostile.sendall(HELLO * greeted + b"".join(lines))
        arrived = messages(server)
        assert all(message.word in WORDS for message in arrived)
        assert {message.rank for message in arrived} <= ({0} if greeted else RANKS)
        honest.sendall(line(say="hello", rank=-1))
        assert said(server) == [(-1, "hello")] or -1 in server.ranks()


def test_a_rank_speaks_for_itself_whatever_rank_it_names_later(server_and_path: tuple[ControlServer, str]) -> None:
    server, path = server_and_path
    with connected(path) as raw:
        raw.sendall(HELLO + line(say="done", rank=1) + line(say="failed", rank=-1))
        assert said(server) == [(0, "hello"), (0, "done"), (0, "failed")]


def test_a_second_hello_for_a_rank_is_ignored(server_and_path: tuple[ControlServer, str]) -> None:
    server, path = server_and_path
    with connected(path) as first, connected(path) as second:
        first.sendall(HELLO)
        assert said(server) == [(0, "hello")]
        second.sendall(HELLO + line(say="done"))
        assert said(server) == []
        first.sendall(line(say="ready"))
        assert said(server) == [(0, "ready")]


def test_a_rank_that_sends_a_line_without_end_is_gone(server_and_path: tuple[ControlServer, str]) -> None:
    server, path = server_and_path
    with connected(path) as raw:
        raw.sendall(HELLO)
        assert said(server) == [(0, "hello")]
        raw.sendall(b"x" * (MAX_LINE_BYTES + 1))
        assert said(server) == [(0, "gone")]
