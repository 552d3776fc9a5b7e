"""Brings public shards of pretraining text to this machine, from the Hugging Face hub or from a folder.

A lock file beside the shards records revision, size and SHA-256 of each. What is locked is verified, whoever brings it. A shard
that is there and intact is not fetched again; a broken connection is resumed where it broke; a killed download repeats only the
shards that were under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from baseline.data.durable import HASH_BLOCK_BYTES, exclusive, sha256_of, whole_file
from baseline.data.errors import DataError
from baseline.data.hub import fetch_all, look_up
from baseline.data.lockfile import LockedShard, ShardLock, measured
from baseline.data.progress import Progress, Tally, silent
from baseline.data.shards import Shard, ShardSplit
from baseline.data.space import require_space

LOCK_FILE = "shards.lock.json"


@dataclass(frozen=True, slots=True)
class PublicDataset:
    """A dataset repository that holds numbered shards with one column `text`."""

    repository: str
    shard_name: str
    """Format string with the field `index`."""
    last_index: int
    """The alphabetically last shard, which is the validation split."""
    revision: str | None = None
    """Commit to fetch. None takes the newest at the first contact and keeps to it by the lock file."""

    def names(self, train_shards: int) -> list[str]:
        """The first `train_shards` shards and the last one."""
        if not 0 < train_shards <= self.last_index:
            raise DataError(f"train_shards = {train_shards}: {self.repository} has 1 to {self.last_index} shards for training")
        return [self.shard_name.format(index=index) for index in (*range(train_shards), self.last_index)]

    @property
    def last_name(self) -> str:
        """The validation shard. A folder that holds a file of this name is taken for one with the dataset's shards."""
        return self.shard_name.format(index=self.last_index)


DATASETS = {
    "climbmix": PublicDataset("karpathy/climbmix-400b-shuffle", "shard_{index:05d}.parquet", 6542),
    "fineweb-edu": PublicDataset("karpathy/fineweb-edu-100b-shuffle", "shard_{index:05d}.parquet", 1822),
}
"""NVIDIA's ClimbMix and the 100-billion-token sample of FineWeb-Edu, as shuffled text: about 250 million characters and 100 MB a shard,
row groups of 1,024 documents. nanochat trains on the first and trained on the second before."""


def download(dataset: PublicDataset, folder: Path, train_shards: int, *, workers: int = 4, progress: Progress = silent) -> ShardSplit:
    """Make `folder` hold the first `train_shards` shards and the validation shard, and return them.

    Needs no network when they are all there. Raises DataError with one line when the hub cannot be reached, the disk is too small,
    a shard does not match its lock, or huggingface_hub is not installed.
    """
    names = dataset.names(train_shards)
    with exclusive(folder):
        lock = ShardLock.read(folder / LOCK_FILE, dataset.repository)
        if dataset.revision and lock.revision and dataset.revision != lock.revision:
            raise DataError(f"{folder} holds revision {lock.revision}, and {dataset.revision} is asked for: choose another folder")
        if unknown := [name for name in names if name not in lock.shards]:
            lock = _learn(dataset, folder, lock, unknown)
        missing = _missing(folder, names, lock, progress)
        if missing and lock.revision is None:
            lock = _learn(dataset, folder, lock, missing)
        if missing:
            needed = sum(lock.shards[name].size for name in missing)
            require_space(folder, needed, "the missing shards")
            fetch_all(lock, folder, missing, workers, Tally("download", needed, progress))
    return _split(folder, names, lock)


def bring(dataset: PublicDataset, folder: Path, train_shards: int, source: Path, progress: Progress = silent) -> ShardSplit:
    """Like `download`, from shards that lie in the folder `source` instead of the hub.

    Copies what `folder` lacks. A shard that is not locked yet is locked as it is found. Raises DataError for one that is missing
    or does not match.
    """
    names = dataset.names(train_shards)
    absent = [name for name in names if not (folder / name).is_file() and not (source / name).is_file()]
    if absent:
        raise DataError(f"{source} lacks {_list(absent)}: copy the shard files of {dataset.repository} there")
    with exclusive(folder):
        lock = ShardLock.read(folder / LOCK_FILE, dataset.repository)
        found = {name: measured(_first_existing(source / name, folder / name)) for name in names if name not in lock.shards}
        lock = lock.extended(found, None)
        lock.write(folder / LOCK_FILE)
        missing = _missing(folder, names, lock, progress)
        require_space(folder, sum(lock.shards[name].size for name in missing), "the missing shards")
        tally = Tally("download", sum(lock.shards[name].size for name in missing), progress)
        for name in missing:
            _copy(source / name, folder / name, lock.shards[name], tally)
    return _split(folder, names, lock)


# ---------------------------------------------------------------------- what is there


def _learn(dataset: PublicDataset, folder: Path, lock: ShardLock, names: Sequence[str]) -> ShardLock:
    """The lock with what the hub says of these shards, written to the lock file.

    Shards that are locked as a folder had them are asked for too: a lock with a revision has nothing that the hub has not confirmed.
    """
    asked = names if lock.revision else sorted({*names, *lock.shards})
    try:
        found, revision = look_up(dataset.repository, lock.revision or dataset.revision, asked)
    except ConnectionError as error:
        raise DataError(
            f"{folder} is not complete: {_list(names)} of {dataset.repository} are missing or not locked, "
            f"and the hub cannot be asked ({error}): go online, or bring the shard files with --from DIR"
        ) from None
    extended = lock.extended(found, revision)
    extended.write(folder / LOCK_FILE)
    return extended


def _missing(folder: Path, names: Sequence[str], lock: ShardLock, progress: Progress) -> list[str]:
    """The shards that `folder` lacks or holds damaged; a damaged file is removed."""
    tally = Tally("verify", sum(lock.shards[name].size for name in names), progress)
    missing = [name for name in names if not lock.holds(folder, name, tally)]
    for name in missing:
        (folder / name).unlink(missing_ok=True)
    return missing


def _split(folder: Path, names: Sequence[str], lock: ShardLock) -> ShardSplit:
    shards = [Shard(folder / name, lock.shards[name].size) for name in names]
    return ShardSplit(tuple(shards[:-1]), (shards[-1],))


def _list(names: Sequence[str]) -> str:
    """A few names in words."""
    return names[0] if len(names) == 1 else f"{len(names)} shards ({names[0]} … {names[-1]})"


def _first_existing(*paths: Path) -> Path:
    return next(path for path in paths if path.is_file())


def _copy(source: Path, target: Path, expected: LockedShard, tally: Tally) -> None:
    if not source.is_file():
        raise DataError(f"{target.name} is missing or damaged in {target.parent}, and {source} does not exist: copy the shard there")
    with source.open("rb") as original, whole_file(target) as copy:
        while block := original.read(HASH_BLOCK_BYTES):
            copy.write(block)
            tally.advance(len(block))
    if sha256_of(target) != expected.sha256:
        target.unlink()
        raise DataError(f"{source} is not the locked shard: its SHA-256 is not {expected.sha256[:12]}…. Get another copy of it")
