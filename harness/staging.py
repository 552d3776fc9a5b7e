"""The files of one run: what is laid out before it starts, and how what it leaves is read. Nothing of it is executed here."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from io import BufferedRandom, BufferedReader
from pathlib import Path

import numpy as np
import psutil

from baseline.config import TrainConfig
from harness.errors import VoidRun
from harness.submission import Submission, stage

CHUNK_BYTES = 2**22
MAX_HEADER_BYTES = 2**24
DUMMY_SEED = 20_260_101


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """Paths inside a run's scratch folder."""

    scratch: Path

    @property
    def config(self) -> Path:
        return self.scratch / "config.json"

    @property
    def submission(self) -> Path:
        return self.scratch / "submission"

    @property
    def weights(self) -> Path:
        return self.scratch / "weights"

    @property
    def witness(self) -> Path:
        return self.scratch / "witness"

    @property
    def initial(self) -> Path:
        return self.weights / "initial.safetensors"

    @property
    def witnessed(self) -> Path:
        return self.witness / "initial.safetensors"

    @property
    def final(self) -> Path:
        return self.weights / "final.safetensors"


def stage_run(scratch: Path, submission: Submission, config: TrainConfig) -> StagedFiles:
    """Write the exact submission bytes that were hashed, and the track's config, into a fresh scratch folder."""
    files = StagedFiles(scratch)
    stage(submission, files.submission)
    files.weights.mkdir()
    files.witness.mkdir()
    files.config.write_text(json.dumps(config.to_dict()))
    return files


def sweep_scratch(folder: Path) -> None:
    """Remove what a harness that was killed could not: scratch folders, named `<process id>-…`, and sockets' temporary folders."""
    for left in folder.iterdir():
        owner = left.name.partition("-")[0]
        if not owner.isdigit() or not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    for left in Path(tempfile.gettempdir()).glob("speedrun-*-*"):
        owner = left.name.split("-")[1]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def dummy_rows(config: TrainConfig, folder: Path) -> BufferedRandom:
    """Rows of uniformly random tokens for the warm-up, one global batch of them, in a file without a name."""
    rng = np.random.Generator(np.random.PCG64(DUMMY_SEED))
    rows = rng.integers(0, config.vocab_size, size=(config.batch_rows, config.sequence_len + 1), dtype=np.uint16)
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the caller closes it
    file.write(rows.tobytes())
    file.flush()
    return file


def require_digest(file: BufferedReader, digest: str, path: Path) -> None:
    """Hash an open file through its own descriptor, which also fills the page cache; raises VoidRun when it is not what was pinned."""
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    if found != digest:
        raise VoidRun(f"{path.name} of the training split has changed on disk; run `speedrun data prepare` again")


def file_digest(path: Path) -> str:
    """SHA-256 of a file that a run should have left; raises VoidRun when it is missing."""
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_durable(path: Path) -> None:
    """Force the file to disk, so that the clock stops on weights that would survive a power cut."""
    with _opened(path) as file:
        os.fsync(file.fileno())


def parameters_in(path: Path) -> int:
    """Number of weights in a safetensors file, from its header alone; raises VoidRun for anything else."""
    with _opened(path) as file:
        header = file.read(min(int.from_bytes(file.read(8), "little"), MAX_HEADER_BYTES))
        bits = 8 * os.fstat(file.fileno()).st_size
    try:
        counts = [_elements(tensor["shape"]) for name, tensor in json.loads(header).items() if name != "__metadata__"]
        if sum(counts) > bits:
            raise ValueError("more weights than bits")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise VoidRun(f"{path.name} is not a safetensors file", by_entry=True) from None
    return sum(counts)


def _elements(shape: list[int]) -> int:
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("no shape of a tensor")
    return math.prod(shape)


def _opened(path: Path) -> BufferedReader:
    """A regular file that the run left, open for reading; never follows a link, never waits for a pipe. Raises VoidRun."""
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK))  # noqa: SIM115
    except OSError:
        raise VoidRun(f"the run left no {path.name}", by_entry=True) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise VoidRun(f"the run left no {path.name}", by_entry=True)
    return file
