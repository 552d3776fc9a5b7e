"""Sandboxes: what a run needs works in each, and what it has no business doing fails, tried by a real process in a real sandbox."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.launch import REPOSITORY, child_environment
from harness.sandbox import landlock
from harness.sandbox.policy import Mode
from tests.harness.sandboxed import CONFINING, answer_of, confined, modes, python

PLANTED = REPOSITORY / "planted-by-a-test"
ATTEMPTS = Path(__file__).with_name("attempts.py").read_text()
NEEDED = [
    "read code",
    "read what it is given",
    "write to its home",
    "write to its temporary folder",
    "use /dev/shm",
    "use loopback",
    "reach the harness's socket",
    "read a given descriptor",
    "write to given memory",
    "use /dev/null",
    "start a program",
    "start a thread",
    "read its own status",
]
LEFT_OPEN_BY_LANDLOCK = ["reach an ephemeral port on loopback", "see the harness's command line"]
"""docs/sandbox.md says so."""
REFUSED = [
    "read held-out rows",
    "read held-out rows through a link",
    "read results",
    "read home",
    "read harness",
    "read git",
    "read text package",
    "read secret of the system",
    "list the harness",
    "write code",
    "write packages",
    "write what it is given",
    "write to a given descriptor",
    "write outside",
    "rename code",
    "link to code",
    "write settings of the kernel",
    "write to /sys",
    "reach a service on loopback",
    "reach this machine's address",
    "reach the internet",
    "send a datagram",
    "reach an abstract socket",
    "open a raw socket",
    "open a socket of the hypervisor",
    "signal the harness",
    "read the harness's environment",
    "read the harness's memory",
    "trace the harness",
    "copy the harness's memory",
    "make a user namespace",
    "mount",
    "change the root",
    "keep a key",
    "make System V shared memory",
    "make an io_uring",
    "raise a limit",
]


@dataclass(frozen=True, slots=True)
class Tried:
    """How every attempt ended in one sandbox, and what the process saw of itself."""

    mode: Mode
    ends: dict[str, str]
    seen: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module", params=modes(*CONFINING))
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    mode: Mode = request.param
    with ExitStack() as stack:
        yield all_tried(mode, tmp_path_factory.mktemp(mode), stack)


def all_tried(mode: Mode, outside: Path, stack: ExitStack) -> Tried:
    """Lay out what there is to reach, keep it open as long as `stack`, and let a confined process try."""
    folder = outside / "scratch"
    secrets = {name: outside / name / "rows.bin" for name in ("held-out rows", "results")}
    for path in (*secrets.values(), outside / "shown"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"secret")
    sockets = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    control, low, ephemeral, abstract = listeners(sockets / "control", stack)
    rows = stack.enter_context(secrets["held-out rows"].open("rb"))
    memory = stack.enter_context(os.fdopen(os.memfd_create("buffer"), "r+b"))
    packages = Path(str(importlib.util.find_spec("pandas").origin)).parent.parent  # type: ignore[union-attr]
    given = {
        **{name: str(path) for name, path in secrets.items()},
        "code": str(REPOSITORY / "baseline" / "model.py"),
        "shown": str(outside / "shown"),
        "shared memory": f"/dev/shm/speedrun-test-{os.getpid()}-{mode}",
        "control": control,
        "rows": rows.fileno(),
        "memory": memory.fileno(),
        "home": stack.enter_context(tempfile.TemporaryDirectory(dir=Path.home())),
        "harness": str(REPOSITORY / "harness" / "run.py"),
        "git": str(REPOSITORY / ".git" / "HEAD"),
        "text package": str(packages / "pandas" / "__init__.py"),
        "packages": str(packages),
        "secret of the system": "/etc/shadow",
        "outside": str(PLANTED),
        "low port": low,
        "port": ephemeral,
        "address": own_address(),
        "abstract": abstract,
        "parent": os.getpid(),
        "own processes": mode == "namespaces",
    }
    command = python(ATTEMPTS, json.dumps(given))
    shown = [outside / "shown", sockets]
    answer = answer_of(confined(mode, folder, command, readable=shown, descriptors=(rows.fileno(), memory.fileno())))
    return Tried(mode, answer["ends"], answer["seen"], outside)


def listeners(control: Path, stack: ExitStack) -> tuple[str, int, int, str]:
    """A Unix socket, a port below the ephemeral ones, an ephemeral port, an abstract socket: all served by this process."""
    abstract = f"speedrun-test-{os.getpid()}-{control.parent.name}"
    for name in (str(control), f"\0{abstract}"):
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(name)
        unix.listen()
    for port in itertools.cycle(random.sample(range(20_000, min(landlock.ephemeral_ports())), 1000)):
        try:
            low = stack.enter_context(socket.create_server(("", port)))
            break
        except OSError:
            continue
    ephemeral = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return str(control), low.getsockname()[1], ephemeral.getsockname()[1], abstract


def own_address() -> str:
    """This machine's address on a network, if it is on one; a datagram socket that is connected sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        try:
            outward.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(outward.getsockname()[0])


# ---------------------------------------------------------------------- attempts


@pytest.mark.parametrize("what", NEEDED)
def test_what_a_run_needs_works(tried: Tried, what: str) -> None:
    assert tried.ends[what] == "done"


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_business_of_a_run_fails(tried: Tried, what: str) -> None:
    if what == "signal the harness" and tried.mode == "landlock" and landlock.abi() < 6:
        pytest.skip("Landlock keeps signals in from ABI 6 on")
    assert tried.ends[what] != "done"


def test_every_attempt_is_judged(tried: Tried) -> None:
    assert set(tried.ends) == {*NEEDED, *REFUSED, *LEFT_OPEN_BY_LANDLOCK, "signal the supervisor"}


def test_what_landlock_alone_leaves_open_is_closed_by_namespaces(tried: Tried) -> None:
    assert {tried.ends[what] == "done" for what in LEFT_OPEN_BY_LANDLOCK} == {tried.mode == "landlock"}


def test_nothing_was_changed_outside(tried: Tried) -> None:
    assert not PLANTED.exists()
    assert {(tried.folder / name / "rows.bin").read_bytes() for name in ("held-out rows", "results")} == {b"secret"}
    assert (tried.folder / "shown").read_bytes() == b"secret"


def test_it_has_no_capability_and_cannot_gain_one(tried: Tried) -> None:
    assert {int(tried.seen[name], 16) for name in ("CapEff", "CapPrm")} == {0}
    assert tried.seen["NoNewPrivs"] == "1"
    assert tried.seen["Seccomp"] == "2"


def test_its_environment_is_the_harnesses_choice_alone(tried: Tried, tmp_path: Path) -> None:
    assert tried.seen["environment"] == sorted(child_environment(tmp_path, 1))


def test_in_namespaces_it_sees_only_itself_and_its_first_process_which_it_cannot_kill(tried: Tried) -> None:
    if tried.mode != "namespaces":
        pytest.skip("Landlock has no process table of its own")
    assert tried.seen["processes"][0] == 1
    assert len(tried.seen["processes"]) == 2


def test_in_namespaces_dev_holds_harmless_devices_and_gpus(tried: Tried) -> None:
    if tried.mode != "namespaces":
        pytest.skip("Landlock shows the machine's own /dev, and opens what the policy names")
    harmless = {"null", "zero", "full", "random", "urandom", "shm", "fd", "stdin", "stdout", "stderr"}
    assert harmless <= set(tried.seen["devices"])
    assert {name for name in tried.seen["devices"] if not name.startswith(("nvidia", "kfd", "dri"))} == harmless
