"""The freeze of the baseline: `baseline/frozen.toml` lists the SHA-256 of each trainer file, and tracks pin the digest of that list.

Data preparation (everything in `baseline/data/` but `rows.py`) is pinned by what it produces, the digests of tokenizer and rows.
`python -m harness.frozen` writes the list and the tracks' pins anew: a deliberate act that makes a new baseline version,
after which each measured track gets a new version and is calibrated again.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

from harness.errors import MachineLacks
from harness.launch import REPOSITORY

BASELINE = REPOSITORY / "baseline"
LIST = "frozen.toml"
PINNED_BY_OUTPUT = "data/"
STILL_TRAINER = ("data/__init__.py", "data/durable.py", "data/errors.py", "data/progress.py", "data/rows.py")


def trainer_files(baseline: Path = BASELINE) -> dict[str, str]:
    """Relative path -> SHA-256 of every Python file that a training process may run."""
    found = {}
    for path in sorted(baseline.rglob("*.py")):
        name = path.relative_to(baseline).as_posix()
        if not name.startswith(PINNED_BY_OUTPUT) or name in STILL_TRAINER:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def digest_of(files: dict[str, str]) -> str:
    """SHA-256 over the sorted `path digest` lines."""
    return hashlib.sha256("".join(f"{name} {files[name]}\n" for name in sorted(files)).encode()).hexdigest()


def require_frozen(pinned: str, baseline: Path = BASELINE) -> None:
    """Raise MachineLacks naming the first file that is not the one that was frozen, or a list that the track does not pin."""
    where = f"baseline/{LIST}"
    try:
        listed = tomllib.loads((baseline / LIST).read_text())["files"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise MachineLacks(f"cannot be read ({error})", where=where, mend="restore it with git") from None
    present = trainer_files(baseline)
    for name in sorted(set(listed) | set(present)):
        if listed.get(name) != present.get(name):
            what = "is missing" if name not in present else "was added" if name not in listed else "was changed"
            raise MachineLacks(
                f"{what} since the baseline was frozen", where=f"baseline/{name}", mend="restore it with git: runs need the frozen baseline"
            )
    if digest_of(listed) != pinned:
        raise MachineLacks("the track pins another baseline", where=where, mend="check out the commit of the track's version")


def write_list(baseline: Path = BASELINE) -> str:
    """Freeze the files as they are; returns the digest for the tracks to pin."""
    files = trainer_files(baseline)
    lines = ["# SHA-256 of each file of the frozen trainer. Written by `python -m harness.frozen`.", "", "[files]"]
    lines += [f'"{name}" = "{files[name]}"' for name in sorted(files)]
    (baseline / LIST).write_text("\n".join(lines) + "\n")
    return digest_of(files)


def pin_tracks(digest: str, tracks: Path) -> None:
    """Write the digest into every track's file."""
    for path in sorted(tracks.glob("*.toml")):
        path.write_text(re.sub(r'(?m)^baseline_digest = ".*"$', f'baseline_digest = "{digest}"', path.read_text()))


if __name__ == "__main__":
    frozen = write_list()
    pin_tracks(frozen, REPOSITORY / "harness" / "tracks")
    print(frozen)
