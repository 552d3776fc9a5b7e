"""What a run's parent makes of what its ranks say: who failed, whose doing it was, and what it keeps."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from harness.control import ControlServer
from harness.conversation import MAX_NAME_CHARACTERS, WITNESS, Built, Conversation
from harness.errors import VoidRun
from harness.record import Line
from harness.track import Track

RANKS = {0, 1}


class Ranks:
    """Two ranks and the witness, played by this test over real connections."""

    def __init__(self, server: ControlServer, path: Path, talk: Conversation) -> None:
        self.path, self.talk = path, talk
        self.connections = {rank: self._connected(rank) for rank in (0, 1, WITNESS)}
        talk.wait_for("hello", {*RANKS, WITNESS}, within_s=5, waiting_for="hello")

    def _connected(self, rank: int) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.path))
        connection.sendall(json.dumps({"say": "hello", "rank": rank}).encode() + b"\n")
        return connection

    def say(self, rank: int, word: str, **values: Any) -> None:
        self.connections[rank].sendall(json.dumps({"say": word, **values}).encode() + b"\n")

    def end(self, rank: int) -> None:
        self.connections[rank].close()

    def train(self, **limits: float) -> int:
        return self.talk.wait_for("done", RANKS, **{"within_s": 5.0, "waiting_for": "training", **limits})  # type: ignore[arg-type]


@pytest.fixture
def ranks(tmp_path: Path, tiny_track: Track) -> Iterator[Ranks]:
    with ControlServer(tmp_path / "control", {*RANKS, WITNESS}) as server:
        ranks = Ranks(server, tmp_path / "control", Conversation(server, (), tiny_track.limits, tmp_path, lambda point: None))
        yield ranks
        for connection in ranks.connections.values():
            connection.close()


def test_it_waits_for_all_ranks_and_returns_the_last_ones_time(ranks: Ranks) -> None:
    ranks.say(0, "done")
    before = time.monotonic_ns()
    ranks.say(1, "done")
    assert before <= ranks.train() <= time.monotonic_ns()


def test_a_rank_that_dies_without_a_word_is_named_though_its_peer_complains_first(ranks: Ranks) -> None:
    ranks.end(1)
    ranks.say(0, "failed", reason="RuntimeError: connection closed by peer")
    with pytest.raises(VoidRun) as void:
        ranks.train()
    assert (str(void.value), void.value.by_entry) == ("rank 1 died before it was done", False)


def test_a_rank_that_says_why_is_believed_though_its_connection_ends_first(ranks: Ranks) -> None:
    with socket.socket(socket.AF_UNIX) as second:
        ranks.end(0)
        second.connect(str(ranks.path))
        second.sendall(b'{"say": "failed", "rank": 0, "reason": "model.py: no luck"}\n')
        with pytest.raises(VoidRun) as void:
            ranks.train()
    assert (str(void.value), void.value.by_entry) == ("rank 0: model.py: no luck", True)


def test_ranks_that_are_done_may_leave(ranks: Ranks) -> None:
    ranks.say(WITNESS, "initialised")
    for rank in (WITNESS, *RANKS):
        if rank in RANKS:
            ranks.say(rank, "done")
        ranks.end(rank)
    ranks.train()


def test_the_witness_may_not_leave_before_it_has_written_the_weights(ranks: Ranks) -> None:
    ranks.end(WITNESS)
    with pytest.raises(VoidRun, match="the witness died before it was done"):
        ranks.train()


def test_a_silent_rank_is_named(ranks: Ranks) -> None:
    with pytest.raises(VoidRun, match=r"rank [01] has said nothing for 0 s; the track allows 0.2 s"):
        ranks.train(silence_s=0.2)


def test_who_has_not_answered_in_time_is_named(ranks: Ranks) -> None:
    ranks.say(0, "done")
    with pytest.raises(VoidRun, match=r"training took longer than the track's 0.3 s \(rank 1\)"):
        ranks.train(within_s=0.3)


@pytest.mark.parametrize("reason", ["x" * 60_000, "\x1b[2Jred", "two\nlines", 10**300, ["a list"], None])
def test_any_reason_becomes_one_line_that_a_record_can_hold(ranks: Ranks, reason: object) -> None:
    ranks.say(0, "failed", reason=reason)
    with pytest.raises(VoidRun) as void:
        ranks.train()
    assert TypeAdapter(Line).validate_python(str(void.value)).isprintable()


STEP = {"step": 1, "loss": 2.5, "tokens": 64}


def test_steps_of_rank_0_are_kept_in_order_once_each(ranks: Ranks) -> None:
    for step in (1, 2, 2, 1, 3):
        ranks.say(0, "step", **{**STEP, "step": step})
    ranks.say(1, "step", **{**STEP, "step": 4})
    for rank in RANKS:
        ranks.say(rank, "done")
    ranks.train()
    assert [point.step for point in ranks.talk.curve] == [1, 2, 3]
    assert ranks.talk.tokens == 3 * 64


@pytest.mark.parametrize(
    "values",
    [{"step": 5}, {"step": None}, {"step": "1"}, {"loss": None}, {"loss": "2.5"}, {"loss": float("nan")}, {"loss": float("inf")}]
    + [{"tokens": value} for value in (None, -1, 0, 1.5, 2**50, 10**300)],
)
def test_a_step_that_makes_no_sense_is_not_kept(ranks: Ranks, values: dict[str, object]) -> None:
    ranks.say(0, "step", **{**STEP, **values})
    for rank in RANKS:
        ranks.say(rank, "done")
    ranks.train()
    assert (ranks.talk.curve, ranks.talk.tokens) == ([], 0)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"attention": "flash-4", "flops_per_token": 4.775e9}, Built("flash-4", 4.775e9)),
        ({}, Built()),
        ({"attention": "x\ny" + "z" * 400, "flops_per_token": float("inf")}, Built(("x y" + "z" * 400)[:MAX_NAME_CHARACTERS])),
        ({"attention": ["sdpa"], "flops_per_token": -1.0}, Built()),
        ({"attention": " ", "flops_per_token": "many"}, Built()),
    ],
)
def test_what_a_rank_says_of_its_model_is_kept_only_if_it_makes_sense(said: dict[str, Any], kept: Built, ranks: Ranks) -> None:
    for rank in RANKS:
        ranks.say(rank, "ready", **said)
    ranks.talk.wait_for("ready", RANKS, within_s=5, waiting_for="ready")
    assert ranks.talk.built() == kept
