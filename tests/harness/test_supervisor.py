"""A supervised command, in every sandbox: its status and its limits pass through, and nothing of it survives."""

from __future__ import annotations

import fcntl
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.launch import SupervisedProcess, child_environment, last_words, wait_until_stopped
from harness.sandbox.surroundings import make_policy
from tests.harness.sandboxed import modes

Start = Callable[..., SupervisedProcess]

SLIP_AWAY = """\
import fcntl, os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        held = open("held.new", "w")
        fcntl.flock(held, fcntl.LOCK_EX)
        os.rename("held.new", "held")
        time.sleep(600)
    os._exit(0)
os.wait()
while not os.path.exists("held"):
    time.sleep(0.01)
{then}
"""
"""A grandchild in a session of its own, whose parent has ended: what a daemon does. It holds a lock as long as it lives."""


@pytest.fixture(params=modes("none", "landlock", "namespaces"))
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """`start(code)`: Python code under a supervisor, in the test's folder."""

    def supervised(code: str, *, limit: int = 2**20, descriptors: tuple[int, ...] = (), program: str = sys.executable) -> SupervisedProcess:
        command = [program, "-S", "-c", code]
        policy = make_policy(request.param, writable=[tmp_path])
        return SupervisedProcess(command, child_environment(tmp_path, 1), tmp_path / "console", limit, tmp_path, descriptors, policy)

    return supervised


def wait_for_grandchild(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while not (folder / "held").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def grandchild_is_left(folder: Path) -> bool:
    """Whether somebody holds the lock; process ids of a sandbox mean nothing out here."""
    with (folder / "held").open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.parametrize(
    ("code", "status"),
    [("pass", 0), ("raise SystemExit(7)", 7), ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL)],
)
def test_the_exit_status_passes_through(start: Start, code: str, status: int) -> None:
    with start(code) as process:
        assert wait_until_stopped(process, 10) == status


def test_a_daemon_of_the_command_is_killed_when_the_parent_stops_it(start: Start, tmp_path: Path) -> None:
    with start(SLIP_AWAY.format(then="time.sleep(600)")):
        wait_for_grandchild(tmp_path)
        assert grandchild_is_left(tmp_path)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert not grandchild_is_left(tmp_path)


def test_a_daemon_of_the_command_is_killed_when_the_command_ends(start: Start, tmp_path: Path) -> None:
    with start(SLIP_AWAY.format(then="")) as process:
        assert wait_until_stopped(process, 20) == 0
        assert not grandchild_is_left(tmp_path)


def test_everything_is_killed_when_the_parent_is_gone(start: Start, tmp_path: Path) -> None:
    """A parent that is killed leaves the end of standard input, and nothing else."""
    with start(SLIP_AWAY.format(then="time.sleep(600)")) as process:
        wait_for_grandchild(tmp_path)
        assert process._process is not None
        assert process._process.stdin is not None
        process._process.stdin.close()
        assert wait_until_stopped(process, 10) is not None
        assert not grandchild_is_left(tmp_path)


def test_a_command_that_cannot_be_started_is_named(start: Start) -> None:
    with start("pass", program="/no/such") as process:
        assert wait_until_stopped(process, 10) == 127
    assert last_words(process.console).startswith("/no/such could not be started: FileNotFoundError")


def test_a_command_that_ignores_signals_is_stopped(start: Start) -> None:
    code = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; print('deaf', flush=True); time.sleep(600)"
    with start(code) as process:
        while last_words(process.console) != "deaf":
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 5


def test_a_file_cannot_grow_beyond_the_limit(start: Start, tmp_path: Path) -> None:
    with start("open('big', 'wb').write(bytes(2 * 2**20))", limit=2**20) as process:
        assert wait_until_stopped(process, 10) == 1
    assert (tmp_path / "big").stat().st_size <= 2**20
    assert "File too large" in last_words(process.console)


def test_only_the_given_descriptors_are_inherited(start: Start, tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(b"given")
    with (tmp_path / "given").open("rb") as given, (tmp_path / "kept").open("wb") as kept:
        code = f"import os; print(os.read({given.fileno()}, 9)); os.set_inheritable({kept.fileno()}, True)"
        with start(code, descriptors=(given.fileno(),)) as process:
            assert wait_until_stopped(process, 10) == 1
    assert "b'given'" in process.console.read_text()
    assert "Bad file descriptor" in last_words(process.console)


def test_resident_memory_of_all_descendants_is_counted(start: Start, tmp_path: Path) -> None:
    with start("import time; held = bytes(range(256)) * 2**18; print('held', flush=True); time.sleep(600)") as process:
        while last_words(process.console) != "held":
            time.sleep(0.01)
        assert 2**26 < process.resident_bytes() < 2**28


def test_a_process_that_has_stopped_can_be_stopped_again(start: Start) -> None:
    with start("pass") as process:
        process.stop()
        process.stop()
    assert process.exit_status() is None


def test_last_words_are_the_last_line_that_says_something(tmp_path: Path) -> None:
    console = tmp_path / "console"
    assert last_words(console) == ""
    console.write_bytes(b"first\n" * 10_000 + b"last \xff\n\n   \n")
    assert last_words(console) == "last \N{REPLACEMENT CHARACTER}"
    assert last_words(console, 2).startswith("first / last")
