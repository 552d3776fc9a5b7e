"""What a sandbox is told to show and to refuse: sets of paths, the filter of system calls, and what a machine can make at all."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageProblem
from harness.launch import REPOSITORY
from harness.sandbox import kernel, seccomp
from harness.sandbox.available import FORCED_BY, STRONGEST_FIRST, chosen, obstacle, shortcoming, strongest, user_namespaces_obstacle
from harness.sandbox.policy import Policy, without_hidden
from harness.sandbox.surroundings import devices, make_policy

# ---------------------------------------------------------------------- paths

NAMES = st.sampled_from("abc")
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def made_tree(folder: Path, files: list[str]) -> None:
    """Files at these paths, and folders where one path goes through another."""
    for path in sorted(files, key=len, reverse=True):
        if not (folder / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(path)


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def shown_by(readable: tuple[str, ...], candidates: set[Path]) -> set[Path]:
    return {path for path in candidates if any(path.is_relative_to(shown) for shown in readable)}


@settings(max_examples=150, deadline=None)
@given(files=st.lists(PATHS, min_size=1, max_size=8), hidden=st.lists(PATHS, max_size=3))
def test_all_of_a_tree_is_shown_except_what_is_hidden(
    tmp_path_factory: pytest.TempPathFactory, files: list[str], hidden: list[str]
) -> None:
    tree = tmp_path_factory.mktemp("tree")
    made_tree(tree, files)
    shown = without_hidden([tree], [tree / path for path in hidden])
    everything = files_below(tree)
    out = {path for path in everything if any(path.is_relative_to(tree / place) for place in hidden)}
    assert shown_by(shown.readable, everything) == everything - out
    assert not set(shown.readable) & set(shown.listable)


def test_a_tree_is_shown_under_its_own_name_and_its_real_one(tmp_path: Path) -> None:
    made_tree(tmp_path, ["real/in/file", "real/secret"])
    (tmp_path / "link").symlink_to("real")
    shown = without_hidden([tmp_path / "link"], [tmp_path / "real" / "secret"])
    assert set(shown.readable) == {str(tmp_path / name / "in") for name in ("real", "link")}
    assert set(shown.listable) == {str(tmp_path / name) for name in ("real", "link")}


def test_a_link_to_something_hidden_is_hidden_too(tmp_path: Path) -> None:
    made_tree(tmp_path, ["tree/secret/file", "tree/plain"])
    (tmp_path / "tree" / "alias").symlink_to("secret")
    (tmp_path / "tree" / "through").symlink_to("secret/file")
    shown = without_hidden([tmp_path / "tree"], [tmp_path / "tree" / "secret"])
    assert shown.readable == (str(tmp_path / "tree" / "plain"),)


def test_what_does_not_exist_is_not_shown(tmp_path: Path) -> None:
    assert without_hidden([tmp_path / "absent"], [tmp_path / "nothing"]).readable == ()


def test_what_a_run_is_given_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_policy("namespaces", writable=[tmp_path / "absent"])


def test_a_policy_survives_the_way_to_the_supervisor() -> None:
    policy = make_policy("landlock", readable=[REPOSITORY / "baseline"], writable=[Path("/tmp")], shared_memory_bytes=7)
    assert Policy.from_json(policy.to_json()) == policy


def test_the_trainer_is_shown_and_the_rest_of_the_repository_is_not() -> None:
    policy = make_policy("namespaces")
    inside = {path for path in policy.readable if Path(path).is_relative_to(REPOSITORY)}
    rooms = {Path(path).relative_to(REPOSITORY).parts[0] for path in inside}
    assert rooms - {Path(sys.prefix).name} == {"baseline", "kernels"}
    assert str(Path.home()) not in policy.readable


def test_a_hidden_place_in_what_every_sandbox_shows_is_taken_out() -> None:
    hidden = REPOSITORY / "baseline" / "train.py"
    policy = make_policy("namespaces", hidden=[hidden])
    assert str(hidden) not in policy.readable
    assert str(REPOSITORY / "baseline") in policy.listable
    assert str(hidden.with_name("serve.py")) in policy.readable


def test_gpus_are_kept_and_disks_and_displays_are_not(tmp_path: Path) -> None:
    kept = {"null", "nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-caps", "kfd", "dri/renderD128"}
    for name in (*kept, "nvidia-caps/nvidia-cap1", "sda", "mem", "kmsg", "tty", "dri/card0", "infiniband/uverbs0", "kvm", "vsock"):
        made_tree(tmp_path, ["nvidia-caps/nvidia-cap1" if name == "nvidia-caps" else name])
    assert {str(Path(path).relative_to(tmp_path)) for path in devices(tmp_path)} == kept


# ---------------------------------------------------------------------- system calls

ALLOW, REFUSE, ABSENT, KILL = 0x7FFF_0000, 0x5_0000 | errno.EPERM, 0x5_0000 | errno.ENOSYS, 0x8000_0000
MACHINES = sorted(kernel.PROCESSORS)


def verdict(lines: list[seccomp.Line], audit: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Run a filter as the kernel would: the accumulator, and jumps counted from the next instruction."""
    data = {0: number, 4: audit, **{16 + 8 * i: value & 0xFFFF_FFFF for i, value in enumerate((*arguments, 0, 0, 0))}}
    accumulator = place = 0
    while True:
        line = lines[place]
        place += 1
        if line.code == 0x20:
            accumulator = data[line.value]
        elif line.code == 0x54:
            accumulator &= line.value
        elif line.code == 0x06:
            return line.value
        else:
            holds = {0x15: accumulator == line.value, 0x35: accumulator >= line.value, 0x45: bool(accumulator & line.value)}[line.code]
            place += line.if_true if holds else line.if_false


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def asked(machine: str, number: int, *arguments: int, datagrams: bool = False) -> int:
    return verdict(seccomp.program(machine, datagrams=datagrams), kernel.PROCESSORS[machine].audit, number, arguments)


def test_every_listed_call_is_refused_and_every_other_allowed(machine: str) -> None:
    column = seccomp.COLUMNS[machine]
    refused = {numbers[column] for numbers in seccomp.REFUSED.values()}
    assert len(refused) == len(seccomp.REFUSED)
    found = {number for number in range(470) if asked(machine, number) == REFUSE}
    assert found == refused | {seccomp.SOCKET[column]}
    others = set(range(470)) - found - {seccomp.CLONE3}
    assert {asked(machine, number) for number in others} == {ALLOW}


def test_namespaces_cannot_be_made_by_clone_but_processes_and_threads_can(machine: str) -> None:
    clone = seccomp.CLONE[seccomp.COLUMNS[machine]]
    threads = 0x3D0F00
    assert asked(machine, clone, 17) == asked(machine, clone, threads) == ALLOW
    for flag in (kernel.CLONE_NEWUSER, kernel.CLONE_NEWNS, kernel.CLONE_NEWNET, kernel.CLONE_NEWPID):
        assert asked(machine, clone, 17 | flag) == REFUSE
    assert asked(machine, seccomp.CLONE3) == ABSENT


@pytest.mark.parametrize("datagrams", [True, False])
@pytest.mark.parametrize(
    ("family", "kind", "protocol", "verdicts"),
    [
        (1, 1, 0, (ALLOW, ALLOW)),
        (16, 3, 0, (ALLOW, ALLOW)),
        (2, 1, 0, (ALLOW, ALLOW)),
        (10, 1 | 0o2004000, 6, (ALLOW, ALLOW)),
        (2, 2, 0, (ALLOW, REFUSE)),
        (10, 3, 1, (ALLOW, REFUSE)),
        (2, 1, 262, (ALLOW, REFUSE)),
        (2, 1, 132, (ALLOW, REFUSE)),
        (40, 1, 0, (REFUSE, REFUSE)),
        (38, 5, 0, (REFUSE, REFUSE)),
        (17, 3, 0, (REFUSE, REFUSE)),
    ],
    ids=["unix", "netlink", "tcp", "tcp, not blocking", "udp", "raw", "multipath tcp", "sctp", "vsock", "kernel crypto", "packets"],
)
def test_sockets_by_family_type_and_protocol(
    machine: str, datagrams: bool, family: int, kind: int, protocol: int, verdicts: tuple[int, int]
) -> None:
    """`verdicts`: with a network of its own, and without one."""
    number = seccomp.SOCKET[seccomp.COLUMNS[machine]]
    assert asked(machine, number, family, kind, protocol, datagrams=datagrams) == verdicts[0 if datagrams else 1]


def test_another_processors_calls_end_the_process(machine: str) -> None:
    assert verdict(seccomp.program(machine, datagrams=True), 0x4000_0003, 1) == KILL
    if machine == "x86_64":
        assert asked(machine, seccomp.X32_BIT | 1) == REFUSE


# ---------------------------------------------------------------------- what this machine can make

WEAKENED = """\
import sys
from harness.sandbox import kernel, landlock, seccomp
from harness.sandbox.available import chosen, obstacle, shortcoming, strongest
from harness.errors import MachineLacks
kernel.prctl("no_new_privs", kernel.PR_SET_NO_NEW_PRIVS, 1)
{weaken}
print(strongest())
print(shortcoming(strongest()))
try:
    chosen("namespaces")
except MachineLacks as lack:
    print(lack)
"""
NO_NAMESPACES = "seccomp.refuse_calls(datagrams=True)"
NO_MORE_LAYERS = """\
while True:
    try:
        landlock.restrict([landlock.Grant("/", landlock.READ | landlock.WRITE), landlock.Grant("/dev", landlock.USE_DEVICE)])
    except OSError:
        break
"""


def weakened(weaken: str) -> list[str]:
    code = WEAKENED.format(weaken=weaken)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return done.stdout.splitlines()


needs_both = pytest.mark.skipif(any(obstacle(mode) for mode in STRONGEST_FIRST), reason="this machine cannot make every sandbox")


@needs_both
def test_where_namespaces_are_refused_landlock_is_used_and_the_reason_is_named() -> None:
    mode, reason, lack = weakened(NO_NAMESPACES)
    assert mode == "landlock"
    assert reason == "namespaces: no sandbox: new namespaces: Operation not permitted"
    assert lack.startswith("the sandbox namespaces cannot be made here: ")


@needs_both
def test_where_landlock_is_refused_too_there_is_none_and_both_reasons_are_named() -> None:
    """The kernel allows 16 layers of Landlock, and a process in one cannot mount."""
    mode, reason, _ = weakened(NO_MORE_LAYERS)
    assert mode == "none"
    assert "namespaces: no sandbox: making mounts private: Operation not permitted" in reason
    assert "landlock: no sandbox: Landlock: Argument list too long" in reason


@needs_both
def test_the_strongest_is_the_default_and_has_no_shortcoming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FORCED_BY, raising=False)
    assert chosen() == strongest() == "namespaces"
    assert shortcoming("namespaces") is None
    assert shortcoming("landlock") == "namespaces: available, but not asked for"


def test_a_weaker_one_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCED_BY, "none")
    assert chosen() == "none"
    monkeypatch.setenv(FORCED_BY, "docker")
    with pytest.raises(UsageProblem, match="SPEEDRUN_SANDBOX=docker is none of namespaces, landlock, none"):
        chosen()


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces = 0"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone = 0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns = 1"),
        ("user/max_user_namespaces", "96365", None),
        ("kernel/apparmor_restrict_unprivileged_userns", "0", None),
    ],
)
def test_settings_that_forbid_user_namespaces_are_named(tmp_path: Path, setting: str, value: str, expected: str | None) -> None:
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/user").touch()
    (tmp_path / "sys" / setting).parent.mkdir(parents=True)
    (tmp_path / "sys" / setting).write_text(value + "\n")
    assert user_namespaces_obstacle(tmp_path) == expected


def test_a_kernel_without_user_namespaces_is_an_obstacle(tmp_path: Path) -> None:
    assert user_namespaces_obstacle(tmp_path) == "this kernel has no user namespaces"
