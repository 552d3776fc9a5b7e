"""Run inside a sandbox: tries all that a run has no business doing, and what it needs, and prints how each attempt ended.

An attempt ends with "done", the name of an errno, or the name of another exception. Standard library only; started as text, with one
argument: a JSON object of the places and numbers that the test knows from outside.
"""

import contextlib
import ctypes
import errno
import json
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

given = json.loads(sys.argv[1])
ends: dict[str, str] = {}
libc = ctypes.CDLL(None, use_errno=True)
numbers = {"x86_64": (101, 310, 248, 29, 425), "aarch64": (117, 270, 217, 194, 425)}[platform.machine()]
PTRACE, PROCESS_VM_READV, ADD_KEY, SHMGET, IO_URING_SETUP = numbers
PTRACE_ATTACH = 16
CLONE_NEWUSER = 0x1000_0000


def attempt(name: str, act: Callable[[], object]) -> None:
    try:
        act()
    except OSError as error:
        ends[name] = errno.errorcode.get(error.errno, type(error).__name__) if error.errno else type(error).__name__
    except Exception as error:
        ends[name] = type(error).__name__
    else:
        ends[name] = "done"


def call(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def system_call(number: int, *arguments: object) -> None:
    call(libc.syscall(ctypes.c_long(number), *arguments))


def connect(family: int, address: object, kind: int = socket.SOCK_STREAM) -> None:
    with socket.socket(family, kind) as outward:
        outward.settimeout(2)
        outward.connect(address)


def loopback_of_its_own() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(listener.getsockname(), 2).close()


def write(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")


def read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


# ---------------------------------------------------------------------- what a run needs

attempt("read code", lambda: read(given["code"]))
attempt("read what it is given", lambda: read(given["shown"]))
attempt("write to its home", lambda: write(os.path.expanduser("~/mine")))
attempt("write to its temporary folder", lambda: write(os.environ["TMPDIR"] + "/mine"))
attempt("use /dev/shm", lambda: write(given["shared memory"]))
attempt("use loopback", loopback_of_its_own)
attempt("reach the harness's socket", lambda: connect(socket.AF_UNIX, given["control"]))
attempt("read a given descriptor", lambda: os.pread(given["rows"], 1, 0))
attempt("write to given memory", lambda: write(f"/dev/fd/{given['memory']}"))
attempt("use /dev/null", lambda: write("/dev/null"))
attempt("start a program", lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0))
attempt("start a thread", lambda: __import__("threading").Thread(target=int).start())
attempt("read its own status", lambda: read("/proc/self/status"))

# ---------------------------------------------------------------------- files

attempt("read home", lambda: os.listdir(given["home"]))
for place in ("held-out rows", "results", "harness", "git", "text package", "secret of the system"):
    attempt(f"read {place}", lambda place=place: read(given[place]))  # type: ignore[misc]
attempt("list the harness", lambda: os.listdir(os.path.dirname(given["harness"])))
attempt("write code", lambda: write(given["code"]))
attempt("write packages", lambda: write(given["packages"] + "/sitecustomize.py"))
attempt("write what it is given", lambda: write(given["shown"]))
attempt("write to a given descriptor", lambda: write(f"/proc/self/fd/{given['rows']}"))
attempt("write outside", lambda: write(given["outside"]))
attempt("rename code", lambda: os.rename(given["code"], given["code"] + ".old"))
attempt("link to code", lambda: os.link(given["code"], os.path.expanduser("~/link")))
attempt("write settings of the kernel", lambda: write("/proc/sys/kernel/core_pattern"))
attempt("write to /sys", lambda: write("/sys/kernel/mm/transparent_hugepage/enabled"))
os.symlink(given["held-out rows"], os.path.expanduser("~/symlink"))
attempt("read held-out rows through a link", lambda: read(os.path.expanduser("~/symlink")))

# ---------------------------------------------------------------------- the network

attempt("reach a service on loopback", lambda: connect(socket.AF_INET, ("127.0.0.1", given["low port"])))
attempt("reach an ephemeral port on loopback", lambda: connect(socket.AF_INET, ("127.0.0.1", given["port"])))
attempt("reach this machine's address", lambda: connect(socket.AF_INET, (given["address"], given["low port"])))
attempt("reach the internet", lambda: connect(socket.AF_INET, ("192.0.2.1", 443)))
attempt("send a datagram", lambda: connect(socket.AF_INET, ("192.0.2.1", 53), socket.SOCK_DGRAM))
attempt("reach an abstract socket", lambda: connect(socket.AF_UNIX, "\0" + given["abstract"]))
attempt("open a raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("open a socket of the hypervisor", lambda: socket.socket(40, socket.SOCK_STREAM))

# ---------------------------------------------------------------------- other processes

attempt("signal the harness", lambda: os.kill(given["parent"], 0))
attempt("read the harness's environment", lambda: read(f"/proc/{given['parent']}/environ"))
attempt("read the harness's memory", lambda: read(f"/proc/{given['parent']}/mem"))
attempt("see the harness's command line", lambda: read(f"/proc/{given['parent']}/cmdline"))
attempt("trace the harness", lambda: system_call(PTRACE, PTRACE_ATTACH, given["parent"], 0, 0))
attempt("copy the harness's memory", lambda: system_call(PROCESS_VM_READV, given["parent"], None, 0, None, 0, 0))
attempt("signal the supervisor", lambda: os.kill(os.getppid(), signal.SIGKILL if given["own processes"] else 0))

# ---------------------------------------------------------------------- the kernel

attempt("make a user namespace", lambda: call(libc.unshare(CLONE_NEWUSER)))
attempt("mount", lambda: call(libc.mount(b"tmpfs", os.path.expanduser("~").encode(), b"tmpfs", 0, None)))
attempt("change the root", lambda: call(libc.chroot(b"/")))
attempt("keep a key", lambda: system_call(ADD_KEY, b"user", b"speedrun", b"x", 1, ctypes.c_int(-4)))
attempt("make System V shared memory", lambda: system_call(SHMGET, 0, 4096, 0o600))
attempt("make an io_uring", lambda: system_call(IO_URING_SETUP, 1, (ctypes.c_char * 120)()))
attempt("raise a limit", lambda: __import__("resource").setrlimit(1, (-1, -1)))

status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
seen: dict[str, object] = {name: status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")}
seen["processes"] = [int(name) for name in os.listdir("/proc") if name.isdigit()] if given["own processes"] else None
seen["devices"] = sorted(os.listdir("/dev")) if given["own processes"] else None
seen["environment"] = sorted(os.environ)
with contextlib.suppress(OSError):
    seen["root"] = sorted(os.listdir("/"))
print(json.dumps({"ends": ends, "seen": seen}))
