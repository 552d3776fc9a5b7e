"""What every sandbox shows of this machine: system libraries, the interpreter and its packages, the rooms that train, GPU devices.

Not among them: the harness, the results, the prepared data, home folders, and the packages whose text a track trains on.
"""

from __future__ import annotations

import glob
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from harness.launch import REPOSITORY
from harness.sandbox.policy import DEFAULT_SHARED_MEMORY_BYTES, Mode, Policy, Shown, without_hidden

ROOMS = ("baseline", "kernels")
"""Folders of the repository that a run imports."""
HIDDEN_ROOMS = ("harness", "leaderboard", "submissions", "tests", "benchmarks", "data", "runs", ".git")
"""Hidden also where the repository lies in a folder that is shown, as installed packages do."""
TEXT_PACKAGES = ("pandas", "scipy")
"""Their docstrings are the text of the nano track, its held-out split included."""
PACKAGE_FOLDERS = ("", "lib/", "lib64/", "envs/*/lib/")
"""Where a tree keeps `python3.x/…-packages`."""
SYSTEM_TREES = (
    "/bin",
    "/sbin",
    "/lib*",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib*",
    "/usr/include",
    "/usr/share",
    "/usr/local/bin",
    "/usr/local/lib*",
    "/usr/local/include",
    "/usr/local/share",
    "/usr/local/cuda*",
    "/usr/local/nvidia",
    "/nix/store",
    *(f"/etc/{name}" for name in ("ld.so.*", "alternatives", "passwd", "group", "nsswitch.conf", "hosts", "localtime")),
)
DEVICES = ("null", "zero", "full", "random", "urandom")
GPU_DEVICES = ("nvidia*", "kfd", "dri/renderD*")
"""Below /dev. AMD's compute needs its render nodes; NVIDIA's does not."""
PATH_VARIABLES = ("LD_LIBRARY_PATH", "CUDA_HOME")
"""Variables that the run sees and that name folders."""


def make_policy(
    mode: Mode,
    *,
    readable: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    hidden: Sequence[Path] = (),
    shared_memory_bytes: int = DEFAULT_SHARED_MEMORY_BYTES,
) -> Policy:
    """A sandbox that shows what every one does, and the files and folders named here, which must exist (else FileNotFoundError).

    `hidden` is taken out of what every one shows.
    """
    if mode == "none":
        return Policy("none")
    for path in (*readable, *writable):
        path.stat()
    around = _shown(tuple(map(str, hidden)))
    own = without_hidden(readable, ())
    return Policy(
        mode,
        readable=(*around.readable, *own.readable),
        listable=around.listable,
        writable=without_hidden(writable, ()).readable,
        devices=tuple(devices()),
        shared_memory_bytes=shared_memory_bytes,
    )


def devices(folder: Path = Path("/dev")) -> Iterator[str]:
    """Device files of every sandbox: the harmless ones, and the GPUs."""
    for pattern in (*DEVICES, *GPU_DEVICES):
        yield from sorted(glob.glob(str(folder / pattern)))


@cache
def _shown(hidden: tuple[str, ...]) -> Shown:
    trees = list(_trees())
    rooms = [str(REPOSITORY / room) for room in HIDDEN_ROOMS]
    return without_hidden([*trees, *(REPOSITORY / room for room in ROOMS)], [*hidden, *rooms, *_text(trees)])


def _trees() -> Iterator[str]:
    for pattern in SYSTEM_TREES:
        yield from glob.glob(pattern)
    yield from _interpreter(Path(sys.executable))
    paths = sysconfig.get_paths()
    named = [sys.prefix, sys.base_prefix, paths["stdlib"], paths["platstdlib"], *site.getsitepackages(), *_site_folders()]
    named += [folder for variable in PATH_VARIABLES for folder in os.environ.get(variable, "").split(os.pathsep)]
    named += _loader_folders(Path("/etc/ld.so.conf.d"))
    yield from (path for path in named if _may_be_shown(path))


def _interpreter(executable: Path) -> Iterator[str]:
    """An interpreter's file under every name that leads to it: a virtual environment's links to it, perhaps through others."""
    while executable.is_symlink():
        yield str(executable)
        executable = executable.parent / executable.readlink()
    yield str(executable)


def _site_folders() -> Iterator[str]:
    """Packages that a `.pth` file adds to this interpreter's."""
    return (path for path in sys.path if Path(path).name in ("site-packages", "dist-packages"))


def _loader_folders(folder: Path) -> list[str]:
    """Where the dynamic loader also looks."""
    lines = [line.strip() for file in sorted(folder.glob("*.conf")) for line in file.read_text(errors="replace").splitlines()]
    return [line for line in lines if line.startswith("/")]


def _may_be_shown(path: str) -> bool:
    """Neither the trees of which SYSTEM_TREES names the parts, nor one that holds this user's home folder."""
    whole = os.path.isabs(path) and path not in ("/usr", "/usr/local")
    return whole and not Path.home().resolve().is_relative_to(os.path.realpath(path))


def _text(trees: Sequence[str]) -> Iterator[str]:
    """The packages that hold a track's text, wherever an interpreter of a tree has them, and conda's own copies of packages."""
    for tree in trees:
        for place in PACKAGE_FOLDERS:
            for package in TEXT_PACKAGES:
                yield from glob.glob(f"{tree}/{place}python3*/*-packages/{package}")
        for package in TEXT_PACKAGES:
            yield from glob.glob(f"{tree}/{package}")
    yield os.path.join(sys.base_prefix, "pkgs")
