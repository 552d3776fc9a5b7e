"""Which sandboxes this machine can make: each is made, and asked whether it holds. The strongest that does is the default."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache
from pathlib import Path

from harness.errors import MachineLacks, UsageProblem
from harness.launch import SupervisedProcess, child_environment, last_words, private_folders, wait_until_stopped
from harness.sandbox import landlock
from harness.sandbox.policy import Mode
from harness.sandbox.surroundings import make_policy

STRONGEST_FIRST: tuple[Mode, ...] = ("namespaces", "landlock", "none")
FORCED_BY = "SPEEDRUN_SANDBOX"
"""Variable that asks for a weaker sandbox than the strongest, or insists on one."""
TRIAL_TIMEOUT_S = 30.0
TRIAL_FILE_BYTES = 2**20
HELD, SECRET, PLANTED = "held", "secret", "planted"

TRIAL = f"""\
import contextlib, errno, os, socket, sys
hidden, own = sys.argv[1:]
open(os.path.join(own, "mine"), "w").close()
with contextlib.suppress(OSError):
    open(os.path.join(hidden, "{SECRET}"))
    sys.exit("a hidden file can be read")
with contextlib.suppress(OSError):
    open(os.path.join(hidden, "{PLANTED}"), "w")
listener = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listener.getsockname()).close()
with socket.socket() as outward:
    outward.settimeout(1)
    if outward.connect_ex(("192.0.2.1", 443)) not in (errno.EACCES, errno.ENETUNREACH):
        sys.exit("the network can be reached")
print("{HELD}")
"""
"""Run inside: says `held` or what is wrong. The address is one that nobody has (RFC 5737)."""


@cache
def obstacle(mode: Mode) -> str | None:
    """Why this machine cannot make a sandbox, in words; None where it can. Tried once in the life of this process."""
    if mode == "none":
        return None
    if sys.platform != "linux":
        return f"only Linux has what it is made of, and this is {sys.platform}"
    if mode == "landlock" and landlock.abi() < landlock.TCP_ABI:
        return _landlock_obstacle(landlock.abi())
    said = _trial(mode)
    if said == HELD:
        return None
    setting = user_namespaces_obstacle() if mode == "namespaces" else None
    return f"{said or 'it said nothing'}{f' ({setting})' if setting else ''}"


def strongest() -> Mode:
    """The strongest sandbox that this machine can make."""
    return next(mode for mode in STRONGEST_FIRST if obstacle(mode) is None)


def shortcoming(mode: Mode) -> str | None:
    """Why no stronger sandbox than `mode` is in force: what this machine lacks, or that somebody asked for it; None for the strongest."""
    stronger = STRONGEST_FIRST[: STRONGEST_FIRST.index(mode)]
    reasons = [f"{name}: {obstacle(name) or 'available, but not asked for'}" for name in stronger]
    return "; ".join(reasons) or None


def chosen(wanted: Mode | None = None) -> Mode:
    """`wanted`, else what FORCED_BY names, else the strongest.

    Raises MachineLacks where it cannot be made here, UsageProblem for a word that names none.
    """
    named = wanted or os.environ.get(FORCED_BY)
    if not named:
        return strongest()
    mode = next((mode for mode in STRONGEST_FIRST if mode == named), None)
    if mode is None:
        raise UsageProblem(f"{FORCED_BY}={named} is none of {', '.join(STRONGEST_FIRST)}")
    if reason := obstacle(mode):
        raise MachineLacks(f"the sandbox {mode} cannot be made here: {reason}")
    return mode


def user_namespaces_obstacle(proc: Path = Path("/proc")) -> str | None:
    """The setting that keeps an ordinary user from creating user namespaces, in words; None if /proc names none."""
    if not (proc / "self/ns/user").exists():
        return "this kernel has no user namespaces"
    obstacles = {
        "user.max_user_namespaces": "0",
        "kernel.unprivileged_userns_clone": "0",
        "kernel.apparmor_restrict_unprivileged_userns": "1",
    }
    for name, value in obstacles.items():
        setting = proc / "sys" / name.replace(".", "/", 1)
        if setting.is_file() and setting.read_text().strip() == value:
            return f"{name} = {value}"
    return None


def _landlock_obstacle(abi: int) -> str:
    if abi == 0:
        return "not in this kernel: needs Linux 6.7 or later with landlock among its security modules"
    return f"ABI {abi} of this kernel cannot restrict the network: needs ABI {landlock.TCP_ABI}, Linux 6.7"


def _trial(mode: Mode) -> str:
    """What the trial says inside a sandbox of this mode, or what the supervisor says where it cannot be made."""
    with tempfile.TemporaryDirectory(prefix=f"speedrun-{os.getpid()}-") as folder:
        hidden, console = Path(folder), Path(folder, "console")
        scratch = hidden / "scratch"
        environment = child_environment(scratch, 1)
        (hidden / SECRET).touch()
        command = [sys.executable, "-I", "-S", "-c", TRIAL, folder, str(scratch / "home")]
        policy = make_policy(mode, writable=private_folders(scratch))
        with SupervisedProcess(command, environment, console, TRIAL_FILE_BYTES, scratch, sandbox=policy) as process:
            wait_until_stopped(process, TRIAL_TIMEOUT_S)
        return "a file could be made outside its folders" if (hidden / PLANTED).exists() else last_words(console)
