"""How a confined command ends: however that comes about, nothing of it is left; and what torchrun needs works until then."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from multiprocessing import shared_memory
from pathlib import Path

import psutil
import pytest

from harness.launch import SupervisedProcess, last_words, torchrun_command, wait_until_stopped
from harness.sandbox.available import FORCED_BY
from harness.sandbox.policy import Mode
from harness.sandbox.remnants import FOLDER, SharedMemory
from harness.staging import sweep_scratch
from tests.harness.conftest import SubmissionFolder
from tests.harness.sandboxed import confined, modes, python
from tests.harness.tiny_runs import TinyRuns, wait_until_none

STUBBORN = """\
import fcntl, os, socket, sys, threading, time
for generation in range(3):
    if os.fork() == 0:
        os.setsid()
        os.fork()
held = open(f"home/held-{os.urandom(8).hex()}", "w")
fcntl.flock(held, fcntl.LOCK_SH)
name = f"speedrun-test-{sys.argv[1]}-{os.urandom(8).hex()}"
open(f"/dev/shm/{name}", "w").write("x")
if sys.argv[2] == "namespaces":
    open(f"/tmp/{name}", "w").write("x")
unix = socket.socket(socket.AF_UNIX)
unix.bind("\\0" + name)
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
open("home/up", "w").close()
while True:
    open("home/late", "a").write("x")
    time.sleep(0.01)
"""
"""Processes in sessions of their own, each with a thread, a lock, a socket, and files in /dev/shm and /tmp."""

GLOO = """\
import sys, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
dist.barrier()
print(f"rank {dist.get_rank()} of {dist.get_world_size()}: {total.item():g}", flush=True)
dist.destroy_process_group()
"""


def names_left() -> list[str]:
    """What the command made where other programs keep things too."""
    mark = f"speedrun-test-{os.getpid()}-"
    shared = [name for folder in ("/dev/shm", "/tmp") for name in os.listdir(folder) if name.startswith(mark)]
    return shared + [line for line in Path("/proc/net/unix").read_text().splitlines() if f"@{mark}" in line]


def held_locks(home: Path) -> list[Path]:
    """Locks that a living process holds."""
    return [path for path in home.glob("held-*") if is_held(path)]


def is_held(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def require_nothing_left(folder: Path) -> None:
    assert wait_until_none(folder, within_s=10) == []
    deadline = time.monotonic() + 10
    while (left := [*held_locks(folder / "home"), *names_left()]) and time.monotonic() < deadline:
        time.sleep(0.01)  # the kernel is still taking the last processes apart
    assert left == []
    late = folder / "home" / "late"
    size = late.stat().st_size if late.exists() else 0
    time.sleep(0.05)
    assert (late.stat().st_size if late.exists() else 0) == size, "something still writes"


def stubborn(mode: Mode, folder: Path) -> SupervisedProcess:
    return confined(mode, folder, python(STUBBORN, str(os.getpid()), mode, str(folder)))


def wait_until_up(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while not (folder / "home" / "up").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(params=modes("none", "landlock", "namespaces"))
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


def test_nothing_is_left_when_it_is_stopped(mode: Mode, tmp_path: Path) -> None:
    with stubborn(mode, tmp_path):
        wait_until_up(tmp_path)
        assert held_locks(tmp_path / "home")
    require_nothing_left(tmp_path)


@pytest.mark.parametrize("mode", modes("namespaces"))
def test_in_namespaces_nothing_is_left_when_the_supervisor_itself_is_killed(mode: Mode, tmp_path: Path) -> None:
    """Nobody walks /proc then: the first process of the sandbox dies with the supervisor, and the kernel ends the rest."""
    with stubborn(mode, tmp_path) as process:
        wait_until_up(tmp_path)
        assert process._process is not None
        process._process.kill()
        require_nothing_left(tmp_path)


@pytest.mark.parametrize("moment", [0, 1])
def test_nothing_is_left_when_it_is_killed_at_any_moment(mode: Mode, moment: int, tmp_path: Path) -> None:
    kill_at_a_random_moment(mode, moment, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(2, 52))
def test_nothing_is_left_of_fifty_of_which_half_are_killed(mode: Mode, moment: int, tmp_path: Path) -> None:
    kill_at_a_random_moment(mode, moment, tmp_path)


def kill_at_a_random_moment(mode: Mode, seed: int, folder: Path) -> None:
    """Stop it, or (odd seeds) kill one of its processes first: the supervisor too, where namespaces see to the rest."""
    rng = random.Random(f"{mode} {seed}")
    with stubborn(mode, folder) as process:
        time.sleep(rng.uniform(0, 0.6))
        assert process._process is not None
        if seed % 2:
            supervisor = psutil.Process(process._process.pid)
            victims = supervisor.children(recursive=True) + ([supervisor] if mode == "namespaces" else [])
            for victim in rng.sample(victims, min(1, len(victims))):
                victim.kill()
    require_nothing_left(folder)


def test_shared_memory_of_others_is_left_alone(mode: Mode, tmp_path: Path) -> None:
    """A file that was there before, and one that came meanwhile and is open in another process of this user."""
    before, meanwhile = (Path(f"/dev/shm/other-test-{os.getpid()}-{word}") for word in ("before", "meanwhile"))
    try:
        before.write_bytes(b"x")
        with stubborn(mode, tmp_path) as process, meanwhile.open("wb"):
            wait_until_up(tmp_path)
            process.stop()
        assert before.exists()
        assert meanwhile.exists()
    finally:
        before.unlink(missing_ok=True)
        meanwhile.unlink(missing_ok=True)


def test_the_next_run_removes_the_folders_of_a_killed_harness_and_of_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with subprocess.Popen(["/bin/true"]) as ended:
        pass
    dead = [tmp_path / "scratch" / f"{ended.pid}-run-x", tmp_path / "tmp" / f"speedrun-{ended.pid}-x"]
    alive = [
        tmp_path / "scratch" / f"{os.getpid()}-run-x",
        tmp_path / "tmp" / f"speedrun-{os.getpid()}-x",
        tmp_path / "tmp" / "speedrun-a-b",
    ]
    for folder in (*dead, *alive):
        folder.mkdir(parents=True)
    sweep_scratch(tmp_path / "scratch")
    assert [folder.exists() for folder in dead] == [False, False]
    assert all(folder.exists() for folder in alive)


@pytest.mark.parametrize("mode", modes("namespaces", "landlock"))
def test_torchrun_and_gloo_work_with_two_ranks(mode: Mode, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(GLOO)
    command = [*torchrun_command(2, [])[:-2], str(program)]
    with confined(mode, tmp_path / "run", command, readable=[program]) as process:
        assert wait_until_stopped(process, 120) == 0, last_words(process.console, 20)
    said = re.findall(r"rank \d of 2: 3", process.console.read_text())  # two ranks may write into one line
    assert sorted(said) == ["rank 0 of 2: 3", "rank 1 of 2: 3"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /dev/shm")
def test_what_others_hold_in_shared_memory_stays_and_what_nobody_holds_goes() -> None:
    before = SharedMemory.now()
    lock = multiprocessing.get_context("spawn").Lock()  # a named semaphore: mapped under another name, and open in no process
    held = shared_memory.SharedMemory(create=True, size=1)
    kept = {name for name in os.listdir(FOLDER) if name not in before.before}
    assert len(kept) >= 2
    (FOLDER / f"left-{os.getpid()}").write_text("nobody's")
    before.remove_newer()
    assert kept <= set(os.listdir(FOLDER))
    assert not (FOLDER / f"left-{os.getpid()}").exists()
    held.close()
    held.unlink()
    assert lock.acquire(timeout=1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", modes("landlock", "none"))
def test_a_whole_run_works_and_records_what_was_in_force(
    mode: Mode, tiny_runs: TinyRuns, session_submission: SubmissionFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strongest is what every other test of runs has."""
    monkeypatch.setenv(FORCED_BY, mode)
    run = tiny_runs.perform(session_submission({})).run
    assert (run.state, run.void_reason, run.sandbox) == ("finished", None, mode)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", modes("namespaces", "landlock"))
def test_a_gpu_can_be_used(mode: Mode, tmp_path: Path) -> None:
    code = "import torch; print((torch.ones(64, 64, device='cuda') @ torch.ones(64, 64, device='cuda')).sum().item())"
    with confined(mode, tmp_path, [sys.executable, "-c", code], file_bytes=2**33) as process:
        assert wait_until_stopped(process, 120) == 0, last_words(process.console, 20)
    assert last_words(process.console) == "262144.0"


@pytest.mark.gpu
@pytest.mark.parametrize("mode", modes("namespaces", "landlock"))
def test_a_confined_process_can_write_to_memory_of_a_gpu_that_the_evaluator_exports(mode: Mode, tmp_path: Path) -> None:
    from harness.evaluate.cuda_ipc import CudaLogits

    memory = CudaLogits(0, (1, 2, 3))
    code = (
        "import sys, torch; from baseline.serve import exported_memory;"
        " exported_memory(sys.argv[2], (1, 2, 3)).fill_(7); torch.cuda.synchronize()"
    )
    with confined(mode, tmp_path, [sys.executable, "-c", code, *memory.arguments], file_bytes=2**33) as process:
        assert wait_until_stopped(process, 120) == 0, last_words(process.console, 20)
    assert (memory.logits(0, 0, 2) == 7).all()
